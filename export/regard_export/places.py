"""Where an export reads and where it writes, and what is wrong with either before PyTorch is loaded."""

from __future__ import annotations

from pathlib import Path

from regard_export.errors import CheckpointError, ExportError


def require_checkpoint(directory: Path) -> None:
    """Raise `CheckpointError` if there is no such directory."""
    if not directory.is_dir():
        raise CheckpointError(f"{directory} is not a directory; name the folder that holds config.json")


def place_of(output: Path, name: str, version: str, *, overwrite: bool) -> Path:
    """Return the package's directory. Raises `ExportError` if there is one that may not be overwritten."""
    final = output / name / version
    if final.exists() and not overwrite:
        raise ExportError(f"{name}/{version} exists already; choose another --version, or --overwrite")
    return final
