"""Blueprints of small modules, with attention of every kind of the classics."""

from __future__ import annotations

from collections.abc import Callable

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from regard.manifest import GenerationSpec, ImageSpec
from regard_export import classics
from regard_export.modules import Blueprint

VOCABULARY, END, START = 60, 0, 1
POSITIONS = 24


def tokenizer() -> Tokenizer:
    """Return a tokenizer of whole words: "w5" is token 5."""
    words = {"</s>": END, "<s>": START} | {f"w{index}": index for index in range(2, VOCABULARY)}
    whole_words = Tokenizer(models.WordLevel(words, unk_token="w2"))
    whole_words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    whole_words.decoder = decoders.WordPiece()
    return whole_words


def image(leading: tuple[str, ...], side: int) -> ImageSpec:
    """Return the spec of images of 16 by 16, seen as a grid of `side` by `side`."""
    return ImageSpec(
        height=16,
        width=16,
        resize=(16, 16),
        resample="bilinear",
        crop=None,
        rescale_factor=1 / 255,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        leading=leading,
        patch_rows=side,
        patch_columns=side,
    )


GENERATION = GenerationSpec(
    start_token_id=START,
    eos_token_ids=(END,),
    pad_token_id=START,
    suppressed_token_ids=(),
    forced_bos_token_id=None,
    forced_eos_token_id=None,
    max_target_tokens=48,
    vocabulary_size=VOCABULARY,
)
LABELS = ("left", "right", "stay")


def translator(module: torch.nn.Module) -> Blueprint:
    """Return the blueprint of a module that reads and writes text."""
    return Blueprint(module, tokenizer(), POSITIONS, generation=GENERATION)


def captioner(module: torch.nn.Module) -> Blueprint:
    """Return the blueprint of a module that writes about images."""
    return Blueprint(module, tokenizer(), image=image((), 4), generation=GENERATION)


def text_classifier(module: torch.nn.Module) -> Blueprint:
    """Return the blueprint of a module that names the class of a text."""
    return Blueprint(module, tokenizer(), POSITIONS, labels=LABELS)


def image_classifier(module: torch.nn.Module) -> Blueprint:
    """Return the blueprint of a module that names the class of an image."""
    return Blueprint(module, image=image(("[POOL]",), 4), labels=LABELS)


CLASSICS: dict[str, Callable[[], Blueprint]] = {
    "additive": lambda: translator(classics.AdditiveTranslator(VOCABULARY, 24, 32)),
    "dot product": lambda: translator(classics.DotProductTranslator(VOCABULARY, 24, 32)),
    "soft": lambda: captioner(classics.ShowAttendTell(VOCABULARY, width=24)),
    "hard": lambda: captioner(classics.ShowAttendTell(VOCABULARY, width=24, hard=True)),
    "local": lambda: text_classifier(classics.LocalTransformer(VOCABULARY, 3, window=2, positions=128)),
    "sparse": lambda: text_classifier(classics.SparseTransformer(VOCABULARY, 3, strongest=3, positions=128)),
    "spatial": lambda: image_classifier(classics.SpatialDenseNet(3)),
    "policy": lambda: image_classifier(classics.AttentivePolicy(3, grid=(4, 4))),
}


WIDTHS = {"dot product": 1.6, "soft": 1.6, "hard": 1.6}
"""Of what is drawn narrower: where each step reads the former, rounding grows with the weights."""


def peaked(name: str) -> Blueprint:
    """Return a classic with weights drawn anew, large enough for attention to have peaks."""
    usual, generator = WIDTHS.get(name, 2.6), torch.Generator().manual_seed(3)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)  # for the biases; with those of 3, two keys of the sparse one tie
        blueprint = CLASSICS[name]()
        for path, parameter in blueprint.module.named_parameters():
            if parameter.dim() > 1:
                width = 6.0 if path.startswith(("energy", "score")) else usual
                parameter.normal_(0, width / parameter[0].numel() ** 0.5, generator=generator)
    blueprint.module.eval()
    return blueprint
