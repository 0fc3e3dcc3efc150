"""Who may import whom: the rooms of the house, and the one-directional way between them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = (ROOT / "service" / "regard", ROOT / "export" / "regard_export")

# cli -> rpc -> worker -> engine -> manifest, errors; text, vision, audio and attention are pure functions between them.
# A room is a module or a package right below `regard`. It may import itself and the rooms named beside it.
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "links": set(),
    "manifest": {"links", "errors"},
    "config": {"errors"},
    "v1": set(),
    "text": {"manifest", "errors"},
    "vision": {"manifest", "errors"},
    "audio": {"manifest", "errors"},
    "attention": {"text", "vision", "audio", "manifest", "errors"},
    "engine": {"config", "manifest", "errors"},
    "loading": {"engine", "config", "manifest", "errors"},
    "outbox": {"engine", "errors"},
    "worker": {"loading", "outbox", "engine", "config", "manifest", "errors"},
    "metrics": {"attention", "engine"},
    "devices": set(),
    "log": {"config"},
    "testing": {"engine", "config", "manifest", "errors"},
    "catalog": {"worker", "metrics", "text", "vision", "audio", "engine", "config", "manifest", "errors"},
    "rpc": {
        "catalog",
        "worker",
        "metrics",
        "attention",
        "text",
        "vision",
        "audio",
        "engine",
        "viewer",
        "v1",
        "config",
        "manifest",
        "errors",
    },
    "answers": set(),
    "viewer": set(),
    "report": {"viewer", "answers", "errors"},
    "client": {"report", "answers", "vision", "v1", "errors"},
    "cli": {
        "client",
        "report",
        "rpc",
        "catalog",
        "worker",
        "metrics",
        "devices",
        "attention",
        "text",
        "vision",
        "log",
        "config",
        "manifest",
        "errors",
    },
}

# Who alone may import what isn't Regard's. Anything else that isn't named here is open to all.
ONLY: dict[str, set[str]] = {
    "onnxruntime": {"regard.engine.session", "regard_export"},
    "grpc": {"regard.rpc", "regard.client", "regard.cli", "regard.v1"},
    "grpc_health": {"regard.rpc", "regard.client", "regard.cli"},
    "grpc_reflection": {"regard.rpc"},
    "google.protobuf": {"regard.rpc", "regard.client", "regard.cli", "regard.v1"},
    "soundfile": {"regard.audio"},
    "soxr": {"regard.audio"},
    "pynvml": {"regard.devices"},
    "prometheus_client": {"regard.metrics", "regard.devices", "regard.rpc.http", "regard.cli.demo"},
    "PIL": {"regard.vision", "regard.viewer.pictures", "regard.cli.pictures", "regard_export"},
    "tokenizers": {"regard.text", "regard_export"},
    "torch": {"regard_export"},
    "transformers": {"regard_export"},
    "onnx": {"regard_export"},
    "onnxscript": {"regard_export"},
    "safetensors": {"regard_export"},
    "sentencepiece": {"regard_export"},
    "regard_export": {"regard_export"},
}

# What a room must do without: threads, clocks and files are handed to it.
NEVER: dict[str, set[str]] = {
    "regard.text": {"asyncio", "threading"},
    "regard.vision": {"asyncio", "threading"},
    "regard.attention": {"asyncio", "threading"},
    "regard.viewer": {"asyncio", "threading", "socket", "time", "datetime"},
    "regard.report": {"asyncio", "threading", "socket", "time", "datetime"},
    "regard.engine.scheduler": {"asyncio", "time", "datetime", "socket", "pathlib"},
    "regard.engine.search": {"asyncio", "threading", "time", "datetime"},
    "regard.engine.generator": {"asyncio", "threading", "queue", "concurrent"},
    "regard.engine.classifier": {"asyncio", "threading", "queue", "concurrent"},
}

FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}


def within(module: str, package: str) -> bool:
    """Tell whether `module` is `package` or below it."""
    return module == package or module.startswith(f"{package}.")


def imports_of(source: str, module: str, *, is_package: bool = False) -> Iterator[str]:
    """Yield every module that `source` imports, wherever in it and by whichever way of writing it."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=origin, names=names, level=level):
                parts = module.split(".")
                base = parts[: len(parts) - level + is_package] if level else []
                prefix = ".".join([*base, *([origin] if origin else [])])
                yield from (f"{prefix}.{name.name}" for name in names)
            case ast.Call(func=ast.Name(id="__import__") | ast.Attribute(attr="import_module"), args=[argument, *_]):
                assert isinstance(argument, ast.Constant), f"{module} imports what can't be known beforehand"
                yield str(argument.value)


def violations(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """List the imports of `source` that the rules forbid to `module`, each with the rule."""
    found = []
    for imported in imports_of(source, module, is_package=is_package):
        for package, importers in ONLY.items():
            if within(imported, package) and not any(within(module, importer) for importer in importers):
                found.append(f"{module} imports {imported}: only {', '.join(sorted(importers))} may")
        for room, banned in NEVER.items():
            if within(module, room) and any(within(imported, package) for package in banned):
                found.append(f"{module} imports {imported}: {room} never does")
        if within(imported, "regard"):
            found += _violations_between_rooms(imported, module)
    return found


def _violations_between_rooms(imported: str, module: str) -> list[str]:
    room = imported.removeprefix("regard").removeprefix(".").partition(".")[0]
    if within(module, "regard_export"):
        return (
            []
            if room in {"manifest", "__version__"}
            else [f"{module} imports {imported}: of regard, only regard.manifest is open"]
        )
    own = module.removeprefix("regard").removeprefix(".").partition(".")[0]
    if own == "" or room in {own, "__version__"}:
        return []
    if room in ROOMS.get(own, set()):
        return []
    return [f"{module} imports {imported}: {own} may import {', '.join(sorted(ROOMS.get(own, set()))) or 'no room'}"]


def modules() -> Iterator[tuple[Path, str]]:
    """Yield every module of both packages: its file and its dotted name."""
    for package in SOURCES:
        for path in sorted(package.rglob("*.py")):
            parts = path.relative_to(package.parent).with_suffix("").parts
            yield path, ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_module_breaks_a_rule() -> None:
    """Every import of the service and of the export goes the way that the rules give."""
    found = [
        violation
        for path, module in modules()
        for violation in violations(path.read_text(), module, is_package=path.name == "__init__.py")
    ]

    assert found == []


def test_every_room_has_its_rule() -> None:
    """A new module or package below `regard` must be entered in the table of rooms."""
    rooms = {module.split(".")[1] for _, module in modules() if within(module, "regard") and "." in module}

    assert rooms - ROOMS.keys() == set()


def test_rooms_form_no_circle() -> None:
    """No room can reach itself through the rooms that it may import."""
    open_rooms = dict(ROOMS)
    while leaves := {room for room, imported in open_rooms.items() if not imported & open_rooms.keys()}:
        open_rooms = {room: imported for room, imported in open_rooms.items() if room not in leaves}

    assert open_rooms == {}


def test_names_say_what_a_module_is() -> None:
    """No module is called by a name that says nothing."""
    assert [module for _, module in modules() if FORBIDDEN_NAMES & set(module.split("."))] == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("regard.worker", "import torch"),
        ("regard.text.codec", "def load():\n    from transformers import AutoTokenizer"),
        ("regard.cli.serve", "import regard_export.cli"),
        ("regard.engine.rows", "import onnxruntime as ort"),
        ("regard.testing", "from onnxruntime import InferenceSession"),
        ("regard.errors", "import grpc"),
        ("regard.attention.maps", "from grpc import aio"),
        ("regard.engine.generator", "import threading"),
        ("regard.engine.scheduler", "from time import monotonic"),
        ("regard.engine.search", "from regard.worker import Worker"),
        ("regard.engine.search", "from ..worker import Worker"),
        ("regard.manifest", "import regard.engine.request"),
        ("regard.manifest", "from regard import engine"),
        ("regard.text.words", "from regard.engine.session import Session"),
        ("regard.attention.maps", "from regard.rpc import convert"),
        ("regard.worker", "from regard.rpc import convert"),
        ("regard.client.channel", "from regard.engine.request import Request"),
        ("regard.report.page", "from regard.client import Client"),
        ("regard.metrics", "if True:\n    import regard.worker"),
        ("regard.nowhere", "import regard.manifest"),
        ("regard_export.graphs", "from regard.errors import PackageError"),
        ("regard_export.graphs", "from regard.engine import session"),
        ("regard.catalog", "import importlib\nimportlib.import_module('torch')"),
        ("regard.catalog", "__import__('onnxruntime')"),
    ],
)
def test_a_planted_violation_is_found(module: str, source: str) -> None:
    """The rules see a forbidden import whichever way it is written."""
    assert violations(source, module) != []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("regard.engine.session", "import onnxruntime as ort"),
        ("regard.engine.generator", "from .rows import Rows"),
        ("regard.rpc.convert", "from regard.attention.maps import build"),
        ("regard.cli.serve", "from regard.rpc.server import serve"),
        ("regard.worker", "import threading\nfrom regard.engine import generator"),
        ("regard_export.graphs", "import torch\nfrom regard.manifest import Manifest"),
        ("regard.client.synchronous", "from regard.report import write_report"),
        ("regard.cli.main", "from regard import __version__"),
    ],
)
def test_the_allowed_way_is_open(module: str, source: str) -> None:
    """The rules let through what the design allows."""
    assert violations(source, module) == []
