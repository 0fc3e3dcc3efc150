"""Regard's server, asked over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from load_tests.peers.contestants import side_by_side
from load_tests.peers.hosting import Host
from load_tests.peers.memory import peak_bytes
from load_tests.peers.sources import Source
from regard.client import AsyncClient


class Service:
    """A Regard server in a process of its own, and its client in this one, on the same cores. It asks for no scores."""

    def __init__(self, models: Path, *, instances: int, threads: int) -> None:
        self.name = f"service {instances}x{threads}"
        self._server = Host(models, instances=instances, threads=threads)
        self._runner = asyncio.Runner()
        self._client = self._runner.run(self._connect())

    async def _connect(self) -> AsyncClient:
        return AsyncClient(self._server.target)

    def translate(self, sources: Sequence[Source], concurrency: int, beams: int = 1) -> list[int]:
        """Send every source in a request of its own."""

        async def translate_one(source: Source) -> int:
            told = await self._client.translate(
                source.text, max_new_tokens=source.target_tokens, num_beams=beams, return_scores=False
            )
            return told.target_tokens

        return self._runner.run(side_by_side(sources, concurrency, translate_one))

    def translate_within(self, sources: Sequence[Source], concurrency: int, beams: int = 1) -> list[int]:
        """Let the server's own engine translate, without a call."""
        return self._server.translate(sources, concurrency, beams)

    def peak_bytes(self) -> int:
        """Return the most memory that the server has held."""
        return peak_bytes(self._server.pid)

    def close(self) -> None:
        """Close the connection and stop the server."""
        self._runner.run(self._client.close())
        self._runner.close()
        self._server.stop()
