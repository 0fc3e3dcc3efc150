"""What a request asks of a translation's words: their links, how good they seem, a glossary's terms, copied words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regard.attention.alignment import align
from regard.attention.axes import Passage
from regard.attention.copying import copy_unknowns
from regard.attention.glossary import Glossary, Match, Verdict
from regard.attention.heads import alignment_of, mean_of_heads, tap_name
from regard.attention.health import measure
from regard.attention.quality import Quality, QualityWarning, assess
from regard.engine.request import GeneratedSequence
from regard.errors import InvalidInputError
from regard.manifest import AlignmentSpec, Manifest
from regard.rpc import convert
from regard.rpc.options import tells_scores
from regard.text.codec import TextCodec
from regard.text.terms import Term, read_term
from regard.v1 import glossary_pb2, quality_pb2, translation_pb2

MAX_ENTRIES = 1024
MAX_ALTERNATIVES = 8
MAX_TERM_CHARACTERS = 200

WARNINGS = {
    QualityWarning.UNDER_TRANSLATION: quality_pb2.QUALITY_WARNING_UNDER_TRANSLATION,
    QualityWarning.HALLUCINATION: quality_pb2.QUALITY_WARNING_HALLUCINATION,
    QualityWarning.REPETITION: quality_pb2.QUALITY_WARNING_REPETITION,
}
VERDICTS = {
    Verdict.KEPT: glossary_pb2.GLOSSARY_VERDICT_KEPT,
    Verdict.UNLINKED: glossary_pb2.GLOSSARY_VERDICT_UNLINKED,
    Verdict.MISSING: glossary_pb2.GLOSSARY_VERDICT_MISSING,
}


@dataclass(frozen=True, slots=True)
class WordsOrder:
    """What is told of the words of every sequence; whatever it is, the alignment heads are what tells it."""

    field: str
    """The field of the request that asks for it, or the first of them."""
    spec: AlignmentSpec
    alignment: bool
    quality: bool
    glossary: Glossary | None
    replace_unknowns: bool

    @property
    def tap_names(self) -> frozenset[str]:
        """The taps that the engine is asked for."""
        return frozenset(tap_name(head) for head in self.spec.heads)

    def tell(
        self, codec: TextCodec, sequence: GeneratedSequence, source: Passage, target: Passage
    ) -> tuple[Passage, dict[str, Any]]:
        """Return a sequence's text with what is copied into it, and what its message tells, by field."""
        weights = mean_of_heads(self.spec, sequence.taps)
        copied: Mapping[int, int] = {}
        if self.replace_unknowns and codec.unknown_id is not None:
            target, copied = copy_unknowns(self.spec, weights, source, target, codec.unknown_id)
        alignment = align(self.spec, weights, source, target, sequence.log_probabilities, copied)
        told: dict[str, Any] = {}
        if self.alignment:
            told["alignment"] = convert.alignment(alignment)
        if self.quality:
            sinks, special = ([segment.special for segment in one.segments] for one in (source, target))
            health = measure(weights, sequence.token_ids, sinks, special)
            spoken = [segment.token_id for segment in source.segments if not segment.special]
            told["quality"] = _quality(assess(alignment, health, spoken, sequence.log_probabilities))
        if self.glossary is not None:
            matches = self.glossary.check(source.text, target.text, alignment)
            told["glossary"] = [_match(match, source.text, target.text) for match in matches]
        return target, told


def words_order(
    request: translation_pb2.TranslateRequest | translation_pb2.StreamTranslateRequest, manifest: Manifest
) -> WordsOrder | None:
    """Return what a request asks of its translations' words; None if it asks for nothing.

    Markup needs the alignment, too. Raises `InvalidInputError`, naming the field, for a package that was
    not calibrated, for a glossary that can't be checked, and for what tells of scores that the request does without.
    """
    marked = replace_unknowns = False
    if isinstance(request, translation_pb2.TranslateRequest):  # a stream has no field for what needs its end
        marked, replace_unknowns = convert.markup_of(request.markup) is not None, request.replace_unknowns
    asked = {
        "markup": marked,
        "alignment": request.alignment,
        "quality": request.quality,
        "glossary": len(request.glossary) > 0,
        "replace_unknowns": replace_unknowns,
    }
    field = next((name for name, wanted in asked.items() if wanted), None)
    if field is None:
        return None
    sure = next((name for name in ("alignment", "quality") if asked[name]), None)
    if sure is not None and not tells_scores(request.generation):
        raise InvalidInputError(
            f"generation.return_scores can't be false with {sure}, which tells how sure the model was of each word",
            field="generation.return_scores",
        )
    return WordsOrder(
        field=field,
        spec=alignment_of(manifest, field),
        alignment=marked or request.alignment,
        quality=request.quality,
        glossary=_glossary(request.glossary) if request.glossary else None,
        replace_unknowns=replace_unknowns,
    )


def _glossary(entries: Sequence[glossary_pb2.GlossaryEntry]) -> Glossary:
    if len(entries) > MAX_ENTRIES:
        raise InvalidInputError(
            f"glossary has {len(entries)} entries; at most {MAX_ENTRIES} are checked: send those that the texts need",
            field="glossary",
        )
    given: Counter[Term] = Counter()
    terms: list[tuple[Term, Term]] = []
    for index, entry in enumerate(entries):
        field = f"glossary[{index}].source"
        source, target = _term(entry.source, field), _term(entry.target, f"glossary[{index}].target")
        given[source] += 1
        if given[source] > MAX_ALTERNATIVES:
            raise InvalidInputError(
                f"{field}: a term has at most {MAX_ALTERNATIVES} entries; a word that ends in * stands for all that "
                "begin with it",
                field=field,
            )
        terms.append((source, target))
    return Glossary(terms)


def _term(text: str, field: str) -> Term:
    if len(text) > MAX_TERM_CHARACTERS:
        raise InvalidInputError(
            f"{field} has {len(text)} characters; a term has at most {MAX_TERM_CHARACTERS}", field=field
        )
    term = read_term(text)
    if not term.parts:
        raise InvalidInputError(f"{field} is empty; give the term that is looked for", field=field)
    return term


def _quality(found: Quality) -> quality_pb2.Quality:
    return quality_pb2.Quality(
        score=found.score,
        warnings=[WARNINGS[warning] for warning in found.warnings],
        uncovered_words=[convert.segment(word) for word in found.uncovered_words],
        coverage=found.coverage,
        confidence=found.confidence,
        repetition=found.repetition,
        attention_entropy=found.health.entropy,
        attention_sink_share=found.health.sink_share,
        attention_repetition=found.health.repeated_positions,
    )


def _match(match: Match, source: str, target: str) -> glossary_pb2.GlossaryMatch:
    return glossary_pb2.GlossaryMatch(
        entry=match.entry,
        expected=match.expected,
        verdict=VERDICTS[match.verdict],
        source=_span(source, *match.source),
        target=_span(target, *match.target) if match.target else None,
        linked_words=[_span(target, word.start, word.end) for word in match.linked_words],
    )


def _span(text: str, start: int, end: int) -> glossary_pb2.GlossarySpan:
    return glossary_pb2.GlossarySpan(text=text[start:end], start=start, end=end)
