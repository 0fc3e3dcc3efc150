"""Exports at real sizes: how fast the graphs are beside other exports', and how much memory an export takes."""
