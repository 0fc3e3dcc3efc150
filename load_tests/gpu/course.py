"""What every part of the check runs on: the checkpoints, and their packages for one provider."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from load_tests.gpu import shapes
from regard.config import EngineSettings
from regard.manifest import Package, Provider, load_package

CHECKPOINTS = Path("export/checkpoints")
WORKSPACE = Path("build/gpu")
DEMONSTRATION = ("demo-en-fr", "demo-scenes", "demo-intent")
SHAPES: dict[str, Callable[..., None]] = {
    "marian-base": shapes.save_marian,
    "bert-base": shapes.save_bert,
    "vit-base": shapes.save_vit,
}
MODELS = (*DEMONSTRATION, *SHAPES)


@dataclass(frozen=True)
class Course:
    """One provider, and real shapes or, for a rehearsal, tiny ones."""

    provider: Provider
    quick: bool

    @property
    def device(self) -> str:
        """The device, as PyTorch names it."""
        return "cpu" if self.provider == "cpu" else "cuda"

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions that the provider's packages have."""
        return ("fp32",) if self.provider == "cpu" else ("fp32", "fp16")

    @property
    def concurrencies(self) -> tuple[int, ...]:
        """How many requests are under way at a time."""
        return (1, 4) if self.quick else (1, 8, 64, 256)

    @property
    def workspace(self) -> Path:
        """Where checkpoints and packages are kept between runs."""
        return WORKSPACE / f"{self.provider}-{'quick' if self.quick else 'full'}"

    def settings(self, max_rows: int = 64) -> EngineSettings:
        """Return the engine's settings."""
        return EngineSettings.model_validate(
            {"provider": self.provider, "max_rows": max_rows, "max_queue": 4096, "max_batch_tokens": 64 * max_rows}
        )

    def checkpoint(self, name: str) -> Path:
        """Return a checkpoint, made if it is one of random weights and not there."""
        if name in DEMONSTRATION:
            return CHECKPOINTS / name
        directory = self.workspace / "checkpoints" / name
        _once(directory, partial(SHAPES[name], directory, tiny=self.quick))
        return directory

    def models(self, precision: str) -> Path:
        """Return the directory of the packages of one precision."""
        return self.workspace / precision

    def package(self, name: str, precision: str) -> Package:
        """Return a package, exported if it isn't there. Raises `RuntimeError` with the export's last words."""
        directory = self.models(precision) / name / "1"
        _once(directory, partial(self._export, name, precision))
        return load_package(directory)

    def _export(self, name: str, precision: str) -> None:
        command = [sys.executable, "-m", "regard_export.cli", str(self.checkpoint(name)), "--name", name, "--overwrite"]
        command += ["--output", str(self.models(precision)), "--target", self.provider, "--precision", precision]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            words = " ".join((done.stderr or done.stdout).split())
            raise RuntimeError(f"{name} can't be exported for {self.provider} in {precision}: {words[-400:]}")


def _once(directory: Path, make: Callable[[], None]) -> None:
    """Make what isn't there; a stamp beside it tells that it was made to its end."""
    stamp = directory.with_name(f".{directory.name}.made")
    if not stamp.exists():
        directory.parent.mkdir(parents=True, exist_ok=True)
        make()
        stamp.touch()
