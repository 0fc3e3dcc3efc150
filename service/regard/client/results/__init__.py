"""The server's messages, read into answers: a file per task, and what they share."""

from regard.client.results.attribution import read_class_attributions, read_output_attributions
from regard.client.results.captioning import read_caption_event, read_captions
from regard.client.results.classification import read_classifications, read_token_classifications
from regard.client.results.completion import read_completion_event, read_completions
from regard.client.results.models import read_models
from regard.client.results.question_answering import read_answered_questions
from regard.client.results.similarity import Comparison, read_comparison
from regard.client.results.transcription import read_transcription_event, read_transcriptions
from regard.client.results.translation import read_event, read_translation_scores, read_translations

__all__ = [
    "Comparison",
    "read_answered_questions",
    "read_caption_event",
    "read_captions",
    "read_class_attributions",
    "read_classifications",
    "read_comparison",
    "read_completion_event",
    "read_completions",
    "read_event",
    "read_models",
    "read_output_attributions",
    "read_token_classifications",
    "read_transcription_event",
    "read_transcriptions",
    "read_translation_scores",
    "read_translations",
]
