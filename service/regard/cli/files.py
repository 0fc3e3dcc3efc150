"""Files of images or sounds that a command names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from regard.cli.screen import refuse


@dataclass(frozen=True, slots=True)
class File:
    """A file and its bytes: None if it can't be read, and then `problem` says why."""

    path: Path
    content: bytes | None
    problem: str = ""

    @classmethod
    def read(cls, path: Path) -> File:
        """Return the file at `path`, whether it can be read or not."""
        try:
            return cls(path, path.read_bytes())
        except OSError as error:
            return cls(path, None, f"can't be read: {error.strerror}")


def read_file(path: Path) -> bytes:
    """Return the bytes of a file; one that can't be read ends the command."""
    try:
        return path.read_bytes()
    except OSError as error:
        refuse(f"can't read {path}: {error.strerror}")
