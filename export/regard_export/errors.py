"""Why an export fails: every error that the export stage raises on purpose."""

from __future__ import annotations


class ExportError(Exception):
    """The checkpoint can't become a package; the message says what is wrong and what to do."""


class CheckpointError(ExportError):
    """The checkpoint can't be read, or is of a kind that can't be exported."""


class ParityError(ExportError):
    """The exported graphs differ from the eager model by more than the tolerance."""
