"""The help of a command: every name in it is whole, however narrow the screen."""

from __future__ import annotations

import inspect
import re
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand

NAMES_WIDTH = 28
"""Columns for an option's names and its value; longer ones go on in the next line."""


class Command(TyperCommand):
    """A command whose help has one column of names and one of what they mean.

    Typer's own has up to seven columns, and cuts the names that don't fit beside each other.
    """

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the usage, what the command does, and a panel for each kind of arguments and options."""
        console = Console(highlight=False)
        usage = Text(self.get_usage(ctx), "bold")
        usage.highlight_words(["Usage:"], "not bold yellow")
        console.print(Padding(usage, 1))
        for paragraph in inspect.cleandoc(self.help or "").split("\n\n"):
            console.print(Padding(_paragraph(paragraph), (0, 1, 1, 1)))
        panels: dict[str, list[tuple[Text, Text]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
            if record := parameter.get_help_record(ctx):
                rows = panels.setdefault(getattr(parameter, "rich_help_panel", None) or kind, [])
                rows.append((_names(record[0]), _meaning(record[1])))
        width = _width([names for rows in panels.values() for names, _ in rows])
        for title, rows in panels.items():
            table = Table.grid(padding=(0, 2), expand=True)
            table.add_column(width=width)
            table.add_column(ratio=1, overflow="fold")
            for row in rows:
                table.add_row(*row)
            if rows:
                console.print(Panel(table, title=title, title_align="left", border_style="dim"))


def _paragraph(text: str) -> Text:
    """Return a paragraph of a docstring without its line breaks, which only examples keep."""
    return Text.from_markup(text if text.startswith("[bold]Example") else text.replace("\n", " "))


def _names(text: str) -> Text:
    """Return an option's names and its value, which stands below where it is long, and is broken between choices."""
    text = text.replace("|", " | ")
    names = Text(re.sub(r" (?=[<\[])", "\n", text, count=1) if len(text) > NAMES_WIDTH else text, "yellow")
    names.highlight_regex(r"(?<!\S)--?\w[\w-]*|^\w+", "bold cyan")
    return names


def _meaning(text: str) -> Text:
    """Return what an option means, in which Typer or its author has escaped brackets."""
    meaning = Text(text.replace("\\[", "["))
    meaning.highlight_regex(r"(?<![\w-])--\w[\w-]*", "cyan")
    meaning.highlight_regex(r" +\[[^\[]*\]$", "dim")
    return meaning


def _width(names: list[Text]) -> int:
    """Return how wide the column of names must be, for the longest of them and for no more than most need."""
    longest_word = max(len(word) for name in names for word in name.plain.split())
    return max(longest_word, min(NAMES_WIDTH, max(len(name) for name in names)))
