"""CTranslate2."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ctranslate2

from load_tests.peers.memory import peak_bytes
from load_tests.peers.sources import Source


class CTranslate2:
    """CTranslate2, given all sources at once, to sort by length and cut into batches, `concurrency` in flight.

    It multiplies with what it chooses itself, which is oneDNN on AMD's processors. Made to take MKL there
    (CT2_USE_MKL=1), 4.8.5 gave 0.65 to 0.75 of its tokens per second in fp32, and in int8 6 in the place of 192 (AMD
    EPYC with AVX2, 2026-11-22).

    With `attention` it returns the cross-attention of every translation as well, of the one head that it can.
    """

    def __init__(
        self, converted: Path, *, workers: int, threads: int, compute_type: str = "float32", attention: bool = False
    ) -> None:
        self.name = f"ctranslate2 {workers}x{threads}"
        self._attention = attention
        self._workers = workers
        self._translator = ctranslate2.Translator(
            str(converted), compute_type=compute_type, inter_threads=workers, intra_threads=threads
        )

    def translate(self, sources: Sequence[Source], concurrency: int, beams: int = 1) -> list[int]:
        """Translate without scores."""
        at_once = concurrency if concurrency < self._workers else len(sources)  # or every worker would take some
        counts: list[int] = []
        for first in range(0, len(sources), at_once):
            given = sources[first : first + at_once]
            results = self._translator.translate_batch(
                [source.tokens for source in given],
                max_batch_size=max(1, concurrency // self._workers),
                beam_size=beams,
                return_attention=self._attention,
                **forced_lengths([source.target_tokens for source in given]),
            )
            counts += [len(result.hypotheses[0]) for result in results]
        return counts

    def peak_bytes(self) -> int:
        """Return the most memory that this process has held."""
        return peak_bytes()

    def close(self) -> None:
        """Free the model."""
        self._translator.unload_model()


def forced_lengths(tokens: Sequence[int]) -> dict[str, Any]:
    """Return the options that make each result as many tokens long as asked.

    Lengths that differ take a callback, which ends the text that it is called for and works with greedy search only.
    """
    longest = max(tokens)
    options: dict[str, Any] = {"min_decoding_length": longest, "max_decoding_length": longest}
    if min(tokens) < longest:
        options["callback"] = lambda result: result.step + 1 >= tokens[result.batch_id]
    return options
