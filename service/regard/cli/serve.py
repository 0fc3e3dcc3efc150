"""`regard serve`: the server, from its flags to its exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regard.config import EngineSettings, ServerSettings, load_settings
from regard.errors import RegardError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from regard.catalog import Catalog
    from regard.manifest import Manifest
    from regard.rpc.server import Server


def _option(setting: str, flag: str) -> Any:
    """Return the flag of a setting, with the setting's own words and default as its help."""
    group, _, name = setting.rpartition(".")
    field = (EngineSettings if group else ServerSettings).model_fields[name]
    default = os.pathsep.join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
    what = (field.description or "").replace("\n", " ").replace("`", "")
    default = "" if default is None else f"; default: {default}"
    variable = f"REGARD_{setting.replace('.', '__').upper()}"
    return typer.Option(
        flag,
        help=f"{what} \\[{variable}{default}]",
        show_default=False,
        rich_help_panel="Engine" if group else "Server",
    )


def serve(
    models: Annotated[list[Path] | None, _option("models", "--models")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="A TOML file of settings.")] = None,
    host: Annotated[str | None, _option("host", "--host")] = None,
    grpc_port: Annotated[int | None, _option("grpc_port", "--grpc-port")] = None,
    http_port: Annotated[int | None, _option("http_port", "--http-port")] = None,
    playground: Annotated[bool | None, _option("playground", "--playground/--no-playground")] = None,
    max_inputs: Annotated[int | None, _option("max_inputs", "--max-inputs")] = None,
    max_message_bytes: Annotated[int | None, _option("max_message_bytes", "--max-message-bytes")] = None,
    max_attention_bytes: Annotated[int | None, _option("max_attention_bytes", "--max-attention-bytes")] = None,
    attention_health_share: Annotated[
        float | None, _option("attention_health_share", "--attention-health-share")
    ] = None,
    codec_threads: Annotated[int | None, _option("codec_threads", "--codec-threads")] = None,
    drain_timeout_s: Annotated[float | None, _option("drain_timeout_s", "--drain-timeout")] = None,
    log_format: Annotated[str | None, _option("log_format", "--log-format")] = None,
    log_level: Annotated[str | None, _option("log_level", "--log-level")] = None,
    provider: Annotated[str | None, _option("engine.provider", "--provider")] = None,
    device_id: Annotated[int | None, _option("engine.device_id", "--device-id")] = None,
    device_memory_bytes: Annotated[int | None, _option("engine.device_memory_bytes", "--device-memory-bytes")] = None,
    instances: Annotated[str | None, _option("engine.instances", "--instances")] = None,
    intra_op_threads: Annotated[int | None, _option("engine.intra_op_threads", "--intra-op-threads")] = None,
    max_queue: Annotated[int | None, _option("engine.max_queue", "--max-queue")] = None,
    max_queue_s: Annotated[float | None, _option("engine.max_queue_s", "--max-queue-work")] = None,
    priority_ageing_s: Annotated[float | None, _option("engine.priority_ageing_s", "--priority-ageing")] = None,
    max_rows: Annotated[int | None, _option("engine.max_rows", "--max-rows")] = None,
    max_batch_tokens: Annotated[int | None, _option("engine.max_batch_tokens", "--max-batch-tokens")] = None,
    max_positions: Annotated[int | None, _option("engine.max_positions", "--max-positions")] = None,
    max_encode_share: Annotated[float | None, _option("engine.max_encode_share", "--max-encode-share")] = None,
) -> None:
    """Serve model packages over gRPC, with metrics and health over HTTP.

    Settings come from flags, REGARD_* environment variables and the TOML file, in that order of weight.
    SIGTERM and Ctrl-C finish what was accepted; a second one ends at once.
    """
    given = {name: value for name, value in locals().items() if value is not None and name != "config"}
    engine = {name: given.pop(name) for name in EngineSettings.model_fields if name in given}
    sys.exit(_run({**given, "engine": engine} if engine else given, config))


def _run(flags: Mapping[str, Any], config: Path | None) -> int:
    """Serve until told to stop; return the process's exit code."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # the core writes its own lines to standard error
    try:
        settings = load_settings(flags, config)
        asyncio.run(_serve(settings))
    except RegardError as error:
        typer.echo(f"regard: {error.message}", err=True)
        return 2
    return 0


async def _serve(settings: ServerSettings) -> None:
    from regard.catalog import load_catalog
    from regard.devices import watch_devices, watch_process
    from regard.log import configure_logging
    from regard.metrics import Metrics
    from regard.rpc.server import Server
    from regard.worker import Worker

    configure_logging(settings)
    metrics = Metrics()
    watch_devices(metrics.registry)
    watch_process(metrics.registry)
    stopping = _stopped_by_signals()
    catalog = await asyncio.to_thread(
        load_catalog,
        settings.models,
        lambda package: Worker(
            package, settings.engine, metrics.observer(package.manifest.name, package.manifest.version)
        ),
        settings.engine.max_positions,
    )
    server = Server(settings, catalog, metrics)
    try:
        await server.start(stopping)
        if not stopping.is_set():
            _announce(settings, catalog, server)
            await stopping.wait()
    finally:
        await server.stop()


def _stopped_by_signals() -> asyncio.Event:
    """Return an event that the first SIGTERM or SIGINT sets; the second ends the process at once."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop(number: int) -> None:
        if stopping.is_set():
            os._exit(128 + number)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    return stopping


def _announce(settings: ServerSettings, catalog: Catalog, server: Server) -> None:
    """Say what is served and where: a line in the log, and a summary for people on a terminal."""
    import structlog

    if sys.stderr.isatty():
        from rich.console import Console

        Console(stderr=True).print(_summary(settings, catalog, server))
    structlog.get_logger("regard.server").info(
        "serving",
        host=settings.host,
        grpc_port=server.grpc_port,
        http_port=server.http_port,
        providers=_providers(catalog),
        models=[model.label for model in catalog.models],
    )


def _reads(manifest: Manifest) -> str:
    """Return a line for each kind of input that a model takes."""
    lines = []
    if manifest.image:
        lines.append(f"images, as {manifest.image.width} x {manifest.image.height} pixels")
    if manifest.audio:
        lines.append(f"sound, {manifest.audio.window_s} s at a time")
    if manifest.text and manifest.text.max_source_tokens is not None:
        lines.append(f"up to {manifest.text.max_source_tokens} tokens")
    return "\n".join(lines)


def _providers(catalog: Catalog) -> list[str]:
    """Return the execution providers that the models really run on."""
    return sorted({model.worker.provider for model in catalog.models})


def _summary(settings: ServerSettings, catalog: Catalog, server: Server) -> RenderableType:
    from rich import box
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    models = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    for column in ("model", "task", "precision", "reads", "attention"):
        models.add_column(column, overflow="fold", no_wrap=column in ("task", "precision"))
    for model in catalog.models:
        manifest = model.manifest
        kinds = dict.fromkeys(f"{tap.stack} {tap.kind}" for tap in manifest.taps)
        models.add_row(
            Text.assemble((manifest.name, "bold cyan"), f"/{manifest.version}"),
            manifest.task.value,
            manifest.precision,
            _reads(manifest),
            "\n".join(kinds) or "none",
        )
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    places = Table.grid(padding=(0, 2))
    places.add_row(Text("gRPC", style="dim"), Text(f"{host}:{server.grpc_port}", style="bold green"))
    at = f"http://{host}:{server.http_port}"
    places.add_row(Text("HTTP", style="dim"), Text(f"{at}/metrics  /healthz  /readyz"))
    if settings.has_playground:
        places.add_row(Text("look", style="dim"), Text(f"{at}/playground", style="bold green"))
    places.add_row(Text("runs on", style="dim"), ", ".join(_providers(catalog)))
    return Panel(Group(models, places), title="[bold]Regard[/] is serving", border_style="cyan", expand=False)
