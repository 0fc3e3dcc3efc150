"""Regard: serves attention models and shows what they attend to."""

__version__ = "0.1.0"
