"""What a command prints, where it can't be written."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF, errno.EPIPE)
"""What a write fails with; other errors of the system are none of the output."""


@contextmanager
def written(tell: Callable[[str], None]) -> Iterator[None]:
    """Run a command, and exit with 1 if its output can't be written: `tell` is given why, but for a closed pipe.

    What the encoding of stdout lacks becomes a question mark.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        if error.errno != errno.EPIPE:
            tell(f"can't write the output: {error.strerror}")
        with suppress(OSError):  # Python tries once more to write what is left, as it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
