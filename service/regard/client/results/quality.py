"""How good a translation seems, and what became of a glossary's terms in it."""

from __future__ import annotations

from collections.abc import Iterable

from regard.answers import GlossaryMatch, GlossarySpan, Quality
from regard.client.results.attention import read_segment
from regard.client.results.names import read_name
from regard.v1 import glossary_pb2, quality_pb2


def read_quality(sent: quality_pb2.Quality) -> Quality:
    """Read how good a translation seems."""
    return Quality(
        score=sent.score,
        warnings=tuple(read_name(quality_pb2.QualityWarning.Name, one, "QUALITY_WARNING_") for one in sent.warnings),
        uncovered_words=tuple(map(read_segment, sent.uncovered_words)),
        coverage=sent.coverage,
        confidence=sent.confidence,
        repetition=sent.repetition,
        attention_entropy=sent.attention_entropy,
        attention_sink_share=sent.attention_sink_share,
        attention_repetition=sent.attention_repetition,
    )


def read_glossary(matches: Iterable[glossary_pb2.GlossaryMatch]) -> tuple[GlossaryMatch, ...]:
    """Read what became of each occurrence of a source term."""
    return tuple(
        GlossaryMatch(
            entry=match.entry,
            expected=match.expected,
            verdict=read_name(glossary_pb2.GlossaryVerdict.Name, match.verdict, "GLOSSARY_VERDICT_"),
            source=_span(match.source),
            target=_span(match.target) if match.HasField("target") else None,
            linked_words=tuple(map(_span, match.linked_words)),
        )
        for match in matches
    )


def _span(sent: glossary_pb2.GlossarySpan) -> GlossarySpan:
    return GlossarySpan(sent.text, sent.start, sent.end)
