"""`regard models`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regard.cli import options

if TYPE_CHECKING:
    from rich.table import Table

    from regard.client import Model


def models(
    as_json: options.JsonOption = False,
    server: options.ServerOption = options.DEFAULT_SERVER,
    timeout_s: options.TimeoutOption = 60.0,
) -> None:
    """List the models of a server and the attention that each can give.

    [bold]Examples[/bold]
    [cyan]regard models[/cyan]
    [cyan]regard models --json | jq '{name, taps}'[/cyan]
    """
    from regard.client import Client

    with Client(server, timeout_s=timeout_s) as client:
        found = client.models()
    if as_json:
        from regard.cli.records import plain, print_record

        for model in found:
            print_record(plain(model))
    else:
        from regard.cli.screen import OUT

        OUT.print(_table(found))


def _table(found: list[Model]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("model", "task", "architecture", "tokens", "attention: layers × heads"):
        table.add_column(column, overflow="fold", no_wrap=column in ("task", "tokens"))
    for model in found:
        table.add_row(
            f"{model.name}/{model.version}" + ("" if model.ready else "\nnot ready"),
            model.task,
            f"{model.architecture}\n{model.precision}",
            (f"{model.max_source_tokens} in" if model.max_source_tokens else "-")
            + (f"\n{model.max_target_tokens} out" if model.max_target_tokens else ""),
            "\n".join(_attention_of(model)),
        )
    return table


def _attention_of(model: Model) -> list[str]:
    """Return a line for each stack and kind, how many layers of how many heads, and one if requests can change them."""
    heads: dict[tuple[str, str], list[int]] = {}
    for tap in model.taps:
        heads.setdefault((tap.stack, tap.kind), []).append(tap.heads)
    lines = [f"{stack} {kind} {len(each)} × {max(each)}" for (stack, kind), each in heads.items()]
    return [*lines, "takes interventions"] if model.takes_interventions else lines
