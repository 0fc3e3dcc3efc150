"""The demonstration translator behind a real server: what many callers at once may count on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from regard.catalog import load_catalog
from regard.config import EngineSettings, ServerSettings
from regard.engine.generator import Generator
from regard.engine.memory import Memory, Tensor
from regard.engine.session import Array, Binding, Session
from regard.loading import open_session
from regard.manifest import Package
from regard.metrics import Metrics
from regard.rpc.server import Server
from regard.v1 import attention_pb2, generation_pb2, translation_pb2, translation_pb2_grpc
from regard.worker import Worker

SENTENCES = (Path(__file__).parents[1] / "parity" / "data" / "sentences.en.txt").read_text("utf-8").splitlines()
LONG = "She said that she would come to the station with her brother and that he would wait there. " * 3


@dataclass
class Steps:
    """A step graph that takes its time, and what its runs looked like."""

    session: Session
    seconds: float
    rows: list[int] = field(default_factory=list)

    @property
    def inputs(self) -> frozenset[str]:
        """The graph's inputs."""
        return self.session.inputs

    @property
    def provider(self) -> str:
        """The session's provider."""
        return self.session.provider

    @property
    def memory(self) -> Memory:
        """The session's memory."""
        return self.session.memory

    def run(self, feeds: Mapping[str, Tensor], fetches: Sequence[str]) -> list[Array]:
        """Run as the session does."""
        return self.session.run(feeds, fetches)

    def run_keeping(
        self, feeds: Mapping[str, Tensor], kept: Sequence[str], fetches: Sequence[str]
    ) -> tuple[list[Tensor], list[Array]]:
        """Run as the session does."""
        return self.session.run_keeping(feeds, kept, fetches)

    def bind(self, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor], fetches: Sequence[str]) -> Binding:
        """Bind as the session does, and remember how many rows each run has."""
        return _SlowBinding(self, self.session.bind(inputs, outputs, fetches), len(inputs["token_ids"]))


@dataclass
class _SlowBinding:
    steps: Steps
    binding: Binding
    rows: int

    def run(self) -> list[Array]:
        self.steps.rows.append(self.rows)
        time.sleep(self.steps.seconds)
        return self.binding.run()


@dataclass
class Served:
    """A server of the demonstration packages."""

    stub: translation_pb2_grpc.TranslationServiceAsyncStub
    worker: Worker
    steps: Steps
    server: Server

    @property
    def generator(self) -> Generator:
        """The translator's one instance."""
        (engine,) = self.worker.engines
        assert isinstance(engine, Generator)
        return engine

    async def translate(self, *texts: str, timeout: float | None = None, **fields: Any) -> list[Any]:
        """Translate and return the results."""
        request = translation_pb2.TranslateRequest(texts=texts, **fields)
        return list((await self.stub.Translate(request, timeout=timeout)).results)


ServeReal = Callable[..., AbstractAsyncContextManager[Served]]


@pytest.fixture
def serve_real(packages: Path) -> ServeReal:
    """Return a context manager that serves the demonstration packages: `serve_real(step_s=0.05, max_rows=1)`."""

    @asynccontextmanager
    async def serving(step_s: float = 0.0, **engine: Any) -> AsyncIterator[Served]:
        steps: list[Steps] = []
        workers: list[Worker] = []

        def open_slowly(package: Package, graph: str, settings: EngineSettings) -> Session:
            session = open_session(package, graph, settings)
            if graph != "step":
                return session
            steps.append(Steps(session, step_s))
            return steps[-1]

        def worker_of(package: Package) -> Worker:
            observer = metrics.observer(package.manifest.name, package.manifest.version)
            worker = Worker(package, settings.engine, observer, open_session=open_slowly)
            workers.append(worker)
            return worker

        metrics = Metrics()
        settings = ServerSettings(grpc_port=0, http_port=0, engine=EngineSettings(**engine))
        server = Server(settings, load_catalog([packages], worker_of), metrics)
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
                stub = translation_pb2_grpc.TranslationServiceStub(channel)
                translator = next(w for w in workers if w.package.manifest.name == "demo-en-fr")
                yield Served(stub, translator, steps[0], server)
        finally:
            await server.stop()

    return serving


def texts_of(results: Sequence[Any]) -> list[str]:
    """Return the translations' texts; a failure has none and is told."""
    assert not [result.failure.message for result in results if result.HasField("failure")]
    return [result.translation.text for result in results]


async def test_sixty_four_at_once_are_answered_as_if_one_at_a_time(serve_real: ServeReal) -> None:
    """Mixed lengths from one word to fifty, every other one with attention: the same words and the same maps."""
    texts = [*SENTENCES[:60], "Yes.", "No!", LONG, LONG[:100]]
    attention = attention_pb2.AttentionOptions()

    def options(index: int) -> dict[str, Any]:
        return {"attention": attention} if index % 2 else {}

    async with serve_real() as served:
        alone = [(await served.translate(text, **options(index)))[0] for index, text in enumerate(texts)]
        answers = await asyncio.gather(*(served.translate(t, **options(i)) for i, t in enumerate(texts)))
        together = [results[0] for results in answers]
        assert max(served.steps.rows) > 16
    assert texts_of(together) == texts_of(alone)
    for one, other in zip(alone, together, strict=True):
        maps, others = one.translation.attention.maps, other.translation.attention.maps
        assert len(maps) == len(others)
        for expected, got in zip(maps, others, strict=True):
            assert expected.shape == got.shape
            assert np.allclose(
                np.frombuffer(expected.weights, "<f4"), np.frombuffer(got.weights, "<f4"), rtol=0, atol=1e-5
            )


async def test_the_deltas_of_a_stream_are_the_translation(serve_real: ServeReal) -> None:
    """Several texts interleaved: each one's pieces, put together, are its last event's text."""
    async with serve_real() as served:
        request = translation_pb2.StreamTranslateRequest(texts=SENTENCES[:8])
        pieces, finals = [""] * 8, [""] * 8
        async for event in served.stub.StreamTranslate(request):
            if event.HasField("delta"):
                pieces[event.input_index] += event.delta.text
            else:
                finals[event.input_index] = event.translation.text
        assert pieces == finals == texts_of(await served.translate(*SENTENCES[:8]))


async def test_a_caller_that_leaves_mid_stream_frees_its_row_and_harms_nobody(serve_real: ServeReal) -> None:
    """Of two rows one goes: two steps after the server has heard of it the batch is one row, and it ends well."""
    async with serve_real(step_s=0.1) as served:
        staying = asyncio.create_task(served.translate(LONG))
        call = served.stub.StreamTranslate(translation_pb2.StreamTranslateRequest(texts=[LONG]))
        async for _ in call:  # either may be admitted first
            if served.steps.rows[-1] == 2:
                break
        assert served.steps.rows[-1] == 2
        at = len(served.steps.rows)
        call.cancel()
        while served.worker.running > 1:
            await asyncio.sleep(0.005)
        assert len(served.steps.rows) - at <= 2
        (kept,) = await staying
    async with serve_real() as served:
        assert texts_of([kept]) == texts_of(await served.translate(LONG))


async def test_every_search_is_answered_as_it_was_asked(serve_real: ServeReal) -> None:
    """Several beams, samples, alternatives behind a prefix, and tokens with the likeliest beside them."""
    asked = {
        "beams": generation_pb2.GenerationOptions(num_beams=4, num_return_sequences=3, length_penalty=0.6),
        "samples": generation_pb2.GenerationOptions(do_sample=True, num_return_sequences=2, seed=5, temperature=1.5),
        "alternatives": generation_pb2.GenerationOptions(
            target_prefix="La", alternatives_position=0, num_return_sequences=3
        ),
        "tokens": generation_pb2.GenerationOptions(top_logprobs=2),
    }
    async with serve_real() as served:
        calls = [served.translate("The house is old.", generation=options) for options in asked.values()]
        answers = [result.translation for (result,) in await asyncio.gather(*calls)]
        (again,) = await served.translate("The house is old.", generation=asked["samples"])
    beams, samples, alternatives, tokens = answers
    scores = [beams.score, *(one.score for one in beams.further_sequences)]
    assert len(scores) == 3 and scores == sorted(scores, reverse=True)
    assert beams.score == pytest.approx(beams.log_probability / beams.target_tokens**0.6)
    assert [samples.text, samples.further_sequences[0].text] == [
        again.translation.text,
        again.translation.further_sequences[0].text,
    ]
    beginnings = [alternatives.text, *(one.text for one in alternatives.further_sequences)]
    assert len(set(beginnings)) == 3 and all(text.startswith("La") for text in beginnings)
    assert len(tokens.tokens) == tokens.target_tokens
    assert sum(one.log_probability for one in tokens.tokens) == pytest.approx(tokens.log_probability)
    assert all(one.token_id == one.top_logprobs[0].token_id for one in tokens.tokens)


@pytest.mark.parametrize("beams", [1, 4])
async def test_a_stream_ends_before_its_stop_string(serve_real: ServeReal, beams: int) -> None:
    """The deltas are the text, which ends before the word; the word itself is never sent."""
    options = generation_pb2.GenerationOptions(stop_strings=[" est"], num_beams=beams)
    request = translation_pb2.StreamTranslateRequest(texts=["The house is old."], generation=options)
    async with serve_real() as served:
        events = [event async for event in served.stub.StreamTranslate(request)]
    assert events[-1].translation.text == "La maison"
    assert events[-1].translation.finish_reason == generation_pb2.FINISH_REASON_STOP_STRING
    assert "".join(event.delta.text for event in events[:-1]) == "La maison"


async def test_an_expired_deadline_ends_the_request_and_frees_its_row(serve_real: ServeReal) -> None:
    """The caller hears DEADLINE_EXCEEDED, and the next request is answered."""
    async with serve_real(step_s=0.1, max_rows=1) as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.translate(LONG, timeout=0.5)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        started = len(served.steps.rows)
        (result,) = await served.translate("Yes.", generation=generation_pb2.GenerationOptions(max_new_tokens=2))
        assert result.translation.target_tokens == 2
        assert len(served.steps.rows) - started <= 4


async def test_a_full_queue_refuses_and_answers_the_rest(serve_real: ServeReal) -> None:
    """One runs and one waits; of eight more at least six are RESOURCE_EXHAUSTED, and every other is answered."""
    async with serve_real(step_s=0.05, max_rows=1, max_queue=1) as served:
        running = asyncio.create_task(served.translate("Yes."))
        while served.worker.running < 1:
            await asyncio.sleep(0.001)
        others = (served.translate("Yes.") for _ in range(9))
        outcomes = await asyncio.gather(running, *others, return_exceptions=True)
        refused = [outcome for outcome in outcomes if isinstance(outcome, grpc.aio.AioRpcError)]
        assert {error.code() for error in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert 6 <= len(refused) <= 8
        assert len({tuple(texts_of(o)) for o in outcomes if not isinstance(o, BaseException)}) == 1


async def test_a_row_that_turns_nan_fails_alone(serve_real: ServeReal) -> None:
    """Its caller hears a generic INTERNAL, its neighbour is exact, and so is the next request in its row."""
    async with serve_real(step_s=0.05) as served:
        first = asyncio.create_task(served.translate(LONG))
        while served.worker.running < 1:
            await asyncio.sleep(0.001)
        second = asyncio.create_task(served.translate(LONG))
        while served.steps.rows.count(2) < 2:  # the second step of both: what is poisoned lies in the past
            await asyncio.sleep(0.001)
        for name, buffer in served.generator.lanes[1, False].rows.inputs().items():
            if name.startswith("past_"):
                buffer[0, :, 0] = np.nan
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await first
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        kept = texts_of(await second)
        served.steps.seconds = 0.0
        assert texts_of(await served.translate(LONG, LONG)) == kept * 2
