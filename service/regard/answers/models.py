"""The models of a server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tap:
    """One layer whose attention weights can be asked for."""

    kind: str
    stack: str
    layer: int
    heads: int


@dataclass(frozen=True, slots=True)
class Model:
    """A model that a server holds; `ready` is False while it loads or drains.

    One that `takes_interventions` was exported so that requests can change its attention.
    """

    name: str
    version: str
    task: str
    architecture: str
    precision: str
    package_sha256: str
    max_source_tokens: int
    max_target_tokens: int
    taps: tuple[Tap, ...]
    labels: tuple[str, ...]
    ready: bool
    takes_interventions: bool
