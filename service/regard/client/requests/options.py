"""Options as a caller gives them, beside the types that they are declared with."""

from __future__ import annotations

import dataclasses
import difflib
import operator
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from regard.client.generation import GenerationOptions
from regard.client.requests.inputs import read_text
from regard.errors import InvalidInputError

Options = TypeVar("Options", bound=Mapping[str, object])


def read_options(options: Options, kind: type) -> Options:
    """Return the options but those that are None, which are absent; `kind` is the TypedDict that declares them.

    Raises `InvalidInputError` for one that `kind` lacks, and for one of another type than it has there, by the name of
    what is at fault. Those of a search are left to `generation_message`.
    """
    hints = _hints(kind)
    searching = GenerationOptions.__annotations__.keys()
    left = searching if searching <= hints.keys() else ()
    read: Any = {}
    for name, value in options.items():
        if name not in hints:
            close = difflib.get_close_matches(name, hints, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise InvalidInputError(f"there is no option {name}{hint}", field=name)
        if value is not None:
            read[name] = value if name in left else _read(value, hints[name], name)
    known: Options = read
    return known


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _read(value: Any, hint: Any, field: str) -> Any:
    """Return a value as its type has it; words of a Literal are judged where they become numbers."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _read_one_of(value, arguments, field)
    if origin is Sequence:
        return [_read(one, arguments[0], f"{field}[{index}]") for index, one in enumerate(_several(value, field))]
    if origin is tuple:
        several = _several(value, field)
        if len(several) != len(arguments):
            raise InvalidInputError(f"{field} must be {len(arguments)} values, not {len(several)}", field=field)
        return tuple(_read(one, arguments[index], f"{field}[{index}]") for index, one in enumerate(several))
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if not isinstance(value, hint):
            _refuse(value, f"of class {hint.__name__}", field)
        fields = {name: _read(getattr(value, name), own, f"{field}.{name}") for name, own in _hints(hint).items()}
        return dataclasses.replace(value, **fields)
    return read_text(value, field) if hint is str or origin is Literal else _read_number(value, hint, field)


def _read_one_of(value: Any, kinds: Sequence[Any], field: str) -> Any:
    if value is None and NoneType in kinds:
        return None
    kinds = [kind for kind in kinds if kind is not NoneType]
    if get_origin(kinds[0]) is tuple:  # of several lengths, which the message's maker knows
        return tuple(_read(one, int, f"{field}[{index}]") for index, one in enumerate(_several(value, field)))
    for kind in kinds:
        if len(kinds) == 1 or isinstance(value, kind):
            return _read(value, kind, field)
    return _refuse(value, f"of class {', '.join(kind.__name__ for kind in kinds[:-1])} or {kinds[-1].__name__}", field)


def _several(value: Any, field: str) -> list[Any]:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        _refuse(value, "a list", field)
    return list(value)


def _read_number(value: Any, kind: Any, field: str) -> Any:
    """Return a number as Python has it: NumPy's are taken as well."""
    if kind is float:
        return float(value) if isinstance(value, int | float | np.number) else _refuse(value, "a number", field)
    if kind is bool and isinstance(value, int | np.bool_):
        return bool(value)
    try:
        return operator.index(value)
    except TypeError:
        _refuse(value, "True or False" if kind is bool else "a whole number", field)


def _refuse(value: object, what: str, field: str) -> NoReturn:
    raise InvalidInputError(f"{field} must be {what}, not {type(value).__name__}", field=field)
