"""What the contestants run on: one checkpoint, its packages, and its conversions for CTranslate2."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from load_tests.peers import checkpoints

CHECKPOINTS = Path("export/checkpoints")
WORKSPACE = Path("build/bench")
SHAPES: dict[str, Callable[[Path], None]] = {
    "demo-en-fr": partial(checkpoints.save_endless_copy, CHECKPOINTS / "demo-en-fr"),
    "marian-base": checkpoints.save_marian_base,
}
SMALL_SHAPE = "demo-en-fr"
"""The one that is also measured where memory is watched over many requests."""
KINDS = {
    "fp32": ["--precision", "fp32"],
    "fp32-without-taps": ["--precision", "fp32", "--without-taps"],
    "int8": ["--precision", "int8"],
}
"""The packages that there can be, and what the export is told for each."""
QUANTIZATIONS = {"fp32": "float32", "int8": "int8"}
"""What CTranslate2 calls each precision."""


@dataclass(frozen=True)
class Course:
    """One shape, and the directory that everything made of it lies in."""

    shape: str
    directory: Path

    @property
    def checkpoint(self) -> Path:
        """The checkpoint that everything else is made from."""
        return self.directory / self.shape

    @property
    def tokenizer(self) -> Path:
        """The tokenizer that all contestants use."""
        return self.checkpoint / "tokenizer.json"

    def models(self, kind: str) -> Path:
        """Return the directory of the one package of a kind."""
        return self.directory / kind

    def package(self, kind: str) -> Path:
        """Return the package of a kind."""
        return self.models(kind) / self.shape / "1"

    def converted(self, precision: str) -> Path:
        """Return what CTranslate2 runs."""
        return self.directory / f"ctranslate2-{precision}"

    def lay(self, kinds: Sequence[str], precisions: Sequence[str], say: Callable[[str], None]) -> None:
        """Make what isn't there of the checkpoint, its packages and its conversions, and `say` what is made."""
        if not self.checkpoint.exists():
            say(f"{self.shape}: making the checkpoint")
            self.directory.mkdir(parents=True, exist_ok=True)
            _whole(self.checkpoint, SHAPES[self.shape])
        for kind in kinds:
            if not self.package(kind).exists():
                say(f"{self.shape}: exporting it, {kind}")
                command = [sys.executable, "-m", "regard_export.cli", str(self.checkpoint), *KINDS[kind]]
                subprocess.run([*command, "--output", str(self.models(kind))], check=True)
        for precision in precisions:
            if not self.converted(precision).exists():
                say(f"{self.shape}: converting it for CTranslate2, {precision}")
                _whole(self.converted(precision), partial(self._convert, precision))

    def clear(self) -> None:
        """Remove what was made before."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def _convert(self, precision: str, directory: Path) -> None:
        converter = str(Path(sys.executable).with_name("ct2-transformers-converter"))
        command = [converter, "--model", str(self.checkpoint), "--output_dir", str(directory)]
        subprocess.run([*command, "--quantization", QUANTIZATIONS[precision]], check=True)


def _whole(directory: Path, make: Callable[[Path], None]) -> None:
    """Make a directory under another name, so that what has its own name is whole."""
    unfinished = directory.with_name(f".{directory.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    make(unfinished)
    unfinished.rename(directory)
