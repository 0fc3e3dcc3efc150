"""How far scores of `generate()` are from its own, where float32 rounds what it computes in another way otherwise."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from .family import Family
from .reference import Expected
from .verdicts import same_tokens

MULTIPLIED = "beams, never, short"
"""The option set whose penalty multiplies the rounding of a score."""
EAGER, EXACT = "generate()", "generate() in float64"


async def distances(family: Family, requests: int, random: np.random.Generator) -> dict[tuple[str, str], list[float]]:
    """Return how far scores of `MULTIPLIED` are apart that only rounding tells apart, by whose they are.

    The eager model with its cache is compared with itself without, with SDPA if it has that, and in float64; and the
    engine with the eager model in float64. Pairs that end with other tokens are left out.
    """
    eager, exact, fused = family.reference, family.reference.in_float64(), family.reference.with_sdpa()
    found: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for ask in (family.ask(MULTIPLIED, random) for _ in range(requests)):
        answer = await family.answer(ask.source, ask.options)
        searched = {
            EAGER: eager.search(ask.arguments, ask.given),
            EXACT: exact.search(ask.arguments, ask.given),
            "generate() without its cache": eager.search(ask.arguments, {**ask.given, "use_cache": False}),
            "Regard": Expected([answer.best.token_ids], [answer.best.score], []),
        }
        if fused is not None:
            searched["generate() with SDPA"] = fused.search(ask.arguments, ask.given)
        for who, whom in [(one, EXACT if one == "Regard" else EAGER) for one in searched if one != EAGER]:
            one, other = searched[who], searched[whom]
            if same_tokens(one.sequences, other.sequences, family.spec.pad_token_id):
                assert one.scores is not None and other.scores is not None
                found[who, whom].append(float(np.abs(np.subtract(one.scores, other.scores)).max()))
    return dict(found)
