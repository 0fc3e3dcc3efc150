"""A gRPC server that does nothing but refuse, by the same library as ours: what a refusal costs at the least.

`python -m load_tests.peers.refusing` says its port on its output, and serves until it is ended.
"""

from __future__ import annotations

import asyncio
import sys

import grpc

from load_tests.peers.loads import OK, Line
from load_tests.peers.server import started

SERVICE = "peer.Refusing"
METHOD = f"/{SERVICE}/Translate"


class Refusing:
    """Such a server, in a process of its own."""

    def __init__(self) -> None:
        self._process, self._target = started([sys.executable, "-m", "load_tests.peers.refusing"])

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    def line(self) -> Line[int]:
        """Return a connection to it."""
        return Line(self._target, METHOD, lambda expected, answer: OK)

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


async def refuse(message: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    """End a call as a full queue ends it."""
    await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "1024 requests wait already, the most allowed")


async def serve() -> None:
    """Serve until the process is ended."""
    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(refuse)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, {"Translate": handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve())
