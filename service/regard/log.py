"""Logging: for people on a terminal, JSON lines elsewhere, always on standard error."""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.typing import Processor

from regard.config import ServerSettings


def configure_logging(settings: ServerSettings) -> None:
    """Send structlog and the standard library's loggers to standard error, as the settings say."""
    console = settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendering: list[Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_without_metadata)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    logging.basicConfig(handlers=[handler], level=settings.log_level.upper(), force=True)
    for library in ("asyncio", "grpc"):
        logging.getLogger(library).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _without_metadata(record: logging.LogRecord) -> bool:
    """Take the value out of what gRPC logs of metadata that is not UTF-8: it may be a credential."""
    if record.name.startswith("grpc.") and str(record.msg).startswith("Invalid encoding"):
        record.msg, record.args = "metadata that is not UTF-8", ()
        record.exc_info = record.exc_text = None  # the error holds the value, too
    return True
