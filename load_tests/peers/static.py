"""The peer's server: CTranslate2 behind grpc.aio, with batches that are static once they have begun.

A batch begins when it is full or when its first request has waited for the window, and a worker is free.
`python -m load_tests.peers.static --help` tells how it is started; it says its port on its output.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ctranslate2
import grpc
from tokenizers import Tokenizer

from load_tests.peers.contestants.ctranslate import forced_lengths

SERVICE = "peer.Translation"
METHOD = f"/{SERVICE}/Translate"
Waiting = tuple[list[str], int, "asyncio.Future[tuple[str, int]]"]
"""A text's tokens, how many are to come of it, and who waits for the translation and its length."""


class Batcher:
    """Requests that wait for one another, and the batches that they are translated in."""

    def __init__(self, translator: ctranslate2.Translator, tokenizer: Tokenizer, most: int, window_s: float) -> None:
        self._translator = translator
        self._tokenizer = tokenizer
        self._ids = tokenizer.get_vocab()
        self._most = most
        self._window_s = window_s
        self._queue: asyncio.Queue[Waiting] = asyncio.Queue()
        self._free = asyncio.Semaphore(translator.num_translators)
        self._threads = ThreadPoolExecutor(translator.num_translators)
        self._running: set[asyncio.Task[None]] = set()

    async def translate(self, text: str, target_tokens: int) -> tuple[str, int]:
        """Return the translation, and how many tokens it has."""
        answer: asyncio.Future[tuple[str, int]] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((self._tokenizer.encode(text).tokens, target_tokens, answer))
        return await answer

    async def run(self) -> None:
        """Form batches for ever."""
        while True:
            batch = [await self._queue.get()]
            await self._fill(batch)
            await self._free.acquire()
            while len(batch) < self._most and not self._queue.empty():
                batch.append(self._queue.get_nowait())  # who came while every worker was busy
            task = asyncio.create_task(self._answer(batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _fill(self, batch: list[Waiting]) -> None:
        """Add whoever comes within the window."""
        try:
            async with asyncio.timeout(self._window_s):
                while len(batch) < self._most:
                    batch.append(await self._queue.get())
        except TimeoutError:
            return

    async def _answer(self, batch: list[Waiting]) -> None:
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._threads, self._translate, batch)
        except Exception as error:
            for _, _, answer in batch:
                answer.set_exception(error)
            return
        finally:
            self._free.release()
        for (_, _, answer), result in zip(batch, results, strict=True):
            if not answer.done():
                answer.set_result(result)

    def _translate(self, batch: list[Waiting]) -> list[tuple[str, int]]:
        lengths = forced_lengths([target_tokens for _, target_tokens, _ in batch])
        results = self._translator.translate_batch([tokens for tokens, _, _ in batch], beam_size=1, **lengths)
        told = [result.hypotheses[0] for result in results]
        ids = [[self._ids[token] for token in tokens] for tokens in told]
        texts = self._tokenizer.decode_batch(ids)
        return [(text, len(tokens)) for text, tokens in zip(texts, told, strict=True)]


async def serve(options: argparse.Namespace) -> None:
    """Serve until the process is ended."""
    translator = ctranslate2.Translator(
        str(options.model),
        compute_type=options.compute_type,
        inter_threads=options.workers,
        intra_threads=options.threads,
    )
    tokenizer = Tokenizer.from_file(str(options.tokenizer))
    batcher = Batcher(translator, tokenizer, options.most, options.window_ms / 1000)

    async def translate(message: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        asked = json.loads(message)
        text, tokens = await batcher.translate(asked["text"], asked["target_tokens"])
        return json.dumps({"text": text, "target_tokens": tokens}).encode()

    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(translate)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, {"Translate": handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await batcher.run()


def main() -> None:
    """Read the flags and serve."""
    parser = argparse.ArgumentParser("python -m load_tests.peers.static", description=__doc__)
    add = parser.add_argument
    add("--model", type=Path, required=True, help="what CTranslate2's converter wrote")
    add("--tokenizer", type=Path, required=True, help="tokenizer.json")
    add("--compute-type", default="float32", help="float32 or int8 (default: float32)")
    add("--workers", type=int, default=1, help="batches that are translated at a time (default: 1)")
    add("--threads", type=int, default=1, help="threads of each (default: 1)")
    add("--most", type=int, default=32, help="requests of one batch (default: 32)")
    add("--window-ms", type=float, default=5.0, help="how long the first of a batch waits for more (default: 5)")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
