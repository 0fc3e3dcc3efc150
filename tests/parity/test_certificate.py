"""A few rows of the certificate that `make parity` writes: one of each kind of model."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.export.families import UNLISTED

import regard_export

from .certificate import ROWS, Row, certify
from .proof import Proof


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("Blenderbot (in no list)", ("encoder self", "decoder self", "decoder cross")),
        ("ERNIE (in no list)", ("encoder self",)),
        ("classic: hard", ("decoder cross",)),
    ],
)
def test_a_row_holds(name: str, kinds: tuple[str, ...]) -> None:
    """Its logits, tokens and kinds of attention were compared, and all are equal."""
    row = certify(name)
    assert row.failure == ""
    assert set(row.proof.differences) == {"logits", *kinds}
    assert (row.proof.tokens > 1000) == ("decoder cross" in kinds)
    assert row.holds, row.cells


@pytest.mark.parametrize("name", UNLISTED)
def test_no_code_knows_an_unlisted_family(name: str) -> None:
    """Its name is in no file of the export."""
    files = Path(regard_export.__file__).parent.rglob("*.py")
    assert not any(name.lower() in file.read_text("utf-8").lower() for file in files)


@pytest.mark.parametrize(
    "proof",
    [
        Proof({"logits": 2e-4}),
        Proof({"logits": float("inf")}),
        Proof({"logits": 0.0}, tokens=9, joined=1, strays=1),
        Proof({"logits": 0.0}, tokens=9, joined=0),
        Proof({"logits": 0.0}, peaks={"encoder self": [0.1, 0.1, 0.9]}),
    ],
)
def test_a_row_that_strays_fails(proof: Proof) -> None:
    """Differences, tokens, rows that never stood apart, and attention without peaks are no proof."""
    assert not Row("any", proof).holds


def test_a_row_that_cannot_be_made_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reason takes the place of its figures."""

    def broken(_: Path) -> None:
        raise ValueError("no such kind\nsecond line")

    monkeypatch.setitem(ROWS, "broken", broken)  # type: ignore[misc]
    row = certify("broken")
    assert not row.holds
    assert row.failure == "ValueError: no such kind"
