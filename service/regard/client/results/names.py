"""The names of enum values."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

R = TypeVar("R")


def read_name(name_of: Callable[[R], str], value: R, prefix: str) -> str:
    """Return an enum value's name without the prefix that every value of its enum has."""
    try:
        return name_of(value).removeprefix(prefix).lower()
    except ValueError:  # a value that a newer server knows
        return f"unknown_{value}"
