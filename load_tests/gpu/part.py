"""One part of the check, in a process of its own: what ends it ends no other part."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import cast

import torch  # noqa: F401 - it brings the CUDA libraries that ONNX Runtime looks for

from load_tests.gpu import parity, service, throughput
from load_tests.gpu.course import Course
from load_tests.peers.results import Figure
from regard.manifest import Provider


def measure(course: Course, kind: str, arguments: list[str]) -> list[Figure]:
    """Return what the part `parity NAME PRECISION`, `service` or `throughput NAME` measures."""
    match kind:
        case "parity":
            return parity.compare(course, *arguments)
        case "service":
            return service.ask(course)
        case "throughput":
            return throughput.measure(course, *arguments)
    raise ValueError(f"there is no part {kind!r}")


def main() -> None:
    """Write the figures of the part to a file: FILE PROVIDER full|quick PART..."""
    file, provider, effort, kind, *arguments = sys.argv[1:]
    found = measure(Course(cast(Provider, provider), quick=effort == "quick"), kind, arguments)
    Path(file).write_text(json.dumps([asdict(each) for each in found]))


if __name__ == "__main__":
    main()
