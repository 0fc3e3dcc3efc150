"""Options that several commands take together: a command gets each group of them as one value."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

import typer

Command = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Flag:
    """One option: the type of its value, how it is written, its help, and what its value is called there."""

    kind: Any
    names: tuple[str, ...]
    help: str
    metavar: str | None = None

    def parameter(self, name: str, panel: str) -> inspect.Parameter:
        """Return the command's parameter; without the option its value is None, and that of a plain switch False."""
        switch = self.kind is bool and "/" not in self.names[0]
        default: Any = typer.Option(
            False if switch else None,
            *self.names,
            help=self.help,
            metavar=self.metavar,
            rich_help_panel=panel,
            show_default=False,
        )
        annotation = bool if switch else self.kind | None
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


@dataclass(frozen=True, slots=True)
class Group:
    """Options that `read` makes one value of, from all that a command was given; the command has it as `name`."""

    name: str
    panel: str
    flags: Mapping[str, Flag]
    read: Callable[[Mapping[str, Any]], Any]


def taking(*groups: Group) -> Callable[[Command], Command]:
    """Give a command the options of `groups`."""
    flags = {name for group in groups for name in group.flags}
    values = {group.name for group in groups}

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def run(**given: Any) -> None:
            own = {name: value for name, value in given.items() if name not in flags}
            command(**own, **{group.name: group.read(given) for group in groups})

        run.__annotations__ = {name: hint for name, hint in command.__annotations__.items() if name not in values}
        hints = get_type_hints(run, include_extras=True)
        signature = inspect.signature(command)
        kept = [
            parameter.replace(annotation=hints[name])
            for name, parameter in signature.parameters.items()
            if name in hints
        ]
        added = [flag.parameter(name, group.panel) for group in groups for name, flag in group.flags.items()]
        run.__annotations__ = hints | {parameter.name: parameter.annotation for parameter in added}
        vars(run)["__signature__"] = signature.replace(parameters=[*kept, *added])
        return run

    return decorate
