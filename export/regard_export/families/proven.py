"""Which kinds of models are exported, task by task: what a user can count on.

The tests export each of them; of the encoders of texts, two with each head over tokens and answers.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from transformers.models.auto import modeling_auto

from regard.manifest import Task
from regard_export.errors import CheckpointError

ENCODERS_OF_TEXT = ("bert", "distilbert", "roberta", "xlm-roberta", "albert", "electra", "deberta-v2", "modernbert")
PROVEN: Mapping[Task, tuple[str, ...]] = {
    Task.TRANSLATION: ("marian", "bart", "mbart", "m2m_100", "pegasus", "t5", "mt5", "fsmt"),
    Task.CAPTIONING: ("vision-encoder-decoder", "blip", "git"),
    Task.COMPLETION: ("gpt2", "opt", "llama", "mistral", "qwen2", "qwen3", "gemma3_text"),
    Task.TRANSCRIPTION: ("whisper",),
    Task.CLASSIFICATION: (
        *ENCODERS_OF_TEXT,
        "vit",
        "deit",
        "beit",
        "swin",
        "dinov2",
        "siglip",
    ),
    Task.TOKEN_CLASSIFICATION: ENCODERS_OF_TEXT,
    Task.QUESTION_ANSWERING: ENCODERS_OF_TEXT,
    Task.SIMILARITY: ("clip", "siglip"),
}
"""By their `model_type`. Others that follow Transformers' conventions may export too: their proof decides."""

_CLASSES: tuple[Mapping[str, Any], ...] = (
    modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES,
)
_KINDS = tuple(dict.fromkeys(kind for kinds in PROVEN.values() for kind in kinds))


def unsupported(name: str, architecture: str, model_type: str) -> CheckpointError:
    """Return the error for a model of no task that is exported: it names the nearest kinds, and how to add one."""
    known = [classes[model_type] for classes in _CLASSES if model_type in classes]
    same = [each for classes in known for each in ([classes] if isinstance(classes, str) else classes)]
    spelled = difflib.get_close_matches(model_type.lower(), _KINDS, n=3, cutoff=0.5)
    nearest = same + spelled or [kinds[0] for kinds in PROVEN.values()]
    return CheckpointError(
        f"{name} is a {architecture} ({model_type}), which can't be exported; nearest is {', '.join(nearest)} "
        f"(regard-export list). Exported are {', '.join(task.value for task in PROVEN)} by models of Transformers: "
        "to add a kind, give it a Family in regard_export/families, listed there by its model_type"
    )
