"""How long a request will take, foreseen from those before it."""

from __future__ import annotations

import math

from regard.config import EngineSettings
from regard.engine.request import GenerateRequest, Request

FADING = 0.99
"""The weight that an observation keeps when the next one comes: some hundred of them count."""
MOST_SURPRISE = 4.0
"""A run that takes longer than this many times what was expected is a stall, and counts as so many times."""
FIRST_GUESS_S = 1e-3
"""The time of a row's step, and of ten tokens in the encoder, before any was seen."""


class Pace:
    """A graph's time as a line in its amount of rows or tokens, fitted to its runs by least squares; older ones fade.

    Where only one amount was seen, less is taken to cost less and more to cost nothing: nobody is
    refused on a guess.
    """

    def __init__(self, guess_s: float) -> None:
        self._guess_s = guess_s
        self._runs = self._amount = self._seconds = self._square = self._product = 0.0

    @property
    def measured(self) -> bool:
        """Whether any run was seen."""
        return self._runs > 0

    def saw(self, amount: int, seconds: float) -> None:
        """Note one run."""
        if self.measured:
            seconds = min(seconds, MOST_SURPRISE * self.seconds(amount))
        self._runs = FADING * self._runs + 1
        self._amount = FADING * self._amount + amount
        self._seconds = FADING * self._seconds + seconds
        self._square = FADING * self._square + amount * amount
        self._product = FADING * self._product + amount * seconds

    def seconds(self, amount: float) -> float:
        """Return the time that a run is expected to take."""
        if not self.measured:
            return self._guess_s * amount
        mean, seconds = self._means
        slope = self._slope
        if slope is None:
            return seconds * min(amount / mean, 1.0)
        return seconds + slope * (amount - mean)

    @property
    def overhead(self) -> float:
        """The amount that takes as long as a run does beside its amount; infinite as long as that isn't known."""
        slope = self._slope
        if not slope:
            return math.inf
        mean, seconds = self._means
        return seconds / slope - mean

    @property
    def _means(self) -> tuple[float, float]:
        """The amount and the seconds of a run, on average."""
        return self._amount / self._runs, self._seconds / self._runs

    @property
    def _slope(self) -> float | None:
        """What one more costs, in seconds; None where runs were all of one amount."""
        if not self.measured:
            return None
        mean, seconds = self._means
        spread = self._square / self._runs - mean * mean
        if spread < 1e-6 * mean * mean:
            return None
        slope = (self._product / self._runs - mean * seconds) / spread
        return min(max(slope, 0.0), seconds / mean)


class Forecast:
    """What the work of requests is foreseen from: the pace of each graph, and how long outputs are."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._read = Pace(FIRST_GUESS_S / 10)
        self._step = Pace(FIRST_GUESS_S)
        self._source_tokens = self._steps = 0.0

    def saw_read(self, tokens: int, seconds: float) -> None:
        """Note a run of the encoder, or of a classifier, over padded tokens."""
        self._read.saw(tokens, seconds)

    def saw_step(self, rows: int, seconds: float) -> None:
        """Note one step of `rows` rows."""
        self._step.saw(rows, seconds)

    def saw_output(self, request: Request, steps: int) -> None:
        """Note how many steps a request took; those of an output that was given tell nothing of what a model writes."""
        if isinstance(request, GenerateRequest) and request.options.target_token_ids:
            return
        self._source_tokens = FADING * self._source_tokens + request.source.length
        self._steps = FADING * self._steps + steps

    @property
    def read_overhead(self) -> float:
        """How many padded tokens take as long as a run of the encoder, or of a classifier, does beside its tokens."""
        return self._read.overhead

    def measured(self, request: Request) -> bool:
        """Whether there is anything but guesses to say of such a request."""
        return self._read.measured and (self._step.measured or not isinstance(request, GenerateRequest))

    def work_s(self, request: Request) -> float:
        """Return how long one instance, well filled, works for a request."""
        tokens, rows = self._settings.max_batch_tokens, self._settings.max_rows
        work_s = request.source.length * self._read.seconds(tokens) / tokens
        if isinstance(request, GenerateRequest):
            work_s += self._steps_of(request) * request.options.width * self._step.seconds(rows) / rows
        return work_s

    def duration_s(self, request: Request) -> float:
        """Return how long a request takes in a well filled instance, from its place on."""
        read_s = self._read.seconds(request.source.length)
        if not isinstance(request, GenerateRequest):
            return read_s
        return read_s + self._steps_of(request) * self._step.seconds(self._settings.max_rows)

    def _steps_of(self, request: GenerateRequest) -> float:
        """Return how many steps are expected: as many for each source token as others took, within the limits."""
        options, prefix = request.options, len(request.options.prefix_token_ids)
        ratio = self._steps / self._source_tokens if self._source_tokens else 1.0
        free = max(ratio * request.source.length - prefix, options.min_new_tokens, 1)
        return prefix + min(free, options.max_new_tokens)
