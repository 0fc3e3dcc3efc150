"""When a text of speech may hold a time, and when it must: the rule of Whisper's times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from regard.engine.request import FloatArray


@dataclass(frozen=True, slots=True)
class Timestamps:
    """Tokens from `first` on are times, which come in pairs and never go back.

    A text begins with a time, at most `max_initial` beyond the first, behind the `begin` tokens of its
    prompt. Where all times together are likelier than any other token, one of them must come. As
    Transformers' WhisperTimeStampLogitsProcessor has it (Radford et al., Robust Speech Recognition via
    Large-Scale Weak Supervision, 2022, section 4.5).
    """

    first: int
    eos_token_id: int
    begin: int
    max_initial: int | None

    def __call__(self, sequence: Sequence[int], scores: FloatArray) -> FloatArray:
        """Return `scores` [V] with -inf for what may not follow `sequence`."""
        allowed = scores.copy()
        allowed[self.first - 1] = -np.inf  # the token that says that there are no times
        written = sequence[self.begin :]
        if not written:
            allowed[: self.first] = -np.inf
            if self.max_initial is not None:
                allowed[self.first + self.max_initial + 1 :] = -np.inf
            return allowed
        self._pair(written, allowed)
        self._go_on(written, allowed)
        return self._decided(allowed)

    def _pair(self, written: Sequence[int], allowed: FloatArray) -> None:
        """Let a time that ends a segment be followed by one that begins the next, or by the end."""
        if written[-1] < self.first:
            return
        if len(written) < 2 or written[-2] >= self.first:
            allowed[self.first :] = -np.inf
        else:
            allowed[: self.eos_token_id] = -np.inf

    def _go_on(self, written: Sequence[int], allowed: FloatArray) -> None:
        """Ban the times before the last one, and that one itself unless a segment has just ended with it."""
        times = [token for token in written if token >= self.first]
        if times:
            ends = written[-1] >= self.first and len(written) > 1 and written[-2] < self.first
            allowed[self.first : times[-1] + (not ends)] = -np.inf

    def _decided(self, allowed: FloatArray) -> FloatArray:
        times, others = allowed[self.first :], allowed[: self.first]
        likeliest = times.max(initial=-np.inf)
        if likeliest > -np.inf and likeliest + np.log(np.exp(times - likeliest).sum()) > others.max():
            others[:] = -np.inf
        return allowed
