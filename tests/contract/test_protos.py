"""The API as it is written, and the code generated from it."""

from __future__ import annotations

import runpy
import subprocess
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]
GENERATED = ROOT / "service"


def test_generated_code_is_what_the_protos_give(tmp_path: Path) -> None:
    """`make protos` would change no byte of the generated code."""
    runpy.run_path(str(ROOT / "protos" / "generate.py"))["generate"](tmp_path)

    fresh = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*.py*")}
    committed = {path.relative_to(GENERATED): path.read_bytes() for path in GENERATED.rglob("*_pb2*.py*")}
    committed = {path: code for path, code in committed.items() if "__pycache__" not in path.parts}

    assert sorted(fresh) == sorted(committed)
    assert [path for path, code in fresh.items() if code != committed[path]] == []


def test_protos_follow_the_standard_rules() -> None:
    """`buf lint` finds nothing to say about the protos."""
    buf = Path(sysconfig.get_path("scripts")) / "buf"

    lint = subprocess.run([buf, "lint", ROOT / "protos"], capture_output=True, text=True, check=False)

    assert (lint.returncode, lint.stdout) == (0, "")
