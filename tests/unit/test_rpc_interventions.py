"""The interventions of a request, from its messages."""

from __future__ import annotations

import pytest

from regard.errors import InvalidInputError
from regard.rpc.interventions import MAX_PLACES, intervention_order
from regard.v1.intervention_pb2 import Ban, Bias, Intervention, KnockOut, PatchRectangle, SourcePlaces, TextSpan

from .test_attention_interventions import intervenable


def test_the_places_of_a_request_are_counted_together() -> None:
    """Keys and queries of all interventions, before any is looked at, such as an empty span that is one too many."""
    keys = SourcePlaces(positions=range(MAX_PLACES - 3))
    messages = [
        Intervention(knock_out=KnockOut()),
        Intervention(ban=Ban(keys=keys, queries=SourcePlaces(spans=[TextSpan(start=0, end=1)]))),
        Intervention(bias=Bias(value=1.0, keys=SourcePlaces(patches=[PatchRectangle()], positions=[0]))),
    ]
    assert intervention_order(messages, intervenable(), 1 << 20) is not None

    messages[1].ban.queries.spans.add(start=5, end=5)

    with pytest.raises(InvalidInputError, match=r"interventions: .* 1025 .*; at most 1024 are taken") as refused:
        intervention_order(messages, intervenable(), 1 << 20)
    assert refused.value.field == "interventions"
