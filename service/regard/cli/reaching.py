"""Why a server can't be reached, where the command line can tell."""

from __future__ import annotations

import re
from http.client import HTTPConnection, HTTPException

_TARGET = re.compile(r"can't reach a server at (\S+):(\d+) \(")
_TIMEOUT_S = 1.0
_METRICS_BYTES = 1 << 20
_OURS = b"\nregard_"
"""How a line of the metrics of a Regard server begins."""


def advice_on(unreached: str) -> str:
    """Return what to do about a message that a server can't be reached."""
    found = _TARGET.match(unreached)
    if found and _tells_metrics(found[1].strip("[]"), int(found[2])):
        return (
            "that is the HTTP port of a Regard server, for metrics and the playground: name its gRPC port, "
            "50051 by default, with --server"
        )
    return "start one with `regard serve --models models/` or name it with --server"


def _tells_metrics(host: str, port: int) -> bool:
    """Tell whether a Regard server's metrics are there, over HTTP."""
    connection = HTTPConnection(host, port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/metrics")
        return _OURS in connection.getresponse().read(_METRICS_BYTES)
    except (OSError, HTTPException, ValueError, OverflowError):
        return False
    finally:
        connection.close()
