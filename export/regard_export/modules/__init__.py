"""Modules of plain PyTorch that attend by themselves: a protocol to follow, and the way to a package.

A model that isn't of Transformers' kind is exported as it is, if it hands out its attention weights:
follow `AttentiveClassifier` or `AttentiveGenerator`, say what the package needs to know in a
`Blueprint`, and call `export_module`. The package is served by the same engine as all others.
"""

from regard_export.modules.blueprint import Blueprint
from regard_export.modules.package import export_module
from regard_export.modules.protocol import (
    AttentiveClassifier,
    AttentiveGenerator,
    Classified,
    Encoded,
    Stepped,
)

__all__ = [
    "AttentiveClassifier",
    "AttentiveGenerator",
    "Blueprint",
    "Classified",
    "Encoded",
    "Stepped",
    "export_module",
]
