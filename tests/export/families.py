"""Small random checkpoints of every family that the export knows, by the names that people call them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from regard_export.languages import Languages

from .checkpoints import (
    EOS,
    save_blip,
    save_captioner,
    save_classifier,
    save_clip,
    save_completer,
    save_fsmt,
    save_git,
    save_image_classifier,
    save_multilingual_translator,
    save_siglip,
    save_siglip_classifier,
    save_t5,
    save_translator,
)
from .speech import save_whisper

Save = Callable[[Path], Path]
"""Writes a checkpoint into a directory, and returns it."""

WINDOWED = ["sliding_attention", "full_attention"]
"""Two layers, of which one sees what is near alone."""

TRANSLATORS: dict[str, Save] = {
    "Marian": save_translator,
    "BART": lambda at: save_translator(at, "BartForConditionalGeneration"),
    "mBART": lambda at: save_translator(at, "MBartForConditionalGeneration"),
    "M2M100": save_multilingual_translator,
    "Pegasus": lambda at: save_translator(at, "PegasusForConditionalGeneration"),
    "T5": save_t5,
    "mT5": lambda at: save_t5(at, "MT5ForConditionalGeneration"),
    "FSMT": save_fsmt,
}

TEXT_CLASSIFIERS: dict[str, dict[str, Any]] = {
    "Bert": {},
    "Roberta": {},
    "XLMRoberta": {},
    "Albert": {"embedding_size": 16},
    "Electra": {"embedding_size": 16},
    "DistilBert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
    "DebertaV2": {
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "position_buckets": 16,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "position_biased_input": False,
    },
    "ModernBert": {"local_attention": 32, "layer_types": WINDOWED, "cls_token_id": EOS, "sep_token_id": EOS},
}

IMAGE_CLASSIFIERS: dict[str, dict[str, Any]] = {
    "ViT": {},
    "DeiT": {},
    "Beit": {"image_size": 16, "use_relative_position_bias": True, "use_mean_pooling": True},
    "Dinov2": {"image_size": 16},
    "Swin": {},
}

CAPTIONERS: dict[str, Save] = {
    "ViT and GPT-2": save_captioner,
    "ViT and BERT": lambda at: save_captioner(at, "ViT", "Bert"),
    "DeiT and RoBERTa": lambda at: save_captioner(at, "DeiT", "Roberta"),
    "Swin and GPT-2": lambda at: save_captioner(at, "Swin", "GPT2"),
    "BLIP": save_blip,
    "GIT": save_git,
}

TRANSCRIBERS: dict[str, Save] = {"Whisper": save_whisper}

COMPLETERS: dict[str, Save] = {
    "GPT-2": save_completer,
    "OPT": lambda at: save_completer(at, "OPT"),
    "Llama": lambda at: save_completer(at, "Llama", num_key_value_heads=2),
    "Mistral": lambda at: save_completer(at, "Mistral", num_key_value_heads=1, sliding_window=None),
    "Qwen2": lambda at: save_completer(at, "Qwen2", num_key_value_heads=2),
    "Qwen3": lambda at: save_completer(at, "Qwen3", num_key_value_heads=2, head_dim=16),
    "Gemma 3": lambda at: save_completer(
        at,
        "Gemma3Text",
        num_key_value_heads=2,
        head_dim=8,
        query_pre_attn_scalar=32,
        sliding_window=20,
        layer_types=WINDOWED,
    ),
}

HEADS: dict[str, tuple[str, str]] = {
    "Bert, tokens": ("Bert", "TokenClassification"),
    "DebertaV2, tokens": ("DebertaV2", "TokenClassification"),
    "Bert, answers": ("Bert", "QuestionAnswering"),
    "Albert, answers": ("Albert", "QuestionAnswering"),
}
"""Classifiers of every token, and of the ends of an answer."""

FAMILIES: dict[str, Save] = {
    **TRANSLATORS,
    **CAPTIONERS,
    **TRANSCRIBERS,
    **COMPLETERS,
    **{kind: partial(save_classifier, model_class=kind, **sizes) for kind, sizes in TEXT_CLASSIFIERS.items()},
    **{
        name: partial(save_classifier, model_class=kind, head=head, **TEXT_CLASSIFIERS[kind])
        for name, (kind, head) in HEADS.items()
    },
    **{kind: partial(save_image_classifier, model_class=kind, **sizes) for kind, sizes in IMAGE_CLASSIFIERS.items()},
    "CLIP": save_clip,
    "SigLIP": save_siglip,
    "SigLIP, classes": save_siglip_classifier,
}
"""All of them: whatever is added above is a row of the certificate, too."""

UNLISTED: dict[str, Save] = {
    "Blenderbot": lambda at: save_translator(at, "BlenderbotForConditionalGeneration"),
    "ERNIE": lambda at: save_classifier(at, "Ernie"),
}
"""Families that follow Transformers' conventions, and that no line of Regard's code is about."""

LANGUAGES: dict[str, Languages] = {"M2M100": Languages("deu_Latn", "fra_Latn")}
"""Of those that speak many, the two that they are exported for."""
