"""What an evaluation says of each package."""

from __future__ import annotations

from evaluation.measures import Evaluation, Figure, quality_of
from regard.manifest import QualitySpec


def test_a_package_is_told_what_was_measured_of_it_alone() -> None:
    """Beside what the checkpoint comes to; a figure that others have is not one of its own."""
    figures = [
        Figure("BLEU, greedy", "BLEU", 46.5, {"fp32": 46.5, "int8": 46.25}),
        Figure("chrF, greedy", "chrF", 63.5, {"fp32": 63.5}),
    ]
    found = quality_of(Evaluation(figures, []), "int8")
    assert found == (QualitySpec(measure="BLEU, greedy", unit="BLEU", value=46.25, checkpoint=46.5),)
