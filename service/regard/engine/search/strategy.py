"""Which search a request's options ask for."""

from __future__ import annotations

from typing import Protocol

from regard.engine.search.beams import BeamSearch
from regard.engine.search.hypothesis import Hypothesis
from regard.engine.search.independent import IndependentSearch
from regard.engine.search.options import GenerationOptions
from regard.engine.search.processors import SuppressTokens
from regard.engine.search.rules import Rules, processors_of
from regard.engine.search.shortlist import StepScores
from regard.manifest import GenerationSpec


class Search(Protocol):
    """The search of one request, which has as many rows as its options are wide."""

    hypotheses: list[Hypothesis]
    """What each row holds."""

    @property
    def copies(self) -> list[tuple[int, int]]:
        """The rows (from, to) that take over another row's state after the last `advance`."""

    @property
    def best_needed(self) -> int:
        """How many of its best tokens each row must show in every step."""

    @property
    def done(self) -> bool:
        """Whether no further step can change the results."""

    @property
    def settled(self) -> int:
        """How many tokens of the first row's hypothesis will be in whatever is returned first."""

    @property
    def results(self) -> list[Hypothesis]:
        """The sequences to return, the best first."""

    def advance(self, step: StepScores) -> None:
        """Take the scores of one step. Raises `InvalidInputError` if every token is banned."""


def search_of(options: GenerationOptions, spec: GenerationSpec) -> Search | None:
    """Return a request's search; None if it is greedy and the scores are the model's own."""
    rules, processors = Rules.of(options, spec), processors_of(options, spec)
    if options.num_beams > 1:
        return BeamSearch(options, rules, processors)
    reshaped = processors.penalty is not None or any(not isinstance(ban, SuppressTokens) for ban in processors.bans)
    if options.width > 1 or options.do_sample or reshaped or options.suppress_tokens:
        return IndependentSearch(options, rules, processors)
    return None
