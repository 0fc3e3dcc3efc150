"""Maps of models whose decoder reads the source itself: what is selected, and what labels it."""

from __future__ import annotations

import numpy as np
import pytest

from regard.answers import AttentionMap
from regard.answers import PatchGrid as AnsweredGrid
from regard.answers import Segment as AnsweredSegment
from regard.attention.axes import Axis, AxisName, Passage, Patches, label
from regard.attention.maps import build
from regard.attention.selection import AttentionChoice, AttentionKind, AttentionStack, Granularity, select
from regard.client import patch_weights
from regard.errors import InvalidInputError
from regard.manifest import Manifest, Task
from regard.testing import sum_package
from regard.text.segment import Segment
from regard.vision.grid import PatchGrid

from .packages import manifest_of, taps_of

COMPLETER = sum_package().manifest
GIT = COMPLETER.model_copy(
    update={
        "task": Task.CAPTIONING,
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


@pytest.mark.parametrize("granularity", Granularity)
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


def test_words_of_both_get_the_sums_of_their_tokens() -> None:
    """Rows still sum to what they did."""
    selection = select(AttentionChoice(granularity=Granularity.WORD), COMPLETER)
    weights = np.array([[[0.1, 0.9, 0, 0], [0.2, 0.3, 0.5, 0], [0.1, 0.2, 0.3, 0.4]]] * 2, np.float32)
    (one,) = build(selection, {"decoder.self.0": weights}, label(selection, PROMPT, OUTPUT))
    assert np.allclose(one.weights[0], [[1, 0], [1, 0], [0.6, 0.4]])
