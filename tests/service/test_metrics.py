"""What /metrics tells after requests of known number."""

from __future__ import annotations

import re

import grpc
from prometheus_client.parser import text_string_to_metric_families

from regard import metrics as metrics_module
from regard.metrics import Metrics
from regard.v1 import translation_pb2

from .conftest import Serve
from .test_classification import request_of as classify_request_of
from .test_health import http
from .test_translation import CAT, HELLO, refusal, request_of

ECHO = {"model": "echo", "version": "1"}
TRANSLATION = {**ECHO, "task": "translation"}


def documented_names() -> set[str]:
    """Return the names in the module's table."""
    return set(re.findall(r"^\| `(regard_\w+)`", metrics_module.__doc__ or "", re.MULTILINE))


def test_the_table_names_every_metric_there_is() -> None:
    """The module's table and the registry agree, and every name has the prefix and a base unit."""
    registered = {
        f"{family.name}_total" if family.type == "counter" else family.name for family in Metrics().registry.collect()
    }

    assert registered == documented_names()
    assert all(name.startswith("regard_") for name in registered)
    assert not [name for name in registered if re.search("_(ms|millis|kb|mb|minutes)", name)]


def test_a_loaded_model_tells_its_instances() -> None:
    """And the threads that each of them has."""
    metrics = Metrics()
    metrics.observer("echo", "1").loaded(4, 2)

    assert metrics.registry.get_sample_value("regard_model_instances", ECHO) == 4
    assert metrics.registry.get_sample_value("regard_model_threads", ECHO) == 2


async def test_every_metric_is_exposed_after_every_kind_of_request(serve: Serve) -> None:
    """No metric of the table is missing from the page, and its labels are bounded by what the server holds."""
    async with serve(attention_health_share=1.0) as running:
        await running.translation.Translate(request_of(CAT, "", attention={}))
        [
            event
            async for event in running.translation.StreamTranslate(translation_pb2.StreamTranslateRequest(texts=[CAT]))
        ]
        await running.classification.Classify(classify_request_of(HELLO))
        await refusal(running.translation.Translate(request_of(CAT, model_name="made-up-by-a-caller")))
        _, page = await http(running, "/metrics")

    families = {family.name: family for family in text_string_to_metric_families(page)}
    sampled = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in families.values()
        if family.samples
    }
    assert sampled >= documented_names()
    assert "made-up" not in page
    labels = {label for family in families.values() for sample in family.samples for label in sample.labels}
    assert labels == {"model", "version", "task", "code", "graph", "le"}


async def test_requests_and_inputs_are_counted_by_code(serve: Serve) -> None:
    """A request counts once, under the code that it ended with; each of its inputs under its own."""
    async with serve() as running:
        response = await running.translation.Translate(request_of(CAT, "", HELLO))
        await refusal(running.translation.Translate(request_of(CAT, generation={"max_new_tokens": 99})))
        await refusal(running.translation.Translate(request_of(CAT, model_name="nobody")))

        assert running.metric("regard_requests_total", **TRANSLATION, code="OK") == 1
        assert running.metric("regard_requests_total", **TRANSLATION, code="INVALID_ARGUMENT") == 1
        unknown = {"model": "", "version": "", "task": "translation", "code": "NOT_FOUND"}
        assert running.metric("regard_requests_total", **unknown) == 1
        assert running.metric("regard_inputs_total", **unknown) == 1
        assert running.metric("regard_request_seconds_count", **TRANSLATION) == 2
        assert running.metric("regard_inputs_total", **TRANSLATION, code="OK") == 2
        assert running.metric("regard_inputs_total", **TRANSLATION, code="INVALID_ARGUMENT") == 1
        served = [result.translation for result in response.results if result.HasField("translation")]
        assert running.metric("regard_input_tokens_total", **TRANSLATION) == sum(one.source_tokens for one in served)
        assert running.metric("regard_generated_tokens_total", **ECHO) == sum(one.target_tokens for one in served)
        assert running.metric("regard_queue_seconds_count", **TRANSLATION) == 2
        assert running.metric("regard_decode_seconds_sum", **TRANSLATION) == 0.006
        assert running.metric("regard_time_to_first_token_seconds_count", **ECHO) == 0


async def test_inputs_of_a_request_that_is_refused_whole_are_counted(serve: Serve) -> None:
    """Each under the code of the refusal: a model that is not ready or has no room, or attention that lies unread."""
    async with serve(max_undelivered_bytes=2) as running:
        worker = running.worker()
        running.server._undelivered.num_bytes = 2
        await refusal(running.translation.Translate(request_of(CAT, attention={})))
        worker.capacity = 0
        await refusal(running.translation.Translate(request_of(CAT, HELLO)))
        worker.ready = False
        await refusal(running.translation.Translate(request_of(CAT, HELLO, CAT)))

        assert running.metric("regard_inputs_total", **TRANSLATION, code="RESOURCE_EXHAUSTED") == 1 + 2
        assert running.metric("regard_inputs_total", **TRANSLATION, code="UNAVAILABLE") == 3


async def test_a_request_of_too_many_inputs_does_not_outweigh_all_others(serve: Serve) -> None:
    """Its inputs are not counted, nor is the model's state asked: the mistake is the caller's, wherever it is tried."""
    async with serve(max_inputs=2) as running:
        running.worker().ready = False
        code, _ = await refusal(running.translation.Translate(request_of(*[CAT] * 3)))

        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert running.metric("regard_requests_total", **TRANSLATION, code="INVALID_ARGUMENT") == 1
        assert running.metric("regard_inputs_total", **TRANSLATION, code="INVALID_ARGUMENT") == 0


async def test_a_stream_tells_its_time_to_the_first_token(serve: Serve) -> None:
    """Each text of a stream is observed once."""
    async with serve() as running:
        request = translation_pb2.StreamTranslateRequest(texts=[CAT, HELLO])
        [event async for event in running.translation.StreamTranslate(request)]

        assert running.metric("regard_time_to_first_token_seconds_count", **ECHO) == 2


async def test_attention_is_counted_only_where_it_was_asked_for(serve: Serve) -> None:
    """A response without attention counts nothing; one with it counts its bytes."""
    async with serve() as running:
        await running.translation.Translate(request_of(CAT))
        assert running.metric("regard_attention_responses_total", **TRANSLATION) == 0
        response = await running.translation.Translate(request_of(CAT, attention={}))

        sent = sum(len(one.weights) for one in response.results[0].translation.attention.maps)
        assert running.metric("regard_attention_responses_total", **TRANSLATION) == 1
        assert running.metric("regard_attention_bytes_total", **TRANSLATION) == sent > 0


async def test_a_cancelled_request_is_counted_as_such(serve: Serve) -> None:
    """A caller that leaves, and a deadline that passes, have codes of their own."""
    async with serve() as running:
        worker = running.worker()
        worker.steps.clear()
        call = running.translation.Translate(request_of(CAT))
        await worker.until_inside(1)
        assert running.metric("regard_requests_in_flight", task="translation") == 1
        call.cancel()
        await worker.until_inside(0)
        await refusal(running.translation.Translate(request_of(CAT), timeout=0.2))
        await worker.until_inside(0)
        worker.steps.set()
        await running.server.stop()

        assert running.metric("regard_requests_total", **TRANSLATION, code="CANCELLED") == 1
        assert running.metric("regard_requests_total", **TRANSLATION, code="DEADLINE_EXCEEDED") == 1
        assert running.metric("regard_requests_in_flight", task="translation") == 0


async def test_runs_of_a_graph_are_observed(serve: Serve) -> None:
    """What the worker tells of its runs is on the page, by graph."""
    async with serve() as running:
        response = await running.translation.Translate(request_of(CAT))

        steps = response.results[0].translation.target_tokens
        assert running.metric("regard_run_rows_count", **ECHO, graph="step") == steps
        assert running.metric("regard_run_rows_bucket", **ECHO, graph="step", le="1.0") == steps
        assert running.metric("regard_run_padded_tokens_total", **ECHO, graph="step") == steps
        assert running.metric("regard_running_rows", **ECHO) == 0
