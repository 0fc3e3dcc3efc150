"""Measure the warnings of a translation's quality, on translations that were corrupted on purpose.

    python export/training/evaluate_quality.py --data fra-eng.zip --models models/

Passages of one, two and three held-out sentences of Tatoeba and their references are sound; a clause is
dropped from them, or dropped while another is said twice, a phrase is repeated, or the translation is
another passage's of the same length. The decoder is made to write each, and the service's own code
judges it. What a threshold would have to be for one in twenty sound passages to fall below it is told of
the development sentences; precision and recall are those of the service's thresholds on the test's, with
as many corrupted passages as sound ones. Prints a table and writes `build/results/quality.json`.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console

import tatoeba
from load_tests.peers.results import Figure, table_of, write
from regard.attention.alignment import align
from regard.attention.axes import Passage
from regard.attention.heads import mean_of_heads
from regard.attention.health import measure
from regard.attention.quality import Quality, QualityWarning, assess
from regard.manifest import load_package
from regard.text.codec import TextCodec
from regard_export.alignment.forcing import Forcer

FALSE_ALARMS = 0.05
MOST_JOINED = 3
LEAST_WORDS = 6
"""The words that a sentence needs to lose a part of it."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """A passage, what the decoder is made to write for it, and where the sentence stands that isn't in there."""

    source: str
    target: str
    dropped: tuple[int, int] | None = None


@dataclass(frozen=True)
class Verdict:
    """What the service tells of a case, beside what needs no attention."""

    case: Case
    quality: Quality
    length_ratio: float
    log_probability: float
    """The mean over the target's tokens."""


Value = Callable[[Verdict], float]
"""What is the less, the worse a translation is."""

FIGURES: dict[QualityWarning, tuple[tuple[str, ...], Value]] = {
    QualityWarning.UNDER_TRANSLATION: (
        ("clause dropped", "clause dropped, another said twice"),
        lambda one: one.quality.coverage,
    ),
    QualityWarning.HALLUCINATION: (("swapped",), lambda one: one.quality.confidence),
    QualityWarning.REPETITION: (("phrase repeated",), lambda one: -one.quality.repetition),
}
"""Each warning: the corruptions that it's for, and its figure."""


class Judge:
    """Makes a package write translations, and judges them as the service does."""

    def __init__(self, directory: Path) -> None:
        package = load_package(directory)
        if package.manifest.alignment is None or package.manifest.generation is None:
            raise SystemExit("demo-en-fr was not calibrated: make packages")
        self._spec, self._end = package.manifest.alignment, package.manifest.generation.eos_token_ids[0]
        self._codec = TextCodec(package)
        self._forcer = Forcer(package.directory, package.manifest)

    def judge(self, cases: Sequence[Case]) -> list[Verdict]:
        """Return what is told of each case."""
        sources = [self._codec.encode(case.source, truncate=False, field="source") for case in cases]
        targets = [[*self._codec.pieces(case.target), self._end] for case in cases]
        forced = self._forcer.force([source.token_ids.tolist() for source in sources], targets)
        verdicts = []
        for case, encoded, token_ids, found in zip(cases, sources, targets, forced, strict=True):
            source = Passage(case.source, encoded.segments)
            target = Passage(*self._codec.segments_of(token_ids))
            weights, log_probabilities = mean_of_heads(self._spec, found.taps), found.log_probabilities.tolist()
            sinks, special = ([segment.special for segment in one.segments] for one in (source, target))
            quality = assess(
                align(self._spec, weights, source, target, log_probabilities),
                measure(weights, token_ids, sinks, special),
                [segment.token_id for segment in source.segments if not segment.special],
                log_probabilities,
            )
            ratio = len(case.target) / len(case.source)
            verdicts.append(Verdict(case, quality, ratio, float(np.mean(log_probabilities))))
        return verdicts


def main() -> None:
    """Judge sound and corrupted passages, and tell how well they can be told apart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="fra-eng.zip")
    parser.add_argument("--models", type=Path, default=Path("models"), help="where demo-en-fr is")
    options = parser.parse_args()

    corpus = tatoeba.load(options.data)
    judge = Judge((options.models / "demo-en-fr" / "1").resolve())
    development = judge.judge(corrupted(corpus.dev)["sound"])
    verdicts = {name: judge.judge(cases) for name, cases in corrupted(corpus.test).items()}
    figures = [Figure("sound passages", "", [len(verdicts["sound"])])]
    for warning, (corruptions, value) in FIGURES.items():
        threshold = abs(float(np.quantile([value(one) for one in development], FALSE_ALARMS)))
        figures.append(Figure(f"{warning}, threshold by the development passages", "", [threshold]))
        for corruption in corruptions:
            figures += _of_warning(warning, corruption, value, verdicts, _usual_length(development))
    figures += _of_words(verdicts["clause dropped"])
    every = [one for name, found in verdicts.items() if name != "sound" for one in found]
    score = _auc([one.quality.score for one in every], [one.quality.score for one in verdicts["sound"]])
    figures.append(Figure("score, any corruption, AUC", "", [score]))
    write("quality", figures)
    Console().print(table_of(figures, "warnings of quality"))


def corrupted(examples: Sequence[tatoeba.Example]) -> dict[str, list[Case]]:
    """Return the sound passages of some sentences, and the corrupted ones by what was done to them."""
    chance = random.Random(1)
    passages = list(_passages(examples))
    cases: dict[str, list[Case]] = {"sound": [Case(" ".join(one), " ".join(other)) for one, other in passages]}
    cases["clause dropped"] = [case for one in passages for case in _without_clause(*one, chance)]
    cases["clause dropped, another said twice"] = [
        Case(case.source, _said_twice(case.target, len(whole.target) - len(case.target), chance), case.dropped)
        for case in cases["clause dropped"]
        for whole in [next(one for one in cases["sound"] if one.source == case.source)]
    ]
    cases["phrase repeated"] = [
        Case(case.source, repeated) for case in cases["sound"] for repeated in _repeated(case.target, chance)
    ]
    by_length = sorted(cases["sound"], key=lambda case: (len(case.target), case.target))
    others = by_length[1:] + by_length[:1]
    cases["swapped"] = [Case(case.source, other.target) for case, other in zip(by_length, others, strict=True)]
    return cases


def _passages(examples: Sequence[tatoeba.Example]) -> Iterator[tuple[list[str], list[str]]]:
    """Yield passages of 1, 2, 3, 1, 2, 3 sentences in turn, each with its first reference."""
    at = 0
    while at < len(examples):
        for length in range(1, MOST_JOINED + 1):
            part = examples[at : at + length]
            if part:
                yield [one.source for one in part], [one.references[0] for one in part]
            at += length


def _without_clause(sources: list[str], targets: list[str], chance: random.Random) -> Iterator[Case]:
    """Yield the passage without one of its sentences' translations; of a single one, without a part of it."""
    whole = " ".join(sources)
    if len(targets) > 1:
        gone = chance.randrange(len(targets))
        start = len(" ".join(sources[:gone])) + (gone > 0)
        kept = " ".join(target for place, target in enumerate(targets) if place != gone)
        yield Case(whole, kept, (start, start + len(sources[gone])))
    elif len(words := targets[0].split()) >= LEAST_WORDS:
        length = chance.randint(len(words) // 3, len(words) // 2)
        start = chance.randrange(len(words) - length + 1)
        yield Case(whole, " ".join(words[:start] + words[start + length :]))


def _said_twice(text: str, missing: int, chance: random.Random) -> str:
    """Return the text with words of its own said again, until it's about `missing` characters longer."""
    words, length = text.split(), len(text) + missing
    while len(text) < length:
        start = chance.randrange(len(words))
        again = words[start : start + 4]
        words[start:start] = again
        text = " ".join(words)
    return text


def _repeated(text: str, chance: random.Random) -> Iterator[str]:
    """Yield the text with a phrase of 2 to 5 words said two to four times, if it has at least 4 words."""
    words = text.split()
    if len(words) >= 4:
        length = chance.randint(2, min(5, len(words) - 1))
        start = chance.randrange(len(words) - length + 1)
        phrase = words[start : start + length]
        yield " ".join(words[:start] + phrase * chance.randint(2, 4) + words[start + length :])


def _of_warning(
    warning: QualityWarning, corruption: str, value: Value, verdicts: dict[str, list[Verdict]], usual: float
) -> Iterator[Figure]:
    bad, sound = verdicts[corruption], verdicts["sound"]
    recall, false = (sum(warning in one.quality.warnings for one in side) / len(side) for side in (bad, sound))
    name = f"{warning}, {corruption}"
    yield Figure(f"{name}: {len(bad)} passages, recall", "%", [100 * recall])
    yield Figure(f"{name}: sound ones warned of", "%", [100 * false])
    yield Figure(f"{name}: precision", "%", [100 * recall / max(recall + false, 1e-9)])
    lengths: dict[QualityWarning, Value] = {
        QualityWarning.UNDER_TRANSLATION: lambda one: one.length_ratio,
        QualityWarning.HALLUCINATION: lambda one: -abs(math.log(one.length_ratio / usual)),
        QualityWarning.REPETITION: lambda one: -one.length_ratio,
    }
    tellers: dict[str, Value] = {
        "its figure": value,
        "length ratio": lengths[warning],
        "log-probability": lambda one: one.log_probability,
        "entropy of attention": lambda one: -one.quality.health.entropy,
    }
    for teller, told in tellers.items():
        yield Figure(f"{name}: AUC by {teller}", "", [_auc([told(one) for one in bad], [told(one) for one in sound])])


def _of_words(dropped: Sequence[Verdict]) -> Iterator[Figure]:
    """Yield how well the uncovered words are those of the sentence that was dropped, punctuation aside."""
    right = named = wanted = 0
    for one in dropped:
        if one.case.dropped is None:
            continue
        start, end = one.case.dropped
        words = [word for word in one.quality.uncovered_words if word.text[0].isalnum()]
        named += len(words)
        right += sum(start <= word.start < end for word in words)
        wanted += sum(part[0].isalnum() for part in one.case.source[start:end].split())
    yield Figure("uncovered words, of a dropped sentence: precision", "%", [100 * right / max(named, 1)])
    yield Figure("uncovered words, of a dropped sentence: recall", "%", [100 * right / max(wanted, 1)])


def _usual_length(verdicts: Sequence[Verdict]) -> float:
    return float(np.median([one.length_ratio for one in verdicts]))


def _auc(bad: Sequence[float], sound: Sequence[float]) -> float:
    """Return how often a corrupted passage has less than a sound one, ties as halves: the area under the ROC curve."""
    below = np.searchsorted(np.sort(bad), sound, side="left")
    upto = np.searchsorted(np.sort(bad), sound, side="right")
    return float((below + upto).sum() / 2 / (len(bad) * len(sound)))


if __name__ == "__main__":
    main()
