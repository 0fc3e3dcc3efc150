"""The gRPC port: gRPC's server behind it, and another in its place where that falls over.

One call whose path is not UTF-8 ends the loop in which `grpc.aio` takes calls (`UnicodeDecodeError`, grpcio 1.85), and
with it the server: calls under way end well, but the port is closed while the process lives on.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

import grpc
import structlog

from regard.errors import ConfigurationError

WATCH_INTERVAL_S = 0.25
"""How often the server is asked whether it has fallen over, and a port that can't be had is tried again."""

log = structlog.get_logger("regard.server")


def by_name(server: grpc.aio.Server) -> grpc.aio.Server:
    """Let a server find the methods that generated code adds to it by their names alone; return it.

    Generated code also registers each method, for which gRPC then has a call waiting at any time; `grpc.aio` frees what
    these wait for when its loop ends on an error, and the core writes there all the same (grpcio 1.85): processes hung
    or ended in a segmentation fault after 5 to 130 such errors.
    """
    server.add_registered_method_handlers = lambda service_name, method_handlers: None  # type: ignore[method-assign]
    return server


class Listener:
    """Serves what `make` has put into a server of gRPC's; used within one event loop."""

    def __init__(self, make: Callable[[], grpc.aio.Server], host: str, port: int) -> None:
        self._make = make
        self._host = host
        self.port = port
        """The port, chosen by the system if it was 0, once it is bound."""
        self.listening = False
        self._server = make()
        self._fallen: dict[grpc.aio.Server, asyncio.Task[None]] = {}
        """Those whose calls under way go on, and what waits for their end."""
        self._watching: asyncio.Task[None] | None = None

    def bind(self) -> None:
        """Take the port. Raises `ConfigurationError`, naming it, if that can't be."""
        address = f"[{self._host}]:{self.port}" if ":" in self._host else f"{self._host}:{self.port}"
        try:
            self.port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise ConfigurationError(
                f"can't listen on gRPC port {self.port} of {self._host}: {_why(self._host)}"
            ) from error

    async def start(self) -> None:
        """Take calls from now on."""
        await self._server.start()
        self.listening = True
        self._watching = asyncio.create_task(self._watch())

    async def stop(self, grace_s: float) -> None:
        """Take no more calls, and give those under way so long."""
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
        self.listening = False
        await asyncio.gather(*(server.stop(grace_s) for server in (self._server, *self._fallen)))
        await asyncio.gather(*self._fallen.values())

    async def _watch(self) -> None:
        while True:
            try:
                await self._server.wait_for_termination(WATCH_INTERVAL_S)
            except Exception as error:
                self.listening = False
                log.error("the gRPC server fell over; another takes its place", error=type(error).__name__)
                await self._replace()

    async def _outlive(self, server: grpc.aio.Server) -> None:
        with suppress(Exception):  # what it fell over
            await server.wait_for_termination()
        del self._fallen[server]

    async def _replace(self) -> None:
        self._fallen[self._server] = asyncio.create_task(self._outlive(self._server))
        while not self.listening:
            self._server = self._make()
            try:
                self.bind()
                await self._server.start()
                self.listening = True
            except ConfigurationError as error:
                log.warning("the gRPC port can't be had", problem=error.message)
                await asyncio.sleep(WATCH_INTERVAL_S)


def _why(host: str) -> str:
    """Return why no port of a host can be had, which gRPC doesn't tell: its address, if not the port."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except socket.gaierror as error:
        return f"the host is not known ({error.strerror}); choose another --host"
    except (OSError, UnicodeError):
        return "the host is no address of this machine; choose another --host"
    return "it is taken, or not ours"
