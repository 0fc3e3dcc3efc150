"""Which search a request's options ask for."""

from __future__ import annotations

from regard.engine.search.beams import BeamSearch
from regard.engine.search.greedy import Greedy
from regard.engine.search.independent import IndependentSearch
from regard.engine.search.options import GenerationOptions
from regard.engine.search.rules import Rules, processors_of
from regard.manifest import GenerationSpec

Search = Greedy | BeamSearch | IndependentSearch


def search_of(options: GenerationOptions, spec: GenerationSpec) -> Search:
    """Return a request's search; it takes as many rows as its options are wide."""
    rules, processors = Rules.of(options, spec), processors_of(options, spec)
    if options.num_beams > 1:
        return BeamSearch(options, rules, processors)
    if options.width > 1 or options.do_sample or options.suppress_tokens or not processors.constant:
        return IndependentSearch(options, rules, processors)
    return Greedy(rules, spec)
