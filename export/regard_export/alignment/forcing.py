"""Forced decoding: what a package's cross-attention does while its decoder is fed a translation that is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from regard.manifest import AlignmentHead, Manifest, TapSpec, Task
from regard_export.alignment.bitext import Pair, Sentence
from regard_export.errors import ExportError
from regard_export.stepping import Array, Feeds, Stepper, open_session, run

BATCH = 32

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Tokens:
    """The ids of a sentence's tokens, and for each the place of its word; -1 for a special token."""

    ids: list[int]
    words: list[int]


class _Cutter:
    """Cuts the sentences of one side as the service does: what the vocabulary doesn't know is its unknown token.

    `pieces` is a tokenizer whose tokens are looked up in the vocabulary; None if that cuts texts itself.
    """

    def __init__(self, vocabulary: Tokenizer, pieces: Tokenizer | None) -> None:
        self._tokenizer = pieces or vocabulary
        self._id_of: Callable[[str], int] | None = None
        if pieces:
            ids = vocabulary.get_vocab()
            unknown_id = ids[vocabulary.model.unk_token]
            self._id_of = lambda token: ids.get(token, unknown_id)

    def cut(self, sentence: Sentence, *, special: bool) -> _Tokens:
        """Return the tokens of a sentence, and if they shall be `special`, those around it."""
        encoding = self._tokenizer.encode(sentence.text, add_special_tokens=special)
        token_ids = encoding.ids if self._id_of is None else [*map(self._id_of, encoding.tokens)]
        starts = np.array([start for start, _ in sentence.spans])
        words = []
        for (start, end), added in zip(encoding.offsets, encoding.special_tokens_mask, strict=True):
            while start < end and sentence.text[start].isspace():
                start += 1
            words.append(-1 if added else max(int(np.searchsorted(starts, start, "right")) - 1, 0))
        return _Tokens(token_ids, words)


@dataclass(frozen=True)
class Forced:
    """What decoding gave of one pair of token ids, of S source tokens and T target tokens."""

    taps: dict[str, Floats]
    """The weights [heads, T, S] of each tap, by its name."""
    log_probabilities: Floats
    """The natural logarithm of each target token's probability [T]."""


class Forcer:
    """Runs a translator's graphs over sentence pairs and keeps what every head attended to, word by word.

    `heads` are all that there are, at both positions. Raises `ExportError` for a package that has no
    cross-attention to read, or decodes without a cache.
    """

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        text, generation = manifest.text, manifest.generation
        self._taps = _cross_taps(manifest)
        if manifest.task is not Task.TRANSLATION or text is None or generation is None:
            raise ExportError(f"{manifest.name}/{manifest.version} is no translator: there are no words to align")
        if not self._taps or any(state.kind != "kv" for state in manifest.state):
            raise ExportError(f"{manifest.name}/{manifest.version} gives no cross-attention of a decoder with a cache")
        self._text, self._generation = text, generation
        vocabulary = _tokenizer(directory / text.tokenizer_file)
        self._sources, self._targets = (
            _Cutter(vocabulary, _tokenizer(directory / pieces) if pieces else None)
            for pieces in (text.source_pieces_file, text.target_pieces_file)
        )
        graphs = manifest.graphs
        self._encoder = open_session(directory / graphs["encoder"].file)
        self._step = open_session(directory / graphs[graphs["step"].tap_graph or "step"].file)
        self.heads = [
            AlignmentHead(layer=tap.layer, head=head, position=position)
            for tap in self._taps
            for head in range(tap.heads)
            for position in ("output", "input")
        ]

    def weights(self, pairs: Sequence[Pair]) -> Iterator[Floats]:
        """Yield for each pair what each of `heads` gave, [heads, target words, source words].

        Averaged over a target word's tokens, summed over a source word's. Raises `ExportError` for a
        pair that the model's positions can't hold.
        """
        for start in range(0, len(pairs), BATCH):
            yield from self._batch(pairs[start : start + BATCH])

    def fits(self, pair: Pair) -> bool:
        """Tell whether the model's positions hold a pair."""
        source, target = pair
        return self._fit(self._sources.cut(source, special=True), self._target(target))

    def force(self, sources: Sequence[list[int]], targets: Sequence[list[int]]) -> Iterator[Forced]:
        """Yield what decoding gives of each pair of token ids, those of both sides' ends included."""
        for start in range(0, len(sources), BATCH):
            part = slice(start, start + BATCH)
            weights, log_probabilities = self._decode(sources[part], targets[part])
            for row, (source, target) in enumerate(zip(sources[part], targets[part], strict=True)):
                own, heads = weights[:, row, : len(target), : len(source)], 0
                taps = {}
                for tap in self._taps:
                    taps[tap.name] = own[heads : heads + tap.heads]
                    heads += tap.heads
                yield Forced(taps, log_probabilities[row, : len(target)])

    def _batch(self, pairs: Sequence[Pair]) -> Iterator[Floats]:
        sources = [self._sources.cut(source, special=True) for source, _ in pairs]
        targets = [self._target(target) for _, target in pairs]
        self._check_positions(pairs, sources, targets)
        raw, _ = self._decode([tokens.ids for tokens in sources], [tokens.ids for tokens in targets])
        for row, (source, target) in enumerate(pairs):
            rows = raw[:, row, : len(targets[row].ids), : len(sources[row].ids)]
            yield _by_words(rows, targets[row].words, sources[row].words, len(target.spans), len(source.spans))

    def _target(self, sentence: Sentence) -> _Tokens:
        """Return what is decoded: a forced language token, the sentence, and its end."""
        tokens, spec = self._targets.cut(sentence, special=False), self._generation
        forced = [] if spec.forced_bos_token_id is None else [spec.forced_bos_token_id]
        return _Tokens([*forced, *tokens.ids, spec.eos_token_ids[0]], [*(-1 for _ in forced), *tokens.words, -1])

    def _check_positions(self, pairs: Sequence[Pair], sources: Sequence[_Tokens], targets: Sequence[_Tokens]) -> None:
        for (sentence, _), source, target in zip(pairs, sources, targets, strict=True):
            if not self._fit(source, target):
                raise ExportError(
                    f"the pair of {sentence.text[:40]!r} has {len(source.ids)} and {len(target.ids)} tokens; the model "
                    f"takes at most {self._text.max_source_tokens} and writes at most "
                    f"{self._generation.max_target_tokens}: leave it out"
                )

    def _fit(self, source: _Tokens, target: _Tokens) -> bool:
        most = self._text.max_source_tokens or 0
        return len(source.ids) <= most and len(target.ids) <= self._generation.max_target_tokens

    def _decode(self, sources: Sequence[list[int]], targets: Sequence[list[int]]) -> tuple[Floats, Floats]:
        """Return weights [heads, rows, T, S] and log-probabilities [rows, T] of the most tokens of either side.

        There is garbage beyond a row's own tokens.
        """
        ids, lengths = _padded(sources, self._text.pad_token_id)
        feeds: Feeds = {"input_ids": ids, "source_length": lengths}
        cross = {name: array for name, array in run(self._encoder, feeds).items() if name.startswith("cross_")}
        made, _ = _padded(targets, self._text.pad_token_id)
        rows, positions = made.shape
        fed = np.concatenate([np.full((rows, 1), self._generation.start_token_id, np.int64), made[:, :-1]], axis=1)
        outputs = [tap.output for tap in self._taps]
        stepper = Stepper(self._step, rows, lengths, cross, before=positions)
        steps, log_probabilities = [], np.zeros((rows, positions), np.float32)
        for at in range(positions):
            given = stepper.step(fed[:, at], np.full(rows, at, np.int32), np.arange(rows))
            steps.append(np.concatenate([given[output] for output in outputs], axis=1))
            log_probabilities[:, at] = given["logits"][np.arange(rows), made[:, at]] - given["log_sum_exp"][:, 0]
        return np.concatenate(steps, axis=2).swapaxes(0, 1), log_probabilities


def _by_words(
    rows: Floats, targets: Sequence[int], sources: Sequence[int], target_words: int, source_words: int
) -> Floats:
    """Return [2 * heads, target words, source words] of [heads, target tokens, source tokens].

    Each head gives two: at the step that makes a token, and at the one that it is fed to.
    """
    keys = _membership(sources, source_words)
    queries = _membership(targets, target_words)
    queries /= np.maximum(queries.sum(axis=0), 1)
    fed = np.concatenate([rows[:, 1:], rows[:, -1:]], axis=1)
    both = np.stack([rows, fed], axis=1).reshape(-1, *rows.shape[1:])
    pooled: Floats = queries.T @ both @ keys
    return pooled


def _membership(words: Sequence[int], count: int) -> Floats:
    """Return [tokens, words]: 1 where a token is of a word."""
    members = np.zeros((len(words), count), np.float32)
    known = [(token, word) for token, word in enumerate(words) if word >= 0]
    for token, word in known:
        members[token, word] = 1
    return members


def _padded(sequences: Sequence[Sequence[int]], padding: int) -> tuple[Array, Array]:
    lengths = np.array([len(sequence) for sequence in sequences], np.int32)
    padded = np.full((len(sequences), lengths.max()), padding, np.int64)
    for row, sequence in enumerate(sequences):
        padded[row, : len(sequence)] = sequence
    return padded, lengths


def _cross_taps(manifest: Manifest) -> list[TapSpec]:
    return [tap for tap in manifest.taps if tap.kind == "cross" and tap.graph == "step"]


def _tokenizer(file: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True
    return tokenizer
