"""Which shared libraries a file of ONNX Runtime's asks for, and which of them aren't there.

Loading a provider's library to see what it lacks would end the process: it must be loaded by ONNX
Runtime, which has to introduce itself first. What it asks for can be read off the file (ELF, 64
bits, little-endian: https://refspecs.linuxfoundation.org/elf/elf.pdf, Dynamic Section).
"""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path
from typing import BinaryIO

_LOADED, _DYNAMIC = 1, 2
_END, _NEEDED, _NAMES_ADDRESS, _NAMES_SIZE = 0, 1, 5, 10


def missing_libraries(library: Path) -> list[str]:
    """Return the names of the libraries that `library` asks for and that can't be loaded."""
    return [
        name for name in needed_libraries(library) if not (library.parent / name).exists() and not can_be_loaded(name)
    ]


def can_be_loaded(name: str) -> bool:
    """Tell whether a shared library is loaded already, or can be."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def needed_libraries(library: Path) -> list[str]:
    """Return the names of the libraries that `library` asks for, in its order."""
    with library.open("rb") as file:
        segments = _segments(file)
        (offset, _, size), *_ = [place for kind, place in segments if kind == _DYNAMIC]
        entries = list(struct.iter_unpack("<qQ", _read(file, offset, size)))
        address = next(value for tag, value in entries if tag == _NAMES_ADDRESS)
        length = next(value for tag, value in entries if tag == _NAMES_SIZE)
        start = next(
            offset + address - first
            for kind, (offset, first, size) in segments
            if kind == _LOADED and first <= address < first + size
        )
        names = _read(file, start, length)
    ends = [tag for tag, _ in entries].index(_END)
    return [names[at : names.index(0, at)].decode() for tag, at in entries[:ends] if tag == _NEEDED]


def _segments(file: BinaryIO) -> list[tuple[int, tuple[int, int, int]]]:
    """Return each program header's kind, and where it is: offset in the file, address and bytes in the file."""
    (first,) = struct.unpack("<Q", _read(file, 0x20, 8))
    size, count = struct.unpack("<HH", _read(file, 0x36, 4))
    headers = (struct.unpack("<IIQQQQ", _read(file, first + size * index, 40)) for index in range(count))
    return [(kind, (offset, address, in_file)) for kind, _, offset, address, _, in_file in headers]


def _read(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)
