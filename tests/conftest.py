"""What every suite may ask for: the demonstration packages, and one of speech."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHECKPOINTS = ROOT / "export" / "checkpoints"
MODELS = ROOT / "build" / "test-models"
DEMONSTRATION = ("demo-en-fr", "demo-intent", "demo-scenes")


@pytest.fixture(scope="session")
def packages() -> Path:
    """Return a models directory that holds the demonstration checkpoints' packages, as `NAME/1`.

    A package is kept between runs for as long as its checkpoint and the export's code stay as they were.
    """
    MODELS.mkdir(parents=True, exist_ok=True)
    with _locked(MODELS / ".lock"):
        for name in DEMONSTRATION:
            _export_if_changed(name)
    return MODELS


@pytest.fixture(scope="session")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a small random Whisper's checkpoint, and a models directory of its package, `tiny/1`."""
    from regard_export.package import Options, export

    from .export.speech import save_whisper

    def make(at: Path) -> None:
        export(save_whisper(at / "checkpoint"), at / "models", Options(name="tiny"))

    at = _made_once(tmp_path_factory, "whisper", make)
    return at / "checkpoint", at / "models"


@dataclass(frozen=True)
class Intervenable:
    """Small random models whose packages take interventions and tell norms, in one models directory, as `NAME/1`."""

    models: Path
    sorter: Path
    """The checkpoint of a BERT."""
    looker: Path
    """That of a ViT."""
    translator: Path
    """That of a Marian."""


@pytest.fixture(scope="session")
def intervenable(tmp_path_factory: pytest.TempPathFactory) -> Intervenable:
    """Return a classifier of texts, one of images and a translator, exported to be intervened in and to tell norms."""
    from regard_export.package import Options, export

    from .export.checkpoints import save_classifier, save_image_classifier, save_translator

    saves = {"sorter": save_classifier, "looker": save_image_classifier, "translator": save_translator}

    def make(at: Path) -> None:
        for name, save in saves.items():
            export(save(at / name), at / "models", Options(name=name, interventions=True, value_norms=True))

    at = _made_once(tmp_path_factory, "intervenable", make)
    return Intervenable(at / "models", *(at / name for name in saves))


def _made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Return the directory that `make` fills, once for all processes of a test run."""
    own = tmp_path_factory.getbasetemp()
    at = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / name
    at.mkdir(exist_ok=True)
    with _locked(at / ".lock"):
        if not (at / ".made").exists():
            make(at)
            (at / ".made").touch()
    return at


def _export_if_changed(name: str) -> None:
    checkpoint, stamp = CHECKPOINTS / name, MODELS / f".{name}.sha256"
    if not (checkpoint / "model.safetensors").exists():
        pytest.fail(f"the demonstration checkpoint export/checkpoints/{name} is missing", pytrace=False)
    origin = _sha256_of_origin(checkpoint)
    if stamp.exists() and stamp.read_text() == origin and (MODELS / name).exists():
        return
    stamp.unlink(missing_ok=True)
    command = [sys.executable, "-m", "regard_export.cli", str(checkpoint), "--output", str(MODELS), "--overwrite"]
    _run(command, f"{name} can't be exported")
    bitext = checkpoint / "bitext.tsv"
    if bitext.exists():
        calibrate = [sys.executable, "-m", "regard_export.cli", "calibrate", str(MODELS / name / "1")]
        _run([*calibrate, "--bitext", str(bitext)], f"{name} can't be calibrated")
    stamp.write_text(origin)


def _run(command: list[str], failing: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(f"{failing}:\n{done.stdout}{done.stderr}", pytrace=False)


def _sha256_of_origin(checkpoint: Path) -> str:
    """Return the SHA-256 of all that a package is made from: weights, code and the versions of libraries."""
    files = [*checkpoint.iterdir(), *(ROOT / "export" / "regard_export").rglob("*.py")]
    files += [ROOT / "service" / "regard" / "manifest.py", ROOT / "constraints.txt"]
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(ROOT)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes that come to the same lock out until the block ends."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
