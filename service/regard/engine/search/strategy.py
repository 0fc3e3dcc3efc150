"""Which search a request's options ask for."""

from __future__ import annotations

from collections.abc import Sequence

from regard.engine.search.beams import BeamSearch
from regard.engine.search.greedy import Greedy
from regard.engine.search.independent import IndependentSearch
from regard.engine.search.options import GenerationOptions
from regard.engine.search.rules import Rules, processors_of
from regard.engine.search.scored import Scored
from regard.manifest import GenerationSpec

Search = Greedy | BeamSearch | IndependentSearch | Scored


def search_of(options: GenerationOptions, spec: GenerationSpec, prompt: Sequence[int]) -> Search:
    """Return the search of a request whose decoder begins with the tokens of `prompt`.

    It takes as many rows as its options are wide.
    """
    if options.target_token_ids:
        return Scored(options.target_token_ids)
    rules, processors = Rules.of(options, spec, prompt), processors_of(options, spec, len(prompt))
    if options.num_beams > 1:
        return BeamSearch(options, rules, processors)
    plain = processors.constant and not (options.suppress_tokens or options.prefix_choices)
    if options.width > 1 or options.do_sample or not plain:
        return IndependentSearch(options, rules, processors)
    return Greedy(rules, spec)
