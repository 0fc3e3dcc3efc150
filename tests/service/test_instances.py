"""A server that chooses its instances, of a real model."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.serving import serving

from regard.client import AsyncClient, Translation
from regard.config import EngineSettings
from regard.engine import full_load
from regard.engine.instances import graphs_of
from regard.engine.splits import Split
from regard.loading import open_session
from regard.manifest import load_package

SENTENCES = (Path(__file__).parents[1] / "parity" / "data" / "sentences.en.txt").read_text("utf-8").splitlines()[:24]
FIGURE = r"[0-9.,]+ tokens/s"


@pytest.fixture(scope="module")
def translator(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a models directory of the demonstration translator alone."""
    models = tmp_path_factory.mktemp("models")
    (models / "demo-en-fr").symlink_to(packages / "demo-en-fr")
    return models


async def translations(models: Path, engine: EngineSettings) -> list[str]:
    """Return a server's translations, all asked for at once."""
    async with serving(models, engine=engine) as address, AsyncClient(address) as client:
        answers = await client.translate_many(SENTENCES)
    return [answer.text for answer in answers if isinstance(answer, Translation)]


async def test_a_server_chooses_its_instances_and_serves_the_same(translator: Path) -> None:
    """It measures one instance of two threads and two of one, says so in one line, and translates as with one."""
    with capture_logs() as logs:
        chosen = await translations(translator, EngineSettings(instances="auto", intra_op_threads=2))
    assert len(chosen) == len(SENTENCES)
    assert chosen == await translations(translator, EngineSettings(intra_op_threads=1))

    (line,) = [entry for entry in logs if entry["event"] == "instances chosen"]
    assert re.fullmatch(f"1 x 2 threads {FIGURE}, 2 x 1 thread {FIGURE}", line["measured"])
    assert (line["model"], line["instances"] * line["intra_op_threads"]) == ("demo-en-fr/1", 2)


@pytest.mark.parametrize("name", ["demo-en-fr", "demo-intent", "demo-scenes", "tiny"])
def test_made_up_requests_are_fit_for_real_models(
    name: str, packages: Path, whisper: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts, images and sound, to be translated, classified, captioned and transcribed: two instances serve them."""
    monkeypatch.setattr(full_load, "ROUND_S", 0)
    package = load_package((whisper[1] if name == "tiny" else packages) / name / "1")
    split, settings = Split(2, 1), EngineSettings(max_rows=4, intra_op_threads=1)
    sessions = {graph: open_session(package, graph, settings) for graph in graphs_of(package.manifest)}

    assert full_load.FullLoad(package.manifest, sessions, split, settings, time.monotonic).serve() > 0
