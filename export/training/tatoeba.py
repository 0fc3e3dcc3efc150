"""The English-French Tatoeba corpus, cleaned and split without leaks.

Source: sentence pairs of https://tatoeba.org, exported by https://www.manythings.org/anki
(CC BY 2.0). The corpus is a list of pairs; one English sentence may have several French
translations and the other way round. Two pairs that share a sentence on either side must land
in the same split, or a test reference would have been seen in training. So pairs are joined into
connected components (over sentences compared without case and punctuation) and whole components
are assigned to a split.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
import zipfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

_SPACE = re.compile(r"\s+")
_SPACED_MARK = re.compile(r"\s*([!?;»])")
_OPENING_MARK = re.compile(r"(«)\s*")
_NOT_WORD = re.compile(r"[\W_]+")

HELD_OUT_COMPONENT_PAIRS = 40
"""Components above this size stay in training: they are chains of everyday phrases."""


@dataclass(frozen=True)
class Example:
    """One English sentence and every French translation of it in the corpus."""

    source: str
    references: tuple[str, ...]


@dataclass(frozen=True)
class Corpus:
    """The three splits. `train` holds pairs; `dev` and `test` hold sentences with references."""

    train: tuple[tuple[str, str], ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]


def clean_source(text: str) -> str:
    """Return English text with compatibility forms and white space made uniform."""
    return _SPACE.sub(" ", unicodedata.normalize("NFKC", text)).strip()


def clean_target(text: str) -> str:
    """Return French text in one typographic convention: a space before ! ? ; and inside « »."""
    text = _SPACED_MARK.sub(r" \1", clean_source(text))
    return _SPACE.sub(" ", _OPENING_MARK.sub(r"\1 ", text)).strip()


def read_pairs(archive: Path) -> list[tuple[str, str]]:
    """Read the distinct (English, French) pairs of `fra-eng.zip`, cleaned, in file order."""
    with zipfile.ZipFile(archive) as opened:
        lines = opened.read("fra.txt").decode("utf-8").splitlines()
    pairs = (line.split("\t")[:2] for line in lines)
    return list(dict.fromkeys((clean_source(en), clean_target(fr)) for en, fr in pairs))


def load(archive: Path, *, dev_sentences: int = 1000, test_sentences: int = 2500) -> Corpus:
    """Split the corpus of `archive` by connected components, deterministically.

    `test` takes whole components, in the order of a hash of their content, until it holds at
    least `test_sentences` distinct English sentences; then `dev` does; the rest is `train`.
    """
    components = _components(read_pairs(archive))
    components.sort(key=lambda pairs: hashlib.sha256(min(pairs)[0].encode()).digest())
    small = [c for c in components if len(c) <= HELD_OUT_COMPONENT_PAIRS]
    large = [c for c in components if len(c) > HELD_OUT_COMPONENT_PAIRS]
    test, rest = _take(small, test_sentences)
    dev, rest = _take(rest, dev_sentences)
    train = tuple(pair for component in rest + large for pair in component)
    return Corpus(train=train, dev=dev, test=test)


def _take(
    components: list[list[tuple[str, str]]], sentences: int
) -> tuple[tuple[Example, ...], list[list[tuple[str, str]]]]:
    examples: list[Example] = []
    for taken, component in enumerate(components):
        if len(examples) >= sentences:
            return tuple(examples), components[taken:]
        references: dict[str, list[str]] = defaultdict(list)
        for source, target in component:
            references[source].append(target)
        examples.extend(Example(source, tuple(refs)) for source, refs in references.items())
    raise ValueError(f"the corpus holds only {len(examples)} sentences in small components")


def _components(pairs: list[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    """Group pairs by union-find over the sentences that they share."""
    parent: dict[str, str] = {}

    def root(node: str) -> str:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for source, target in pairs:
        parent[root("en " + _key(source))] = root("fr " + _key(target))
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for source, target in pairs:
        groups[root("en " + _key(source))].append((source, target))
    return list(groups.values())


def _key(sentence: str) -> str:
    return _NOT_WORD.sub(" ", sentence.casefold()).strip() or sentence
