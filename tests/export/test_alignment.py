"""Calibration: silver links, forced decoding, error rates, and what is written into a package."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, MarianMTModel
from typer.testing import CliRunner

from regard.manifest import load_package
from regard_export.alignment.bitext import Gold, error_rate, read_bitext, read_gold
from regard_export.alignment.forcing import Forcer
from regard_export.alignment.statistical import silver
from regard_export.cli import app
from regard_export.errors import ExportError

CHECKPOINT = Path(__file__).parents[2] / "export" / "checkpoints" / "demo-en-fr"
PAIRS = "The cat sleeps.\tLe chat dort.\nThe old station is here.\tLa vieille gare est ici.\nNo.\tNon.\n"


@pytest.fixture
def bitext(tmp_path: Path) -> Path:
    """A bitext of three pairs."""
    file = tmp_path / "pairs.tsv"
    file.write_text(PAIRS)
    return file


def test_weights_are_those_of_the_eager_model(packages: Path, bitext: Path) -> None:
    """What the graphs attend to under forced decoding, word by word, is what eager Transformers attends to.

    Words that the vocabulary doesn't know are its unknown token.
    """
    bitext.write_text(f"{PAIRS}The 漢字 sleeps.\tLe 漢字 dort.\n")
    package = load_package(packages / "demo-en-fr" / "1")
    forcer, pairs = Forcer(package.directory, package.manifest), read_bitext(bitext)
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    model = MarianMTModel.from_pretrained(CHECKPOINT, dtype=torch.float32, attn_implementation="eager").eval()

    for (source, target), found in zip(pairs, forcer.weights(pairs), strict=True):
        given, made = tokenizer(source.text, return_tensors="pt"), tokenizer(target.text)["input_ids"]
        fed = torch.tensor([[model.config.decoder_start_token_id, *made]])
        with torch.no_grad():
            eager = model(**given, decoder_input_ids=fed, output_attentions=True).cross_attentions
        last = len(target.spans) - 1  # the mark at the end is one token: the one before the end of the sentence
        for head, weights in zip(forcer.heads, found, strict=True):
            row = eager[head.layer][0, head.head, len(made) - 2 + (head.position == "input")]
            assert np.allclose(weights[last].sum(), row[:-1].sum(), atol=1e-4)
            assert np.allclose(weights[last, -1], row[-2], atol=1e-4)


def test_forced_probabilities_and_taps_are_those_of_the_eager_model(packages: Path) -> None:
    """Side by side with a longer pair, each token's log-probability and every head's row are eager Transformers'."""
    package = load_package(packages / "demo-en-fr" / "1")
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    model = MarianMTModel.from_pretrained(CHECKPOINT, dtype=torch.float32, attn_implementation="eager").eval()
    sides = zip(*(line.split("\t") for line in PAIRS.splitlines()), strict=True)
    sources, targets = ([tokenizer(text)["input_ids"] for text in side] for side in sides)

    forced = Forcer(package.directory, package.manifest).force(sources, targets)

    for source, target, found in zip(sources, targets, forced, strict=True):
        fed = torch.tensor([[model.config.decoder_start_token_id, *target[:-1]]])
        with torch.no_grad():
            eager = model(input_ids=torch.tensor([source]), decoder_input_ids=fed, output_attentions=True)
        expected = eager.logits.log_softmax(-1)[0, torch.arange(len(target)), target]
        assert np.allclose(found.log_probabilities, expected, atol=1e-3)
        for layer, weights in enumerate(eager.cross_attentions):
            assert np.allclose(found.taps[f"decoder.cross.{layer}"], weights[0], atol=1e-4)


def test_silver_links_find_words_that_go_together(tmp_path: Path) -> None:
    """From sentences that share words, the aligner tells which word is which, whatever their order."""
    nouns = {"dog": "chien", "cat": "chat", "bird": "oiseau"}
    verbs = {"eats": "mange", "sleeps": "dort", "sings": "chante"}
    lines = [f"{noun} {verb} ||| {nouns[noun]} {verbs[verb]}\n" for noun in nouns for verb in verbs]
    lines += [f"{noun} {verb} ||| {verbs[verb]} {nouns[noun]}\n" for noun in nouns for verb in verbs]
    file = tmp_path / "bitext"
    file.write_text("".join(lines * 3))

    found = silver(read_bitext(file))

    assert all(links.sure == {(0, 0), (1, 1)} for links in found[: len(lines) // 2])
    assert all(links.sure == {(0, 1), (1, 0)} for links in found[len(lines) // 2 : len(lines)])


def test_the_error_rate_is_that_of_its_definition() -> None:
    """1 - (|A∩S| + |A∩P|) / (|A| + |S|); a possible link costs nothing, and a missed one only if it's sure."""
    gold = [Gold(frozenset({(0, 0), (1, 1)}), frozenset({(0, 0), (1, 1), (2, 1)}))]

    assert error_rate([{(0, 0), (1, 1)}], gold) == 0
    assert error_rate([{(0, 0), (1, 1), (2, 1)}], gold) == 0
    assert error_rate([{(0, 0), (2, 2)}], gold) == pytest.approx(1 - 2 / 4)
    assert error_rate([set()], gold) == 1


def test_links_are_read_from_either_index(tmp_path: Path) -> None:
    """Gold counts words from 0 or from 1; what is no link names its line."""
    file = tmp_path / "gold"
    file.write_text("1-1 2p3\n\n")

    assert read_gold(file, one_indexed=True)[0] == Gold(frozenset({(0, 0)}), frozenset({(0, 0), (1, 2)}))
    assert read_gold(file, one_indexed=False)[0].sure == {(1, 1)}
    file.write_text("1-1\n0-1\n")
    with pytest.raises(ExportError, match="line 2: '0-1' is no link"):
        read_gold(file, one_indexed=True)


def test_a_bitext_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    """A file that isn't there, a directory and bytes that are no text are told apart."""
    file = tmp_path / "bitext"
    with pytest.raises(ExportError, match="bitext can't be read: No such file or directory"):
        read_bitext(file)
    with pytest.raises(ExportError, match="can't be read: Is a directory"):
        read_bitext(tmp_path)
    file.write_bytes(b"caf\xe9\tcoffee\n")
    with pytest.raises(ExportError, match="bitext can't be read as UTF-8 text"):
        read_bitext(file)


def test_calibrating_writes_heads_into_the_package(packages: Path, bitext: Path, tmp_path: Path) -> None:
    """The package loads with its alignment, every other file as it was, and says so when it is inspected."""
    package = Path(shutil.copytree(packages / "demo-en-fr" / "1", tmp_path / "models" / "demo-en-fr" / "1"))
    gold = tmp_path / "gold"
    gold.write_text("0-0 1-1 2-2\n\n0-0\n")
    before = load_package(package).manifest.files

    done = CliRunner().invoke(app, ["calibrate", str(package), "--bitext", str(bitext), "--gold", str(gold)])

    assert done.exit_code == 0, done.output
    after = load_package(package).manifest
    assert after.files == before
    assert after.alignment is not None and after.alignment.pairs == 2
    assert 0 <= (after.alignment.aer or 0) <= 1
    assert [path.name for path in package.parent.iterdir()] == ["1"]
    assert "alignment" in CliRunner(env={"COLUMNS": "200"}).invoke(app, ["inspect", str(package)]).output


def test_calibration_leaves_out_what_the_model_can_t_hold(packages: Path, tmp_path: Path) -> None:
    """Pairs that fit alone are joined to passages that don't, and none of them is at fault."""
    package = Path(shutil.copytree(packages / "demo-en-fr" / "1", tmp_path / "models" / "demo-en-fr" / "1"))
    bitext = tmp_path / "long.tsv"
    bitext.write_text(f"{'The cat sleeps. ' * 5}\t{'anticonstitutionnellement ' * 15}\n" * 30 + PAIRS * 10)

    done = CliRunner().invoke(app, ["calibrate", str(package), "--bitext", str(bitext)])

    assert done.exit_code == 0, done.output
    assert load_package(package).manifest.alignment is not None


def test_a_model_without_words_to_align_is_refused(packages: Path, bitext: Path) -> None:
    """A classifier has no alignment; the refusal says so, and nothing is written."""
    directory = packages / "demo-intent" / "1"

    done = CliRunner().invoke(app, ["calibrate", str(directory), "--bitext", str(bitext)])

    assert done.exit_code == 2
    assert "is no translator" in done.output
    assert load_package(directory).manifest.alignment is None


def test_lines_end_with_line_feeds_alone(tmp_path: Path) -> None:
    """Other separators of lines stand within texts, as in corpora from the web; a carriage return is no part of one."""
    file = tmp_path / "pairs.tsv"
    file.write_bytes("\ufeffone\u2028two\tun\x85deux\r\nthree\x0bfour\ttrois\x1cquatre".encode())

    pairs = [(source.text, target.text) for source, target in read_bitext(file)]

    assert pairs == [("one two", "un deux"), ("three four", "trois quatre")]


def test_a_line_that_is_no_pair_is_named(tmp_path: Path) -> None:
    """A bitext's bad line is refused by its number."""
    file = tmp_path / "pairs.tsv"
    file.write_text("one\tun\ntwo\n")

    with pytest.raises(ExportError, match=r"pairs\.tsv, line 2"):
        read_bitext(file)
