"""Answers as JSON Lines: one object a line, with the field names of the API."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import sys
from typing import Any

import numpy as np

from regard.client import Attention, AttentionMap, Failure


def print_record(record: object) -> None:
    """Print one line of JSON on stdout, with escapes where its encoding may lack a character."""
    escaped = not (sys.stdout.encoding or "").lower().startswith("utf")
    print(json.dumps(record, ensure_ascii=escaped, separators=(", ", ": ")), flush=True)


def answer_record(source: str, answer: object) -> dict[str, Any]:
    """Return the record of a translation, a classification or a failure of the text `source`."""
    if isinstance(answer, Failure):
        return {"source": source, "failure": failure_record(answer)}
    return {"source": source, **plain(answer)}


def failure_record(failure: Failure) -> dict[str, Any]:
    """Return the record of a failure, with the name of its code; what the server doesn't know is left out."""
    known = {name: value for name, value in dataclasses.asdict(failure).items() if value is not None}
    return {**known, "code_name": failure.code_name}


def plain(value: Any) -> Any:
    """Return a result as dictionaries, lists and numbers.

    Files are in Base64, and what is not a number is None, as JSON has no word for it. Weights keep 7 decimal places,
    as many as float32 has below 1. Axes stand beside the maps that they label, once; places on them stay whole numbers.
    """
    if isinstance(value, Attention):
        return _attention(value)
    if isinstance(value, np.ndarray):
        return value.tolist() if value.dtype.kind == "u" else np.round(value.astype(np.float64), 7).tolist()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, float) and math.isnan(value):
        return None
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return [plain(one) for one in value] if isinstance(value, tuple) else value


def _attention(attention: Attention) -> dict[str, Any]:
    axes = {one.query_axis: one.queries for one in attention.maps} | {one.key_axis: one.keys for one in attention.maps}
    return {
        "granularity": attention.granularity,
        "axes": {name: plain(segments) for name, segments in axes.items()},
        "maps": [_map(one) for one in attention.maps],
        "package_sha256": attention.package_sha256,
        "precision": attention.precision,
    }


def _map(one: AttentionMap) -> dict[str, Any]:
    return {name: value for name, value in plain(one).items() if name not in ("queries", "keys")}
