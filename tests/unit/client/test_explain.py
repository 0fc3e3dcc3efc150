"""`regard explain`, and what the client makes of attributions, on a canned server."""

from __future__ import annotations

import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

from regard.cli import main
from regard.client import AsyncClient, Client, Head, HeadChoice, PatchGrid
from regard.vision.overlay import draw_overlays
from regard.vision.picture import ImageLimits

from .conftest import png

LIMITS = ImageLimits(1 << 20, 1 << 20)


@pytest.fixture
def run(server, monkeypatch, capsys):
    """Return a function that runs `regard explain ARGUMENTS` on the canned server: (exit code, stdout, stderr)."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("REGARD_SERVER", server.target)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["regard", "explain", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return run


def test_words_are_drawn_with_their_signs(run):
    """Methods that take words away give signed points, attention gives shares, each below its words."""
    code, out, _ = run("class", "hi not you")
    lines = [line.strip() for line in out.splitlines()]
    assert code == 0
    assert lines[0].startswith("greeting  75.0 %")
    own, attended = lines.index("leave one out"), lines.index("last layer")
    assert lines[own + 2].split() == ["hi", "not", "you"]
    assert [figure.strip("░▒▓█") for figure in lines[own + 3].split()] == ["+50", "-25", "0"]
    assert [figure.strip("░▒▓█") for figure in lines[attended + 3].split()] == ["50", "-25", "0"]


def test_faithfulness_is_a_table_with_chance_below(run):
    """Every method has a row, a random order the last one, and the runs are told."""
    code, out, _ = run("class", "hi not", "--faithfulness")
    rows = [line.rsplit(maxsplit=4) for line in out.splitlines()]
    assert code == 0
    assert ["leave one out", "0.25", "0.75", "0.50", "0.12"] in rows
    assert ["random order", "0.25", "0.75", "0.50", "0.12"] in rows
    assert "9 runs of the model" in out


def test_without_faithfulness_there_is_no_table(run):
    """Nothing is said of what was not measured."""
    assert "random" not in run("class", "hi not")[1]


def test_options_travel(run, server):
    """Each option reaches the server under its own name."""
    run(
        *("class", "hi", "--pair", "ho", "--label", "goodbye", "-m", "occlusion", "-m", "rollout", "--priority", "low"),
        *("--granularity", "token", "--window", "3", "--stride", "2", "--model", "a/2", "--truncate", "-F"),
    )
    (sent,) = server.requests
    assert (sent.model_name, sent.model_version, sent.label, sent.truncate, sent.priority) == (
        "a",
        "2",
        "goodbye",
        True,
        1,
    )
    assert (sent.inputs[0].text, sent.inputs[0].text_pair) == ("hi", "ho")
    asked = sent.attribution
    assert (list(asked.methods), asked.granularity, asked.faithfulness) == ([2, 4], 1, True)
    assert (asked.occlusion_window, asked.occlusion_stride, asked.overlay) == (3, 2, False)


def test_heads_are_a_table_of_layers_and_heads(run, server):
    """Each cell has its figure, and what is chosen of the heads reaches the server."""
    code, out, _ = run(
        *("translation", "they grow", "-m", "head_knock_out", "--head-kind", "cross"),
        *("--head-stack", "decoder", "--head-layer", "0", "--head-layer", "3"),
    )
    lines = [line.strip() for line in out.splitlines()]
    assert code == 0
    table = lines.index("head knock-out: decoder, cross-attention")
    assert lines[table + 2].split() == ["0", "1", "2"]
    for line, layer in ((lines[table + 3], "0"), (lines[table + 4], "3")):
        assert [word.strip("░▒▓█") for word in line.split()] == ["layer", layer, "+2.0", "-0.1", "0"]
    (sent,) = server.requests
    chosen = sent.attribution.heads
    assert (list(chosen.kinds), list(chosen.stacks), list(chosen.layers)) == ([2], [2], [0, 3])


def test_the_order_of_heads_has_a_table_of_its_own(run):
    """Heads of a class are in percentage points, and how faithful they are stands beside chance."""
    code, out, _ = run("class", "hi not", "-m", "head_knock_out", "-m", "rollout", "--faithfulness")
    rows = [line.rsplit(maxsplit=4) for line in out.splitlines()]
    assert code == 0
    assert "+200.0" in out
    assert [row[0] for row in rows if row[1:] == ["0.25", "0.75", "0.50", "0.12"]] == [
        *("rollout", "random order", "head knock-out", "random order")
    ]


def test_norms_are_drawn_as_shares_of_what_a_row_takes(run):
    """They are no percentages of anything else, whatever the model's values are."""
    out = run("class", "hi", "-m", "value_norm")[1]
    lines = [line.strip() for line in out.splitlines()]
    assert [figure.strip("░▒▓█") for figure in lines[lines.index("value norm") + 3].split()] == ["100"]
    for drawn in (out, run("translation", "they grow", "-m", "value_norm")[1]):
        assert "by value norms" in " ".join(drawn.split())


def test_json_has_the_fields_of_the_client(run):
    """One object: the class, the parts and what each method says."""
    record = json.loads(run("class", "hi not", "--json")[1])
    assert record["explained"]["label"] == "greeting"
    assert [part["text"] for part in record["attributions"]["parts"]] == ["hi", "not"]
    assert record["attributions"]["methods"][0]["weights"] == [0.5, -0.25]


def test_a_translation_is_a_grid_for_each_method(run, server):
    """Words of the translation are rows; erasing gives log-probabilities and attention percentages."""
    code, out, _ = run("translation", "they grow", "--target", "ILS POUSSENT", "--target-language", "fr")
    lines = [line.strip() for line in out.splitlines()]
    assert code == 0
    assert lines[0] == "ILS POUSSENT  61 % a token, on geometric average"
    own, attended = lines.index("occlusion"), lines.index("last layer")
    assert lines[own + 2].split() == lines[attended + 2].split() == ["they", "grow"]
    assert lines[own + 3].split()[0] == "ILS" and "2.5" in lines[own + 3]
    assert lines[attended + 3].split()[0] == "ILS" and "250" in lines[attended + 3]
    assert any("<unk> covers" in line for line in lines)
    (sent,) = server.requests
    assert (sent.inputs[0].text, sent.inputs[0].target) == ("they grow", "ILS POUSSENT")
    assert sent.generation.target_language == "fr"


def test_a_caption_is_a_strip_for_each_method_and_its_overlays_a_sheet(run, tmp_path):
    """Every word of the caption stands below a picture, a blank line parts methods, and FILE.png holds all, by name."""
    photo, sheet = tmp_path / "photo.png", tmp_path / "why.png"
    photo.write_bytes(png(Image.new("RGB", (40, 20), "white")))
    code, out, _ = run("caption", str(photo), "--overlay", str(sheet))
    assert code == 0
    assert [line.split() for line in out.splitlines()].count(["a", "cat"]) == 2
    lines = [line.strip() for line in out.splitlines()]
    ends = [place for place, line in enumerate(lines) if line == "lit where the picture speaks for the word"]
    assert [lines[place + 1 : place + 2] for place in ends] == [[""], [""]]
    assert Image.open(sheet).size == (2 * 512 + 3 * 16, 256 + 44 + 16)
    assert run("caption", str(photo), "--overlay", str(sheet), "-m", "occlusion", "--json")[0] == 0
    assert Image.open(sheet).size == (512, 256)


def test_an_overlay_that_cannot_be_written_is_refused(run, tmp_path):
    """The command ends with 2 and names the file."""
    photo = tmp_path / "photo.png"
    photo.write_bytes(png(Image.new("RGB", (40, 20), "white")))
    code, _, err = run("caption", str(photo), "--overlay", str(tmp_path / "nowhere" / "why.png"))
    assert (code, "can't write" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["class"], "give a text, or an image"),
        (["class", "hi", "--image", "a.png"], "give a text, or an image"),
        (["class", "hi", "--overlay", "a.png"], "--overlay draws on an image"),
        (["class", "--image", __file__, "--overlay", "a.png", "-m", "head_knock_out"], "--overlay draws what patches"),
        (["caption", "a.png", "--overlay", "b.png", "-m", "head_knock_out"], "--overlay draws what patches"),
        (["class", "--image", "nowhere.png"], "can't read nowhere.png"),
        (["class", "hi", "--head-layer", "1"], "are for -m head_knock_out: give that, too"),
    ],
)
def test_what_cannot_be_meant_is_refused(run, server, arguments, problem):
    """The command ends with 2 and a line that says what to do, and asks nothing of the server."""
    code, _, err = run(*arguments)
    assert (code, server.requests) == (2, [])
    assert problem in err


@pytest.mark.parametrize("command", [[], ["class"], ["translation"], ["caption"]])
def test_help_says_what_it_is_for(run, command):
    """Every help has a sentence of its own."""
    assert "made" in run(*command, "--help")[1]


async def test_both_clients_read_the_same(server):
    """Parts can be ranked, and a method that was not asked for is named."""
    with Client(server.target) as client:
        own = client.attribute_class("hi not you")
    async with AsyncClient(server.target) as client:
        (awaited,) = await client.attribute_class_many(["hi not you"])
    assert own.attributions.ranked("leave_one_out") == awaited.attributions.ranked("leave_one_out")
    assert [(part.text, weight) for part, weight in own.attributions.ranked("last_layer")] == [
        ("hi", 0.5),
        ("you", 0.0),
        ("not", -0.25),
    ]
    assert awaited.attributions["leave_one_out"].target_weights is None
    with pytest.raises(KeyError, match="occlusion was not asked for; there are leave_one_out, last_layer"):
        own.attributions["occlusion"]


async def test_both_clients_read_heads_alike(server):
    """They come as an array for each kind and stack, in order of what they are worth, and only if asked for."""
    chosen = {"methods": ["head_knock_out"], "heads": HeadChoice(kinds=["cross"])}
    with Client(server.target) as client:
        own = client.attribute_translation("they grow", **chosen).attributions.heads
        assert client.attribute_class("hi").attributions.heads is None
    async with AsyncClient(server.target) as client:
        awaited = (await client.attribute_class("hi", **chosen)).attributions.heads
    np.testing.assert_array_equal(own["decoder", "cross"].weights, [[2, -0.05, 0]] * 2)
    assert own.maps[0].target_weights.shape == (3, 2, 3) and own.maps[0].layers == (0, 3)
    assert awaited.maps[0].target_weights is None and awaited.faithfulness is awaited.random is None
    assert own.ranked()[:2] == [(Head("decoder", "cross", layer, 0), 2.0) for layer in (0, 3)]
    assert own.ranked()[-1] == (Head("decoder", "cross", 3, 1), -0.05)
    with pytest.raises(KeyError, match="no heads of encoder self were knocked out; there are decoder cross"):
        own["encoder", "self"]


async def test_both_clients_read_outputs_alike(server):
    """A text alone has the model's own translation, a pair its given one; an image may have a caption."""
    image = png(Image.new("RGB", (4, 4)))
    with Client(server.target) as client:
        own, given = client.attribute_translation_many(["they grow", ("they grow", "ILS POUSSENT")])
        caption = client.attribute_caption((image, "a dog"))
    async with AsyncClient(server.target) as client:
        awaited = await client.attribute_translation(("they grow", "ILS POUSSENT"))
        assert (await client.attribute_caption(image)).text == "a cat"
    assert (own.text, given.text, awaited.text, caption.text) == ("THEY GROW", "ILS POUSSENT", "ILS POUSSENT", "a dog")
    np.testing.assert_array_equal(awaited.attributions["occlusion"].target_weights[0], [2.5, -1.5])
    assert [target.text for target in awaited.targets] == ["ILS", "POUSSENT", "</s>"]
    assert caption.attributions.grid is not None and given.tokens[0].log_probability == -0.5


def test_an_overlay_is_clear_where_the_weight_is_and_red_where_it_is_below_0():
    """Of a white image, whose middle is looked at: clear, half veiled, red; and veiled where nothing is looked at."""
    white = png(Image.new("RGB", (40, 20), "white"))
    grid = PatchGrid(rows=1, columns=3, image_width=40, image_height=20, left=5, top=0, width=30, height=20)
    (file,) = draw_overlays(white, LIMITS, "image", [np.array([1.0, 0.5, -1.0])], grid)
    drawn = np.asarray(Image.open(io.BytesIO(file)))
    assert drawn.shape == (256, 512, 3)
    outside, clear, half, against = (drawn[128, round(x * 512 / 40)].tolist() for x in (2, 10, 20, 30))
    assert clear == [255, 255, 255]
    assert max(outside) < max(half) < 255
    assert against[0] > 100 > against[1]
