"""Measure word alignment: what the demonstration translator's attention tells, beside what needs no translator.

    python export/training/evaluate_alignment.py --data alignment-hansards-en-fr --models models/

The data's directory holds `enfr.src-tgt` and `enfr.gold`: the 447 pairs of the Canadian Hansards that
people linked for the shared task of Mihalcea & Pedersen 2003. The French side is given to the decoder,
which is never told what is right; heads and method are those of the package, which were chosen on
other pairs and without links that people made. Prints a table and writes `build/results/alignment.json`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console

from load_tests.peers.results import Figure, table_of, write
from regard.manifest import AlignmentHead, AlignmentSpec, load_package
from regard_export.alignment.bitext import Gold, Link, Pair, error_rate, read_bitext, read_gold
from regard_export.alignment.calibration import METHODS, TENSIONS, aligned
from regard_export.alignment.forcing import Forcer
from regard_export.alignment.statistical import links_of

MOST_ENGLISH, MOST_FRENCH = 12, 14
"""The words of a pair that counts as short."""
DIAGONAL = (53.1, 35.8)
MODEL_1 = (30.2, 19.1)
"""What the diagonal and IBM Model 1, trained on the translator's own data, come to: all pairs, and the short."""


def main() -> None:
    """Measure the package's alignment, and what its parts are worth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the directory of enfr.src-tgt and enfr.gold")
    parser.add_argument("--models", type=Path, default=Path("models"), help="where demo-en-fr is")
    parser.add_argument("--bitext", type=Path, default=Path("export/checkpoints/demo-en-fr/bitext.tsv"))
    options = parser.parse_args()

    pairs = read_bitext(options.data / "enfr.src-tgt")
    gold = read_gold(options.data / "enfr.gold", one_indexed=True)
    package = load_package((options.models / "demo-en-fr" / "1").resolve())
    spec = package.manifest.alignment
    if spec is None:
        raise SystemExit("demo-en-fr was not calibrated: make packages")
    forcer = Forcer(package.directory, package.manifest)
    decoded = list(forcer.weights(pairs))
    calibrated = list(aligned(forcer.heads, spec, decoded))
    figures = [
        *_figures("calibrated attention", calibrated, pairs, gold, bars=(DIAGONAL, 2 / 3)),
        *_figures("calibrated attention, IBM Model 1 as the bar", calibrated, pairs, gold, bars=(MODEL_1, 1)),
        *_figures("diagonal", map(_diagonal, pairs), pairs, gold),
        *_figures(
            "aligner of the calibration, these pairs among its bitext",
            _statistical(pairs, options.bitext),
            pairs,
            gold,
        ),
    ]
    for name, other in _parts(forcer.heads, spec):
        figures += _figures(name, aligned(forcer.heads, other, decoded), pairs, gold)
    write("alignment", figures)
    Console().print(table_of(figures, "alignment error rate, %"))


def _figures(
    name: str,
    found: Iterable[set[Link]],
    pairs: Sequence[Pair],
    gold: Sequence[Gold],
    bars: tuple[tuple[float, float], float] | None = None,
) -> list[Figure]:
    links = list(found)
    short = [
        place
        for place, (english, french) in enumerate(pairs)
        if len(english.spans) <= MOST_ENGLISH and len(french.spans) <= MOST_FRENCH
    ]
    figures = []
    for which, (label, places) in enumerate((("all", range(len(pairs))), ("short", short))):
        rate = 100 * error_rate([links[place] for place in places], [gold[place] for place in places])
        bar = round(bars[0][which] * bars[1], 1) if bars else None
        figures.append(Figure(f"{name}, {len(places)} {label}", "%", [rate], bar, limits=True))
    return figures


def _parts(heads: Sequence[AlignmentHead], spec: AlignmentSpec) -> Iterable[tuple[str, AlignmentSpec]]:
    """Yield the calibrated alignment with one thing changed at a time."""
    for method in METHODS:
        for tension in TENSIONS:
            yield f"{method}, tension {tension:g}", spec.model_copy(update={"method": method, "tension": tension})
    for head in heads:
        name = f"layer {head.layer}, head {head.head}, {head.position} alone"
        yield name, spec.model_copy(update={"heads": (head,)})


def _diagonal(pair: Pair) -> set[Link]:
    sources, targets = (len(side.spans) for side in pair)
    return {(round(at * (sources - 1) / max(targets - 1, 1)), at) for at in range(targets)}


def _statistical(pairs: Sequence[Pair], bitext: Path) -> list[set[Link]]:
    """Return the links of the aligner that chose the heads, in the direction from English to French."""
    return links_of([*read_bitext(bitext), *pairs])[-len(pairs) :]


if __name__ == "__main__":
    main()
