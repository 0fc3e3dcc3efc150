"""Scenes that are what they say, and a judge that can tell right from wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import scene_judge
import scenes
from scenes import Scene, SceneObject

SEEDS = range(40)


def scene_of(*objects: SceneObject) -> Scene:
    """Return a scene of objects, without painting it."""
    return Scene(np.zeros((scenes.SIDE, scenes.SIDE, 3), np.uint8), objects)


def an(colour: str, shape: str, x: float, y: float, size: str = "small") -> SceneObject:
    """Return an object around a point."""
    return SceneObject(size, colour, shape, (x - 15, y - 15, x + 15, y + 15))


def test_a_seed_gives_one_scene() -> None:
    """The same seed draws the same pixels and words, another seed others."""
    first, again, other = scenes.draw(3), scenes.draw(3), scenes.draw(4)
    assert np.array_equal(first.pixels, again.pixels)
    assert first.caption == again.caption != other.caption


@pytest.mark.parametrize("held_out", [False, True])
def test_held_out_combinations_are_where_they_belong(held_out: bool) -> None:
    """No ordinary scene has one, every scene that is asked for one has."""
    for seed in SEEDS:
        kinds = {one.kind for one in scenes.draw(seed, held_out=held_out).objects}
        assert bool(kinds & scenes.HELD_OUT) is held_out


def test_objects_fill_their_boxes_and_keep_apart() -> None:
    """Every box lies in the picture, shows its colour inside, and touches no other."""
    for seed in SEEDS:
        scene = scenes.draw(seed)
        for place, one in enumerate(scene.objects):
            left, top, right, bottom = one.box
            assert 0 <= left < right <= scenes.SIDE
            assert 0 <= top < bottom <= scenes.SIDE
            inside = scene.pixels[int(top) : int(bottom), int(left) : int(right)].astype(int)
            near = np.abs(inside - scenes.COLOURS[one.colour]).max(axis=2) < 70
            assert near.mean() > 0.2, (seed, one)
            for other in scene.objects[:place]:
                apart = [right < other.box[0], other.box[2] < left, bottom < other.box[1], other.box[3] < top]
                assert any(apart)


def test_the_right_caption_is_judged_right_also_in_the_mirror() -> None:
    """Every drawn caption passes its own judge, and that of its mirror image there."""
    for seed in SEEDS:
        for scene in (scenes.draw(seed), scenes.draw(seed).mirrored()):
            assert scene_judge.judge(scene.caption, scene) == scene_judge.Verdict(True, True, True)


def test_left_and_right_change_places_in_the_mirror() -> None:
    """Above and below stay."""
    scene = scene_of(an("red", "circle", 40, 100), an("blue", "square", 150, 90), an("blue", "ring", 140, 150))
    assert scene.relations == (scenes.LEFT, scenes.ABOVE)
    assert scene.mirrored().relations == (scenes.RIGHT, scenes.ABOVE)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a small red circle to the left of a small blue square", (True, True, True)),
        ("a small blue square to the right of a small red circle", (True, True, True)),
        ("a large red circle to the left of a small blue square", (True, False, True)),
        ("a small red circle to the right of a small blue square", (True, True, False)),
        ("a small red circle above a small blue square", (True, True, False)),
        ("a small red square to the left of a small blue square", (False, False, False)),
        ("a small red circle on the left", (False, False, False)),
        ("a small red circle to the left of a small blue square, which is below a large pink ring", (False,) * 3),
        ("a small red circle to the left of", (False, False, False)),
        ("red circle, blue square", (False, False, False)),
        ("", (False, False, False)),
    ],
)
def test_the_judge_tells_what_is_wrong(caption: str, expected: tuple[bool, bool, bool]) -> None:
    """Objects, sizes and relations are judged each by itself; what is no caption is all wrong."""
    scene = scene_of(an("red", "circle", 40, 100), an("blue", "square", 150, 90))
    assert scene_judge.judge(caption, scene) == scene_judge.Verdict(*expected)


def test_a_lone_object_is_judged_by_its_place() -> None:
    """The wrong ninth of the picture is a wrong relation."""
    scene = scene_of(an("red", "circle", 30, 100))
    assert scene.caption == "a small red circle on the left"
    assert scene_judge.judge(scene.caption, scene).relations
    assert not scene_judge.judge("a small red circle in the top left", scene).relations


def test_pointing_hits_only_inside_the_box() -> None:
    """The heaviest patch's middle decides, head by head; a uniform map hits by the box's share of patches."""
    weights = np.zeros((2, 8, 8), np.float32)
    weights[0, 2, 3] = weights[1, 7, 7] = 1
    box = (60, 40, 100, 80)
    assert scene_judge.hits(weights, box).tolist() == [True, False]
    assert scene_judge.chance(8, 8, (0, 0, scenes.SIDE / 2, scenes.SIDE)) == 0.5
    assert scene_judge.chance(8, 8, box) == 2 / 64


def test_unseen_combinations_must_all_be_named() -> None:
    """Naming the others well is not enough."""
    scene = scene_of(an("red", "star", 40, 100), an("blue", "square", 150, 90))
    assert scene_judge.names_unseen(scene.caption, scene)
    other = scene_of(replace(scene.objects[0], shape="circle"), scene.objects[1])
    assert not scene_judge.names_unseen(other.caption, scene)
