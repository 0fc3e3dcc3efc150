"""How a client reaches its server: the channel's options, with gRPC's own retries."""

from __future__ import annotations

import json

DEFAULT_TARGET = "localhost:50051"
DEFAULT_TIMEOUT_S = 60.0
INPUTS_PER_REQUEST = 64
"""The server's own default limit."""
REQUESTS_IN_FLIGHT = 4
"""Enough to keep a batch full while answers travel, and little enough to leave a queue to others."""

_LOOPBACK = ("localhost", "127.", "[::1]", "unix:")
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


def channel_options(target: str) -> list[tuple[str, str | int]]:
    """Return the options of a channel to `target`.

    A call that ends with UNAVAILABLE is made up to 5 times, waiting longer each time; a stream
    only until its first event. Answers of any size are taken, since their size is the server's to
    limit. A proxy of the environment is never used to reach this very machine.
    """
    options: list[tuple[str, str | int]] = [
        ("grpc.enable_retries", 1),
        ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
        ("grpc.max_receive_message_length", -1),
    ]
    if target.startswith(_LOOPBACK):
        options.append(("grpc.enable_http_proxy", 0))
    return options
