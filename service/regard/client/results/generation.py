"""What models that generate answer with, whatever their task: tokens, sequences and how they align."""

from __future__ import annotations

from collections.abc import Iterable

from regard.answers import Alignment, GeneratedSequence, GeneratedToken, Link, TokenDelta, TokenLogprob
from regard.client.results.attention import read_attention, read_row, read_segment
from regard.client.results.names import read_name
from regard.client.results.quality import read_glossary, read_quality
from regard.v1 import alignment_pb2, generation_pb2


def read_delta(delta: generation_pb2.TokenDelta) -> TokenDelta:
    """Read what a stream adds by one token."""
    return TokenDelta(
        token_id=delta.token_id,
        text=delta.text,
        log_probability=delta.log_probability,
        attention=tuple(map(read_row, delta.attention)),
        safe_to_emit=delta.safe_to_emit if delta.HasField("safe_to_emit") else None,
        source=tuple(map(read_segment, delta.source.segments)),
    )


def read_sequences(sequences: Iterable[generation_pb2.GeneratedSequence]) -> tuple[GeneratedSequence, ...]:
    """Read the sequences behind the best."""
    return tuple(
        GeneratedSequence(
            text=sequence.text,
            finish_reason=read_finish_reason(sequence.finish_reason),
            target_tokens=sequence.target_tokens,
            log_probability=sequence.log_probability,
            score=sequence.score,
            tokens=read_tokens(sequence.tokens),
            attention=read_attention(sequence.attention) if sequence.HasField("attention") else None,
            alignment=read_alignment(sequence.alignment) if sequence.HasField("alignment") else None,
            quality=read_quality(sequence.quality) if sequence.HasField("quality") else None,
            glossary=read_glossary(sequence.glossary),
        )
        for sequence in sequences
    )


def read_alignment(sent: alignment_pb2.Alignment) -> Alignment:
    """Read which words translate which."""
    sources, targets = tuple(map(read_segment, sent.source_words)), tuple(map(read_segment, sent.target_words))
    links = tuple(Link(sources[link.source_word], targets[link.target_word], link.weight) for link in sent.links)
    return Alignment(sources, targets, links, tuple(sent.source_coverage), tuple(sent.target_confidence))


def read_tokens(tokens: Iterable[generation_pb2.GeneratedToken]) -> tuple[GeneratedToken, ...]:
    """Read the tokens of a sequence, each with those that might have come instead."""
    return tuple(
        GeneratedToken(
            token.token_id,
            token.token,
            token.log_probability,
            tuple(TokenLogprob(one.token_id, one.token, one.log_probability) for one in token.top_logprobs),
        )
        for token in tokens
    )


def read_finish_reason(reason: generation_pb2.FinishReason.ValueType) -> str:
    """Return the word for why a sequence ends."""
    return read_name(generation_pb2.FinishReason.Name, reason, "FINISH_REASON_")
