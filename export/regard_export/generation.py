"""What a checkpoint's generation_config.json asks of every search."""

from __future__ import annotations

from typing import Any

from transformers import GenerationConfig

from regard.manifest import GenerationDefaults
from regard_export.errors import CheckpointError

_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "encoder_no_repeat_ngram_size": (None, 0),
    "encoder_repetition_penalty": (None, 1.0),
    "exponential_decay_length_penalty": (None,),
    "guidance_scale": (None, 1, 1.0),
    "sequence_bias": (None, {}, []),
    "typical_p": (None, 1.0),
    "epsilon_cutoff": (None, 0.0),
    "eta_cutoff": (None, 0.0),
    "top_h": (None,),
    "penalty_alpha": (None, 0.0),
    "num_beam_groups": (None, 1),
    "watermarking_config": (None,),
    "renormalize_logits": (None, False),
}
"""What this version can't honour, and the values with which it has no effect."""

GREEDY: dict[str, Any] = {
    "num_beams": 1,
    "do_sample": False,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "min_length": 0,
    "min_new_tokens": None,
    "bad_words_ids": None,
    "begin_suppress_tokens": None,
}
"""Arguments of `generate()` that leave only the forced tokens of a checkpoint's own settings in force."""


def generation_defaults(options: GenerationConfig) -> GenerationDefaults:
    """Return what a request gets that asks for nothing; what isn't set is as in `generate()`.

    Raises `CheckpointError`, naming the setting, for one that can't be honoured.
    """
    for name, neutral in _UNSUPPORTED.items():
        if getattr(options, name, None) not in neutral:
            raise CheckpointError(
                f"generation_config.json sets {name} to {getattr(options, name)}, which this version can't honour; "
                "remove it to export"
            )
    beams, samples = options.num_beams or 1, bool(options.do_sample)
    if beams > 1 and samples:
        raise CheckpointError(
            f"generation_config.json sets do_sample with num_beams {beams}, which this version can't honour together; "
            "set num_beams to 1 to export"
        )
    given = {name: getattr(options, name, None) for name in GenerationDefaults.model_fields}
    given["bad_words_ids"] = tuple(tuple(word) for word in options.bad_words_ids or () if len(word) > 1)
    return GenerationDefaults(**{name: value for name, value in given.items() if value is not None})


def suppressed_tokens(options: GenerationConfig, eos_token_ids: tuple[int, ...]) -> tuple[int, ...]:
    """Return the tokens that the model never gives: `suppress_tokens`, and bad words of one token.

    The end of the sentence can be the former but, as in Transformers, not the latter.
    """
    banned = {word[0] for word in options.bad_words_ids or () if len(word) == 1} - set(eos_token_ids)
    return tuple(sorted(banned | set(options.suppress_tokens or ())))
