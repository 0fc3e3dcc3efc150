"""CLINC150: utterances to a voice assistant, sorted into 150 intents or out of scope.

Source: `data/data_full.json` of https://github.com/clinc/oos-eval (Larson et al. 2019,
EMNLP-IJCNLP, https://aclanthology.org/D19-1131; CC BY 3.0). The file brings its own splits:
15,000 / 3,000 / 4,500 utterances of the intents and 100 / 100 / 1,000 out of scope.

Quality is judged as Larson et al. do: out of scope is one more answer, and it is a wrong one for
an utterance in scope.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

OUT_OF_SCOPE = "oos"


@dataclass(frozen=True)
class Utterance:
    """What somebody said, and its intent or `OUT_OF_SCOPE`."""

    text: str
    intent: str


@dataclass(frozen=True)
class Corpus:
    """The three splits as published, each with its out-of-scope utterances last."""

    train: tuple[Utterance, ...]
    validation: tuple[Utterance, ...]
    test: tuple[Utterance, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Every intent and `OUT_OF_SCOPE`, in alphabetical order."""
        return tuple(sorted({utterance.intent for utterance in self.train}))


def load(file: Path) -> Corpus:
    """Read `data_full.json`."""
    splits = json.loads(file.read_text(encoding="utf-8"))

    def split(*names: str) -> tuple[Utterance, ...]:
        return tuple(Utterance(text, intent) for name in names for text, intent in splits[name])

    return Corpus(train=split("train", "oos_train"), validation=split("val", "oos_val"), test=split("test", "oos_test"))


@dataclass(frozen=True)
class Quality:
    """Shares: of those in scope, named rightly; of those out of scope, noticed; of those noticed, rightly so."""

    in_scope_accuracy: float
    out_of_scope_recall: float
    out_of_scope_precision: float

    def __str__(self) -> str:
        return (
            f"in-scope accuracy {self.in_scope_accuracy:.2%}, out-of-scope recall {self.out_of_scope_recall:.2%}, "
            f"precision {self.out_of_scope_precision:.2%}"
        )


def judge(
    probabilities: npt.NDArray[np.float32], expected: npt.NDArray[np.int64], *, out_of_scope: int, threshold: float
) -> Quality:
    """Return the quality of `probabilities` [utterances, classes] against the classes `expected` [utterances].

    `out_of_scope` is the index of that class. It is the answer where it is the likeliest, and
    where no class reaches `threshold`.
    """
    answers = np.where(probabilities.max(axis=1) < threshold, out_of_scope, probabilities.argmax(axis=1))
    outside, noticed = expected == out_of_scope, answers == out_of_scope
    return Quality(
        in_scope_accuracy=float(np.mean(answers[~outside] == expected[~outside])),
        out_of_scope_recall=float(np.mean(noticed[outside])),
        out_of_scope_precision=float(np.mean(outside[noticed])) if noticed.any() else 0.0,
    )
