"""Who sends a request, for the scheduler's sake: those that it can't tell apart share their turns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from urllib.parse import unquote

ID_KEY, AUTHORIZATION_KEY = "x-client-id", "authorization"


def client_of(metadata: Iterable[tuple[str, str | bytes]], peer: str) -> str:
    """Return a short name of the client: of its id, else of its credentials, else of its address.

    It is a digest, so that it is small whatever was sent and holds nobody's credentials.
    """
    sent = dict(metadata)
    for key in (ID_KEY, AUTHORIZATION_KEY):
        if value := sent.get(key):
            break
    else:
        key, value = "peer", address_of(peer)
    content = value.encode() if isinstance(value, str) else value
    return hashlib.blake2b(key.encode() + b"\0" + content, digest_size=12).hexdigest()


def address_of(peer: str) -> str:
    """Return gRPC's name of a peer, such as `ipv4:10.0.0.7:53124`, without the port: each connection has another."""
    peer = unquote(peer)
    return peer.rpartition(":")[0] if peer.startswith(("ipv4:", "ipv6:")) else peer
