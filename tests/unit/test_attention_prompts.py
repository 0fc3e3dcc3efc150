"""Maps of models whose decoder reads the source itself: what is selected, and what labels it."""

from __future__ import annotations

import numpy as np
import pytest

from regard.answers import AttentionMap
from regard.answers import PatchGrid as AnsweredGrid
from regard.answers import Segment as AnsweredSegment
from regard.attention.axes import Axis, AxisName, Passage, Patches, label
from regard.attention.maps import build
from regard.attention.rollout import rollout
from regard.attention.selection import AttentionChoice, AttentionKind, AttentionStack, Granularity, Reduction, select
from regard.client import patch_weights
from regard.errors import InvalidInputError
from regard.manifest import Manifest, Task
from regard.testing import sum_package
from regard.text.segment import Segment
from regard.vision.grid import PatchGrid

from .packages import IMAGE as SPEC
from .packages import manifest_of, taps_of

COMPLETER = sum_package().manifest
GIT = COMPLETER.model_copy(
    update={
        "task": Task.CAPTIONING,
        "image": SPEC,
        "taps": (
            *taps_of("prefill", "self", "encoder", [2, 2]),
            *taps_of("prefill", "self", "decoder", [2, 2]),
            *taps_of("step", "self", "decoder", [2, 2]),
        ),
    }
)
IMAGE = Patches(["[CLS]"], PatchGrid(2, 3, 60, 40, 0, 0, 60, 40))
START = Segment("<s>", 0, 0, True, 1)
PROMPT = Passage("trans", [Segment("tr", 0, 2, False, 5), Segment("ans", 2, 5, False, 6)])
OUTPUT = Passage(
    "late it", [Segment("late", 0, 4, False, 7), Segment("it", 5, 7, False, 8), Segment("</s>", 7, 7, True, 0)]
)


def names(choice: AttentionChoice, manifest: Manifest) -> list[str]:
    """Return the names of the taps that a choice gets."""
    return [tap.name for tap in select(choice, manifest).taps]


def test_a_decoder_s_own_attention_is_what_is_usual() -> None:
    """Neither the prompt's nor the image encoder's comes unless it is asked for."""
    assert names(AttentionChoice(), COMPLETER) == ["decoder.self.0"]
    assert names(AttentionChoice(), GIT) == ["decoder.self.0", "decoder.self.1"]
    assert names(AttentionChoice(stacks=(AttentionStack.ENCODER,), kinds=(AttentionKind.SELF,)), GIT) == [
        "encoder.self.0",
        "encoder.self.1",
    ]


def test_the_prompt_s_maps_come_from_the_chosen_layers() -> None:
    """They come before those of the output, with the same heads."""
    assert names(AttentionChoice(layers=(1,), prompt=True), GIT) == ["prompt.self.1", "decoder.self.1"]


def test_a_model_with_an_encoder_has_no_prompt_to_look_at() -> None:
    """The error names the field and what there is."""
    with pytest.raises(InvalidInputError, match=r"attention\.prompt: no decoder reads the source"):
        select(AttentionChoice(prompt=True), manifest_of(Task.TRANSLATION))


def axes_of(manifest: Manifest, source: Passage | Patches, granularity: Granularity, start: Segment | None) -> Axis:
    """Return what decoding was fed."""
    selection = select(AttentionChoice(granularity=granularity), manifest)
    return label(selection, source, OUTPUT, start)[AxisName.DECODER_INPUT]


def test_a_prompt_and_its_output_are_one_text() -> None:
    """Tokens of the output stand behind the prompt; a word that both have a part of is one."""
    tokens = axes_of(COMPLETER, PROMPT, Granularity.TOKEN, None)
    text = PROMPT.text + OUTPUT.text
    assert [text[one.start : one.end] for one in tokens.segments] == ["tr", "ans", "late", "it"]
    words = axes_of(COMPLETER, PROMPT, Granularity.WORD, None)
    assert ([word.text for word in words.segments], words.groups) == (["translate", "it"], ((0, 1, 2), (3,)))


@pytest.mark.parametrize("granularity", [Granularity.TOKEN, Granularity.WORD])
def test_an_image_comes_before_its_caption_with_its_grid(granularity: Granularity) -> None:
    """Seven positions of the image, the start token, and the words; patches stay patches."""
    axis = axes_of(GIT, IMAGE, granularity, START)
    assert axis.grid is IMAGE.grid
    assert [one.text for one in axis.segments] == [*(one.text for one in IMAGE.segments), "<s>", "late", "it"]
    assert axis.tokens == 10


def test_the_patches_of_such_a_map_are_the_first_that_are_not_special() -> None:
    """What a caption's word saw of the image, without the text behind it."""
    axis = axes_of(GIT, IMAGE, Granularity.TOKEN, START)
    keys = tuple(AnsweredSegment(one.text, 0, 0, one.special, None) for one in axis.segments)
    grid = AnsweredGrid(2, 3, 60, 40, 0, 0, 60, 40)
    weights = np.arange(10, dtype=np.float32)[None, None]
    one = AttentionMap("self", "decoder", 0, (0,), "none", "target", "decoder_input", (), keys, weights, key_grid=grid)
    assert patch_weights(one, 0).tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize("manifest", [COMPLETER, GIT], ids=["a prompt", "an image"])
def test_a_rollout_goes_through_what_was_read_before(manifest: Manifest) -> None:
    """Prompt and output are one sequence: the last rows of the rollout of its whole square."""
    source, start = (IMAGE, START) if manifest is GIT else (PROMPT, None)
    selection = select(AttentionChoice(reduction=Reduction.ROLLOUT, prompt=True), manifest)
    axes = label(selection, source, OUTPUT, start)
    keys, read = axes[AxisName.DECODER_INPUT].tokens, axes[AxisName.SOURCE].tokens
    rng = np.random.default_rng(4)
    layers = len({tap.layer for tap in selection.taps})
    raw = np.tril(rng.random((layers, 2, keys, keys)) + 0.01).astype(np.float32)
    raw[..., :read, :read] += rng.random((layers, 2, read, read)) if manifest is GIT else 0
    whole = raw / raw.sum(axis=-1, keepdims=True)
    taps = {f"decoder.self.{layer}": one[:, -3:] for layer, one in enumerate(whole)}
    taps |= {f"prompt.self.{layer}": one[:, :read, :read] for layer, one in enumerate(whole)}

    prompt, written = build(selection, taps, axes)

    expected = rollout([*whole])[-1]
    assert np.allclose(written.weights[0], expected[-3:], atol=1e-6)
    assert np.allclose(written.weights.sum(axis=-1), 1, atol=1e-5)
    if manifest is GIT:
        assert np.allclose(prompt.weights[0], expected[:read, :read], atol=1e-6)


@pytest.mark.parametrize(
    ("kinds", "query_axis", "queries"),
    [((AttentionStack.DECODER,), AxisName.TARGET, 3), ((AttentionStack.ENCODER,), AxisName.SOURCE, 7)],
)
def test_patches_are_keys_by_themselves(kinds: tuple[AttentionStack, ...], query_axis: AxisName, queries: int) -> None:
    """Without [CLS] and without the text behind them, and each as heavy as the model made it; [CLS] still asks."""
    selection = select(
        AttentionChoice(stacks=kinds, kinds=(AttentionKind.SELF,), layers=(1,), granularity=Granularity.PATCH), GIT
    )
    axes = label(selection, IMAGE, OUTPUT, START)
    keys = 10 if query_axis is AxisName.TARGET else 7
    weights = np.random.default_rng(1).dirichlet(np.ones(keys), (2, queries)).astype(np.float32)

    (one,) = build(selection, {selection.taps[0].name: weights}, axes)

    assert (one.query_axis, one.key_axis) == (query_axis, AxisName.PATCHES)
    assert np.array_equal(one.weights, weights[:, :, 1:7])
    assert [segment.text for segment in axes[AxisName.PATCHES].segments] == ["0,0", "0,1", "0,2", "1,0", "1,1", "1,2"]
    assert axes[AxisName.PATCHES].grid is IMAGE.grid


def test_words_of_both_get_the_sums_of_their_tokens() -> None:
    """Rows still sum to what they did."""
    selection = select(AttentionChoice(granularity=Granularity.WORD), COMPLETER)
    weights = np.array([[[0.1, 0.9, 0, 0], [0.2, 0.3, 0.5, 0], [0.1, 0.2, 0.3, 0.4]]] * 2, np.float32)
    (one,) = build(selection, {"decoder.self.0": weights}, label(selection, PROMPT, OUTPUT))
    assert np.allclose(one.weights[0], [[1, 0], [1, 0], [0.6, 0.4]])
