"""Reading a checkpoint's files: whatever a damaged one raises becomes one clear error."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import transformers

from regard_export.errors import CheckpointError

Loaded = TypeVar("Loaded")


def read(directory: Path, file: str, load: Callable[[], Loaded]) -> Loaded:
    """Load quietly. Raises `CheckpointError`, naming the file, for whatever `load` raises."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings(action="ignore"):
            return load()
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{directory.name}/{file} can't be loaded: {reason}") from error
