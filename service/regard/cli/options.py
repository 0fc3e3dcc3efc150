"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from regard.cli.screen import refuse

if TYPE_CHECKING:
    from regard.client import AttentionOptions

DEFAULT_SERVER = "localhost:50051"
INPUTS_PER_REQUEST = 16
"""Small, so that a progress bar moves evenly; the server batches across requests anyway."""
REQUESTS_IN_FLIGHT = 8


def _address(server: str) -> str:
    """Return an address as it was given; refuse none, and that of a page."""
    if not server.strip():
        refuse(f"--server needs an address: HOST:PORT, such as {DEFAULT_SERVER}")
    if server.startswith(("http://", "https://")):
        refuse(f"--server {server}: a server is asked over gRPC; give HOST:PORT alone, such as {DEFAULT_SERVER}")
    return server


ServerOption = Annotated[
    str,
    typer.Option("--server", metavar="HOST:PORT", envvar="REGARD_SERVER", callback=_address, help="The server to ask."),
]
ModelOption = Annotated[
    str,
    typer.Option(
        "--model", metavar="NAME[/VERSION]", help="The model to ask. Default: the server's only one for the task."
    ),
]
TimeoutOption = Annotated[float, typer.Option("--timeout", min=0.001, metavar="SECONDS", help="How long to wait.")]
FileOption = Annotated[
    Path | None, typer.Option("--file", "-f", metavar="FILE", help="Read one text a line from FILE, or - for stdin.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object a line (JSON Lines).")]
TruncateOption = Annotated[bool, typer.Option("--truncate", help="Cut texts that are too long for the model.")]
PriorityOption = Annotated[
    Literal["low", "normal", "high"] | None,
    typer.Option("--priority", help="Whose turn comes first on a busy server. Default: normal.", show_default=False),
]
AlignmentOption = Annotated[
    bool, typer.Option("--alignment", help="Show which words translate which, if the model's package was calibrated.")
]
FramesOption = Annotated[
    int | None,
    typer.Option(
        "--align-att-frames",
        min=1,
        metavar="N",
        help="With --stream: mark the tokens that attend most to one of the last N of the source as unsafe to show.",
    ),
]
ReportOption = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE.html",
        help="Write a page on which every layer and head can be looked at, for a browser.",
    ),
]


def name_and_version(model: str) -> tuple[str, str]:
    """Split NAME[/VERSION]."""
    name, _, version = model.partition("/")
    return name, version


def inputs_per_request(attention: AttentionOptions | None) -> int:
    """Return how many inputs to ask at once: one with attention, since those of a request share its bytes of it."""
    return 1 if attention else INPUTS_PER_REQUEST


def has_one_text(text: str | None, file: Path | None, stdin_is_terminal: bool) -> bool:
    """Tell whether the command answers one text rather than lines; refuse both, and neither."""
    if text is not None and file is not None:
        refuse("give a text or --file, not both")
    if text is None and file is None and stdin_is_terminal:
        refuse("give a text, name a file with --file, or pipe lines into stdin; --help has examples")
    return text is not None
