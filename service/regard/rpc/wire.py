"""Responses as bytes, with the weights of attention written into them once.

A message that is put into another is copied there, weights and all, and so is that into the next one around it:
of one text's maps in a classification there would be nine copies. So weights wait in the call's `Weights`
until its response is written; its messages hold tickets for them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from threading import Lock

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from regard.v1 import attention_pb2

_TICKET = struct.Struct("<QQ")
_MAP = attention_pb2.AttentionMap.DESCRIPTOR
_WEIGHTS = _MAP.fields_by_name["weights"]
_LENGTH_DELIMITED = 2


class Weights:
    """What the maps of one call hold, until it is written into their place; `changed` is told of bytes more and fewer.

    Threads may put in, take out and ask how much there is at the same time.
    """

    def __init__(self, changed: Callable[[int], None] = lambda num_bytes: None) -> None:
        self._changed = changed
        self._waiting: dict[int, bytes] = {}
        self._numbers = count()
        self._num_bytes = 0
        self._changing = Lock()

    def __bool__(self) -> bool:
        """Whether any wait, be they weights of no keys, which are no bytes."""
        return bool(self._waiting)

    @property
    def num_bytes(self) -> int:
        """The bytes that wait."""
        return self._num_bytes

    def put(self, weights: bytes) -> bytes:
        """Return the ticket for some weights, to be the field `weights` of a map."""
        with self._changing:
            number = next(self._numbers)
            self._waiting[number] = weights
            self._num_bytes += len(weights)
        self._changed(len(weights))
        return _TICKET.pack(number, len(weights))

    def take(self, ticket: bytes) -> bytes:
        """Return the weights that a ticket is for, which then wait no longer."""
        number, size = _TICKET.unpack(ticket)
        with self._changing:
            self._num_bytes -= size
            taken = self._waiting.pop(number)
        self._changed(-size)
        return taken


def bytes_behind(ticket: bytes) -> int:
    """Return the bytes of the weights that a ticket is for."""
    _, size = _TICKET.unpack(ticket)
    return int(size)


def serialize(message: Message, weights: Weights) -> bytes:
    """Return the bytes of a message whose maps hold tickets; the maps are taken out of it.

    The wire format: https://protobuf.dev/programming-guides/encoding/. Fields may come in any order.
    """
    return b"".join(_pieces(message, weights))


def _pieces(message: Message, weights: Weights) -> list[bytes]:
    if message.DESCRIPTOR is _MAP:
        long = weights.take(message.weights)  # type: ignore[attr-defined]
        message.ClearField(_WEIGHTS.name)
        return [message.SerializeToString(), _head(_WEIGHTS, len(long)), long]
    nested = list(_nested(message))
    for field, _ in nested:
        message.ClearField(field.name)
    pieces: list[bytes] = [message.SerializeToString()]
    for field, one in nested:
        inner = _pieces(one, weights)
        pieces += [_head(field, sum(map(len, inner))), *inner]
    return pieces


def _nested(message: Message) -> Iterator[tuple[FieldDescriptor, Message]]:
    """Yield the messages in a message that may hold maps, in order, each with its field."""
    for field in _fields(message.DESCRIPTOR):
        if field.is_repeated:
            yield from ((field, one) for one in getattr(message, field.name))
        elif message.HasField(field.name):
            yield field, getattr(message, field.name)


@cache
def _fields(descriptor: Descriptor) -> tuple[FieldDescriptor, ...]:
    """Return the fields of a message through which a map can be reached."""
    fields = (field for field in descriptor.fields if field.message_type is not None)
    return tuple(field for field in fields if field.message_type is _MAP or _fields(field.message_type))


def _head(field: FieldDescriptor, length: int) -> bytes:
    return _varint(field.number << 3 | _LENGTH_DELIMITED) + _varint(length)


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
