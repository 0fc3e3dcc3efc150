"""What is found out about a package when it exists, written into it: its alignment heads, its quality."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from regard.manifest import MANIFEST_FILE, Manifest
from regard_export.errors import ExportError


def reseal(directory: Path, manifest: Manifest, **found: object) -> None:
    """Replace the manifest by one with what was `found`, fields of it, at once or not at all; no other file changes.

    Raises `ExportError` if it can't be written.
    """
    sealed = manifest.model_copy(update=found)
    try:
        with tempfile.TemporaryDirectory(prefix=".sealed-", dir=directory.parent) as scratch:
            written = Path(scratch) / MANIFEST_FILE
            with written.open("w", encoding="utf-8") as file:
                file.write(sealed.model_dump_json(indent=2) + "\n")
                file.flush()
                os.fsync(file.fileno())
            written.replace(directory / MANIFEST_FILE)
    except OSError as error:
        raise ExportError(f"{directory} can't be written: {error.strerror or error}") from error
