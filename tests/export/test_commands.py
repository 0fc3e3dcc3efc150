"""The commands of `regard-export`: what they print, how they exit, and what they leave behind."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
from click.testing import Result
from typer.main import get_command
from typer.testing import CliRunner

from regard.manifest import MANIFEST_FILE, QualitySpec, load_package, sha256_of
from regard_export.cli import app
from regard_export.errors import ExportError
from regard_export.families import FAMILIES
from regard_export.families.proven import PROVEN
from regard_export.package import Options, export
from regard_export.sealing import reseal

from .checkpoints import save_classifier


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random classifier's checkpoint."""
    return save_classifier(tmp_path_factory.mktemp("classifier") / "tiny")


@pytest.fixture(scope="module")
def exported(classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The classifier's package, made by the command without its name."""
    models = tmp_path_factory.mktemp("models")
    result = run(str(classifier), "--output", str(models))
    assert result.exit_code == 0, result.output
    return models / "tiny" / "1"


@pytest.fixture
def package(exported: Path, tmp_path: Path) -> Path:
    """A copy of the package, to damage."""
    return Path(shutil.copytree(exported, tmp_path / "tiny" / "1"))


def run(*arguments: str) -> Result:
    """Run `regard-export` on a wide screen."""
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, list(arguments))


def in_one_line(text: str) -> str:
    """Return what was printed, however it was broken."""
    return " ".join(text.split())


def edit(package: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a package's manifest."""
    file = package / MANIFEST_FILE
    fields = json.loads(file.read_text())
    change(fields)
    file.write_text(json.dumps(fields))


def test_the_command_that_is_named_does_the_same(exported: Path, classifier: Path) -> None:
    """`regard-export export CHECKPOINT` finds the package that `regard-export CHECKPOINT` made."""
    result = run("export", str(classifier), "--output", str(exported.parents[1]))
    assert result.exit_code == 2
    assert "tiny/1 exists already" in in_one_line(result.stderr)


@pytest.mark.parametrize(
    ("checkpoint", "name", "says"),
    [
        ("nope", "new", "nope is not a directory; name the folder that holds config.json"),
        ("empty", "taken", "taken/1 exists already; choose another --version, or --overwrite"),
    ],
)
def test_what_a_look_at_the_disk_tells_is_told_without_pytorch(
    tmp_path: Path, checkpoint: str, name: str, says: str
) -> None:
    """Whoever mistypes a path needn't wait for PyTorch, which isn't even there."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "models" / "taken" / "1").mkdir(parents=True)
    without = "import sys; sys.modules['torch'] = None; from regard_export.cli import main; main()"
    arguments = [str(tmp_path / checkpoint), "--output", str(tmp_path / "models"), "--name", name]
    ended = subprocess.run([sys.executable, "-c", without, *arguments], capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert says in ended.stderr


def test_help_names_every_command() -> None:
    """Without arguments, too, it says what there is and gives examples."""
    for arguments in (["--help"], []):
        shown = in_one_line(run(*arguments).output)
        for words in ("export", "inspect", "list", "verify", "regard-export CHECKPOINT --output MODELS"):
            assert words in shown


@pytest.mark.parametrize("command", [*get_command(app).commands.values()], ids=lambda command: command.name)
def test_help_cuts_no_name(command: Any) -> None:
    """On a screen of 80 columns, each option and each of its choices is whole."""
    shown = CliRunner(env={"COLUMNS": "80"}).invoke(app, [command.name, "--help"]).stdout
    words = set(re.split(r"[\s|<>,]+", shown))
    assert "…" not in shown
    for option in command.params:
        assert {*option.opts, *option.secondary_opts, *(option.type_descriptor.choices or ())} <= words


def test_list_names_the_families_and_those_with_adapters() -> None:
    """Each task has a line, and every adapter is one of a listed family."""
    shown = in_one_line(run("list").stdout)
    for task, kinds in PROVEN.items():
        assert task.value in shown
        assert all(f"{kind}*" in shown if kind in FAMILIES else kind in shown for kind in kinds)
    assert FAMILIES.keys() <= {kind for kinds in PROVEN.values() for kind in kinds}


def test_inspect_prints_the_card(exported: Path) -> None:
    """Task, source, limits, taps, operators, parity and files are on it."""
    shown = in_one_line(run("inspect", str(exported)).stdout)
    for words in (
        "tiny/1",
        "task classification",
        "BertForSequenceClassification (bert)",
        "text of at most 144 tokens",
        "3: LABEL_0, LABEL_1, LABEL_2",
        "encoder self: 2 layers of 4 heads",
        "Attention 2 2",
        "classifier.onnx.data",
        load_package(exported).sha256,
    ):
        assert words in shown
    report = json.loads((exported / "parity.json").read_text())["max_abs_difference"]
    assert f"logits {report['logits']:.1e}" in shown


def test_inspect_prints_what_was_measured_of_the_answers(exported: Path, tmp_path: Path) -> None:
    """What is written into a package behind its export is on the card, and leaves the package whole."""
    package = load_package(shutil.copytree(exported, tmp_path / "models" / "tiny" / "1"))
    found = QualitySpec(measure="BLEU, greedy", unit="BLEU", value=46.789, checkpoint=46.571)
    reseal(package.directory, package.manifest, quality=(found,))
    assert load_package(package.directory).manifest.quality == (found,)
    shown = in_one_line(run("inspect", str(package.directory)).stdout)
    assert "quality BLEU, greedy: 46.79 BLEU, its checkpoint 46.57" in shown
    assert run("verify", str(package.directory)).exit_code == 0


def test_a_whole_package_is_verified(exported: Path) -> None:
    """Checksums, manifest and graphs agree."""
    result = run("verify", str(exported))
    assert (result.exit_code, result.stderr) == (0, "")
    assert "tiny/1: 4 files and 1 graphs are as listed" in result.stdout


def test_a_package_is_compared_with_its_checkpoint(exported: Path, classifier: Path) -> None:
    """The differences of the export stand beside those of now."""
    result = run("verify", str(exported), "--against", str(classifier))
    assert result.exit_code == 0, result.stderr
    report = json.loads((exported / "parity.json").read_text())["max_abs_difference"]
    assert f"logits {report['logits']:.1e} {report['logits']:.1e}" in in_one_line(result.stdout)
    assert "tiny/1 equals" in result.stdout


def change_signs(package: Path, start: int = 0, length: int | None = None) -> None:
    """Damage the data of the graph, all of it or a part."""
    weights = package / "classifier.onnx.data"
    content = bytearray(weights.read_bytes())
    signs = slice(start + 3, None if length is None else start + length, 4)
    content[signs] = bytes(byte ^ 0x80 for byte in content[signs])
    weights.write_bytes(content)


def negate_the_largest_weight(package: Path) -> None:
    """Damage one tensor of floats."""
    graph = onnx.load(package / "classifier.onnx", load_external_data=False).graph
    floats = [tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    places = [{entry.key: entry.value for entry in tensor.external_data} for tensor in floats]
    largest = max(places, key=lambda place: int(place.get("length", 0)))
    change_signs(package, int(largest["offset"]), int(largest["length"]))


def add_a_file(package: Path) -> None:
    """Put something beside the listed files."""
    (package / "notes.txt").write_text("mine")


def rename_an_output(package: Path) -> None:
    """Let the manifest speak of an output that the graph doesn't have."""
    edit(package, lambda fields: fields["graphs"]["classifier"]["outputs"][0].update(name="other"))


def unlist_the_tokenizer(package: Path) -> None:
    """Leave out a checksum."""
    edit(package, lambda fields: fields["files"].pop("tokenizer.json"))


def misspell_a_field(package: Path) -> None:
    """Damage the manifest."""
    edit(package, lambda fields: fields.update(tasks=fields.pop("task")))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change_signs, "classifier.onnx.data differs from its SHA-256"),
        (add_a_file, "notes.txt isn't listed in the manifest"),
        (rename_an_output, "the graph classifier has other outputs than its manifest says: logits, other"),
        (unlist_the_tokenizer, "tokenizer.json is named in the manifest, but not listed with a checksum"),
        (misspell_a_field, "manifest.json, field task"),
    ],
)
def test_a_damaged_package_is_named(damage: Callable[[Path], None], message: str, package: Path) -> None:
    """Verifying says what is wrong, and exits with 1."""
    damage(package)
    result = run("verify", str(package))
    assert result.exit_code == 1
    assert message in in_one_line(result.stderr)
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("damage", "message", "shown"),
    [
        (negate_the_largest_weight, "tiny/1: logits differs from the eager model by", "as exported"),
        (change_signs, "tiny/1: its graphs can't be run:", ""),
    ],
)
def test_a_package_that_strays_from_its_checkpoint_is_named(
    damage: Callable[[Path], None], message: str, shown: str, package: Path, classifier: Path
) -> None:
    """What was changed together with its checksum is found by what it computes."""
    damage(package)
    digest = sha256_of(package / "classifier.onnx.data")
    edit(package, lambda fields: fields["files"].update({"classifier.onnx.data": digest}))
    result = run("verify", str(package), "--against", str(classifier))
    assert result.exit_code == 1
    assert message in in_one_line(result.stderr)
    assert shown in result.stdout


def test_another_checkpoint_is_no_reference(exported: Path, tmp_path: Path) -> None:
    """It is told by its weights, and exits with 2."""
    other = save_classifier(tmp_path / "tiny", "DistilBert", dim=32, n_heads=4, n_layers=2, hidden_dim=48)
    result = run("verify", str(exported), "--against", str(other))
    assert result.exit_code == 2
    assert "isn't what tiny/1 was made from: DistilBertForSequenceClassification" in in_one_line(result.stderr)


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_a_directory_without_a_manifest_is_no_package(command: str, exported: Path) -> None:
    """The packages below it are suggested."""
    result = run(command, str(exported.parents[1]))
    assert result.exit_code == 2
    assert f"has no manifest.json; did you mean {exported}?" in in_one_line(result.stderr)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "mariann", "architectures": ["MariannMTModel"]}, "nearest is marian, mbart"),
        ({"model_type": "roberta", "architectures": ["RobertaForMaskedLM"]}, "RobertaForSequenceClassification"),
        ({"model_type": "zzz"}, "nearest is marian, vision-encoder-decoder, "),
    ],
)
def test_an_unsupported_family_is_told_the_nearest(
    fields: dict[str, object], message: str, classifier: Path, tmp_path: Path
) -> None:
    """Whether Transformers knows it or not; and how a kind is added."""
    checkpoint = Path(shutil.copytree(classifier, tmp_path / "bad"))
    (checkpoint / "config.json").write_text(json.dumps(fields))
    result = run(str(checkpoint), "--output", str(tmp_path / "models"))
    assert result.exit_code == 2
    assert message in in_one_line(result.stderr)
    assert "to add a kind, give it a Family in regard_export/families" in in_one_line(result.stderr)


def out_of_room(*_: object) -> None:
    """Fail as a full disk does."""
    raise OSError(errno.ENOSPC, "No space left on device")


def told(number: signal.Signals) -> Callable[..., None]:
    """Return what sends this process a signal."""
    return lambda *_: signal.raise_signal(number)


@pytest.mark.parametrize(
    ("failure", "code", "message"),
    [
        (out_of_room, 2, "there is no room left in"),
        (told(signal.SIGINT), 130, "interrupted; nothing was written"),
        (told(signal.SIGTERM), 143, "interrupted; nothing was written"),
    ],
    ids=["full", "SIGINT", "SIGTERM"],
)
def test_an_export_that_fails_midway_leaves_nothing(
    failure: Callable[..., None],
    code: int,
    message: str,
    classifier: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A full disk or an interruption, once the graphs are written, is one line; no file, and no folder, is new."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    monkeypatch.setattr("regard_export.package.seal", failure)
    (tmp_path / "empty").mkdir()
    for output in ("new/models", "empty"):
        result = run(str(classifier), "--output", str(tmp_path / output))
        assert result.exit_code == code
        assert message in in_one_line(result.stderr)
    assert list(tmp_path.rglob("*")) == [tmp_path / "empty"]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_a_full_disk_is_told_before_the_work(classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the weights alone have no room, nothing is traced."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    result = run(str(classifier), "--output", str(tmp_path / "models"))
    assert result.exit_code == 2
    assert "0.0 GiB are free and the weights alone take" in in_one_line(result.stderr)
    assert "tracing" not in result.stderr
    assert list((tmp_path / "models").rglob("*")) == []


def test_a_package_stays_until_another_is_in_its_place(
    package: Path, classifier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the last step of replacing a package fails, the old one is still there, whole."""
    rename = Path.rename

    def rename_all_but_the_new(path: Path, target: Path) -> Path:
        if path.name == "package":
            out_of_room()
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", rename_all_but_the_new)
    with pytest.raises(ExportError, match="no room left"):
        export(classifier, package.parents[1], Options(name="tiny", overwrite=True))
    assert run("verify", str(package)).exit_code == 0
    assert [path.name for path in package.parents[1].iterdir()] == ["tiny"]


def test_an_output_that_is_a_file_is_refused(classifier: Path, tmp_path: Path) -> None:
    """It names the directory that can't be written."""
    (tmp_path / "models").write_text("")
    with pytest.raises(ExportError, match="models can't be written: File exists"):
        export(classifier, tmp_path / "models", Options(name="tiny"))


def as_process(*arguments: str, stdout: Any, encoding: str = "utf-8") -> subprocess.CompletedProcess[bytes]:
    """Run `regard-export` as a process, whose output goes to `stdout`."""
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    command = [sys.executable, "-m", "regard_export.cli", *arguments]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, env=environment, check=False)


@pytest.mark.parametrize("command", [["--help"], ["inspect"], ["verify"]])
def test_output_that_cannot_be_written_is_one_line(command: list[str], exported: Path) -> None:
    """A full disk is told as such, a reader who has left is not, and an encoding has what it lacks replaced."""
    arguments = [*command, *([str(exported)] if "--help" not in command else [])]
    with Path("/dev/full").open("w") as full:
        ended = as_process(*arguments, stdout=full)
    assert ended.returncode == 1
    assert ended.stderr.decode() == "error: can't write the output: No space left on device\n"
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as closed:
        ended = as_process(*arguments, stdout=closed)
    assert (ended.returncode, ended.stderr) == (1, b"")
    assert as_process(*arguments, stdout=subprocess.PIPE, encoding="ascii").returncode == 0
