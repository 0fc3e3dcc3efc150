"""Regard: serves attention models and shows what they attend to."""

from importlib.metadata import version as _version

__version__ = _version("regard")
