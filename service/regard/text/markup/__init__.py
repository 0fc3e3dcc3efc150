"""Markup that survives translation: read from a source, and written around the words of its translation."""
