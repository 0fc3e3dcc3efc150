"""The kinds of models: how each is called, and what must change in it while it is traced.

Most need nothing of their own: `Family` serves every model that follows Transformers' conventions.
A kind that doesn't has a file here, with a subclass that is listed below under its `model_type`.
"""

from __future__ import annotations

from collections.abc import Mapping

from regard_export.families.bart import Bart
from regard_export.families.base import Family, exchanged, logits_of, unused_positions
from regard_export.families.blip import Blip
from regard_export.families.deberta import Deberta
from regard_export.families.decoder import Decoder, measure_decoder, measure_lone_decoder
from regard_export.families.fsmt import FSMT
from regard_export.families.git import Git
from regard_export.families.siglip import Siglip
from regard_export.families.t5 import T5
from regard_export.families.vision_encoder_decoder import VisionEncoderDecoder
from regard_export.families.whisper import Whisper

__all__ = [
    "Decoder",
    "Family",
    "exchanged",
    "family_of",
    "logits_of",
    "measure_decoder",
    "measure_lone_decoder",
    "unused_positions",
]

FAMILIES: Mapping[str, type[Family]] = {
    "bart": Bart,
    "blip": Blip,
    "deberta-v2": Deberta,
    "fsmt": FSMT,
    "git": Git,
    "mbart": Bart,
    "mt5": T5,
    "siglip": Siglip,
    "t5": T5,
    "vision-encoder-decoder": VisionEncoderDecoder,
    "whisper": Whisper,
}


def family_of(model_type: str) -> Family:
    """Return the family of a `model_type`, as config.json names it."""
    return FAMILIES.get(model_type, Family)()
