"""The servers that loads are put upon: each a process of its own, and what it is asked and answers."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import grpc

from load_tests.peers.course import QUANTIZATIONS
from load_tests.peers.loads import OK, Line
from load_tests.peers.server import Server, started
from load_tests.peers.setting import Setting
from load_tests.peers.sources import Source
from load_tests.peers.static import METHOD
from regard.v1 import generation_pb2, translation_pb2

WRONG_LENGTH = "WRONG LENGTH"
CODES = {status.value[0]: status.name for status in grpc.StatusCode}
"""The names of the codes that a result carries which failed alone."""


class Regard:
    """`regard serve` of one package."""

    def __init__(self, setting: Setting, precision: str, workers: int, threads: int) -> None:
        self.name = f"regard {workers}x{threads}"
        self._server = Server(setting.course.models(precision), instances=workers, threads=threads)

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._server.pid

    def line(self) -> Line[int]:
        """Return a connection to it."""
        return Line(self._server.target, "/regard.v1.TranslationService/Translate", _regards_outcome)

    @staticmethod
    def requests(sources: Sequence[Source]) -> list[tuple[bytes, int]]:
        """Return a message for each source, and the length of its answer. They ask for scores, as most callers will."""
        return [
            (
                translation_pb2.TranslateRequest(
                    texts=[source.text],
                    generation=generation_pb2.GenerationOptions(max_new_tokens=source.target_tokens),
                ).SerializeToString(),
                source.target_tokens,
            )
            for source in sources
        ]

    def stop(self) -> None:
        """Let it drain and end."""
        self._server.stop()


class Peer:
    """CTranslate2 behind a server that batches statically."""

    def __init__(
        self, setting: Setting, precision: str, workers: int, threads: int, most: int, window_ms: float
    ) -> None:
        self.name = f"ctranslate2 {workers}x{threads}, batches of {most}, {window_ms:g} ms"
        course = setting.course
        flags = {
            "model": course.converted(precision),
            "tokenizer": course.tokenizer,
            "compute-type": QUANTIZATIONS[precision],
            "workers": workers,
            "threads": threads,
            "most": most,
            "window-ms": window_ms,
        }
        command = [sys.executable, "-m", "load_tests.peers.static"]
        command += [word for flag, value in flags.items() for word in (f"--{flag}", str(value))]
        self._process, self._target = started(command)

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    def line(self) -> Line[int]:
        """Return a connection to it."""
        return Line(self._target, METHOD, _peers_outcome)

    @staticmethod
    def requests(sources: Sequence[Source]) -> list[tuple[bytes, int]]:
        """Return a message for each source, and the length of its answer."""
        return [
            (json.dumps({"text": source.text, "target_tokens": source.target_tokens}).encode(), source.target_tokens)
            for source in sources
        ]

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


def _regards_outcome(expected: int, answer: bytes) -> str:
    result = translation_pb2.TranslateResponse.FromString(answer).results[0]
    if result.HasField("failure"):
        return CODES.get(result.failure.code, "UNKNOWN")
    return OK if result.translation.target_tokens == expected else WRONG_LENGTH


def _peers_outcome(expected: int, answer: bytes) -> str:
    return OK if json.loads(answer)["target_tokens"] == expected else WRONG_LENGTH
