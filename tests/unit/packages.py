"""Tiny tokenizers of each kind, and packages around them that hold no graph."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from regard.manifest import (
    ClassificationSpec,
    GenerationSpec,
    ImageSpec,
    Manifest,
    Package,
    SourceSpec,
    TapSpec,
    Task,
    TextSpec,
)

SENTENCES = (
    "The cat sat on the mat.",
    "I don't know where the well-known café is.",
    "Hello, world! How are you today?",
    "It was the best of times, it was the worst of times.",
    "Je ne sais pas où est le chat, mais l'homme le sait.",
    "Translation is not a matter of words only.",
)


def unigram() -> Tokenizer:
    """Return a unigram tokenizer with NFKC and Metaspace, as the demonstration translator has."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Split(Regex(r"[.,!?]"), "isolated")]
    )
    tokenizer.decoder = decoders.Metaspace()
    special = ["</s>", "<unk>", "<pad>"]
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    return tokenizer


def word_piece() -> Tokenizer:
    """Return a WordPiece tokenizer as BERT's."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=True)
    trainer = trainers.WordPieceTrainer(vocab_size=150, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def byte_level() -> Tokenizer:
    """Return a byte-level BPE tokenizer as BART's."""
    special = ["<s>", "<pad>", "</s>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def byte_fallback() -> Tokenizer:
    """Return a BPE tokenizer that falls back to bytes, with a decoder as Llama's."""
    special = ["<unk>", "<s>", "</s>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    trained = json.loads(tokenizer.to_str())["model"]
    vocabulary = trained["vocab"] | {f"<0x{byte:02X}>": len(trained["vocab"]) + byte for byte in range(256)}
    merges = [(left, right) for left, right in trained["merges"]]
    tokenizer.model = models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def taps_of(
    graph: Literal["encoder", "prefill", "step", "classifier"],
    kind: Literal["self", "cross"],
    stack: Literal["encoder", "decoder"],
    heads: Sequence[int],
) -> tuple[TapSpec, ...]:
    """Return a tap for each layer, the first with `heads[0]` heads."""
    return tuple(
        TapSpec(
            graph=graph,
            kind=kind,
            stack=stack,
            layer=layer,
            heads=count,
            output=f"{stack}_{kind}.{layer}",
            rows_input=f"{kind}_tap_rows",
        )
        for layer, count in enumerate(heads)
    )


TRANSLATION_TAPS = (
    *taps_of("encoder", "self", "encoder", [4, 4, 4]),
    *taps_of("step", "self", "decoder", [4, 2]),
    *taps_of("step", "cross", "decoder", [4, 2]),
)
CLASSIFICATION_TAPS = taps_of("classifier", "self", "encoder", [2, 2])


IMAGE = ImageSpec(
    height=32,
    width=48,
    resize=(32, 48),
    resample="bilinear",
    crop=None,
    rescale_factor=1 / 255,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    leading=("[CLS]",),
    patch_rows=2,
    patch_columns=3,
)


def manifest_of(
    task: Task,
    *,
    image: ImageSpec | None = None,
    max_source_tokens: int = 32,
    taps: Sequence[TapSpec] | None = None,
    start_token_id: int = 2,
    eos_token_id: int = 0,
) -> Manifest:
    """Return a manifest of taps and no graph; with `image`, that of a model that looks at images."""
    generates = task is not Task.CLASSIFICATION
    default_taps = TRANSLATION_TAPS if generates else CLASSIFICATION_TAPS
    text = TextSpec(
        tokenizer_file="tokenizer.json", max_source_tokens=None if image else max_source_tokens, pad_token_id=0
    )
    return Manifest(
        format_version=2,
        name="tiny",
        version="1",
        task=task,
        target="cpu",
        precision="fp32",
        source=SourceSpec(architecture="Tiny", model_type="tiny", weights_sha256="0" * 64),
        graphs={},
        taps=default_taps if taps is None else tuple(taps),
        state=(),
        cross_state=(),
        text=text if generates or image is None else None,
        generation=GenerationSpec(
            start_token_id=start_token_id,
            eos_token_ids=(eos_token_id,),
            pad_token_id=start_token_id,
            suppressed_token_ids=(),
            forced_bos_token_id=None,
            forced_eos_token_id=None,
            max_target_tokens=32,
            vocabulary_size=120,
        )
        if generates
        else None,
        image=image,
        classification=None
        if generates
        else ClassificationSpec(labels=("yes", "no"), out_of_scope_label=None, out_of_scope_threshold=None),
        exported_with={},
        files={},
    )


def package_of(directory: Path, tokenizer: Tokenizer, manifest: Manifest) -> Package:
    """Write the tokenizer and the manifest to `directory` and return the package that they make."""
    directory.mkdir(parents=True, exist_ok=True)
    assert manifest.text is not None
    tokenizer.save(str(directory / manifest.text.tokenizer_file))
    (directory / "manifest.json").write_text(manifest.model_dump_json())
    return Package(directory=directory, manifest=manifest, sha256="0" * 64)
