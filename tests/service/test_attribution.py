"""AttributeClass, as a caller sees it."""

from __future__ import annotations

import asyncio
import io
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
from PIL import Image

from regard.errors import OutOfMemoryError, QueueFullError
from regard.rpc import class_attribution, erasing, explaining
from regard.rpc.attention import sized
from regard.v1 import attribution_pb2, attribution_pb2_grpc, classification_pb2

from .conftest import Running, Serve
from .scripted_worker import failing_for
from .test_translation import refusal

HELLO = "Hello, world!"


def request_of(*texts: str, **fields: object) -> attribution_pb2.AttributeClassRequest:
    """Return a request for the only classifier; what isn't the request's own field is one of its options."""
    own = {name: fields.pop(name) for name in ("label", "model_name") if name in fields}
    inputs = [classification_pb2.ClassificationInput(text=text) for text in texts]
    return attribution_pb2.AttributeClassRequest(inputs=inputs, attribution=fields, **own)


def picture() -> bytes:
    """Return a PNG file."""
    written = io.BytesIO()
    Image.new("RGB", (9, 6), "red").save(written, "PNG")
    return written.getvalue()


def stub_of(running: Running) -> attribution_pb2_grpc.AttributionServiceAsyncStub:
    """Return a stub on the channel."""
    return attribution_pb2_grpc.AttributionServiceStub(running.channel)


async def test_every_method_weighs_every_word(serve: Serve) -> None:
    """Without options, all methods that there are come, over the words; each altered input is run once."""
    async with serve() as running:
        response = await stub_of(running).AttributeClass(request_of(HELLO))
        seen = running.worker("sorter").seen

    told = response.results[0].attribution.attributions
    assert [segment.text for segment in told.source.segments] == ["Hello", ",", "world", "!"]
    assert [one.method for one in told.methods] == [1, 2, 3, 4]
    assert all(len(one.weights) == 4 and not one.HasField("faithfulness") for one in told.methods)
    assert told.runs == len(seen) == 1 + 4 + 3
    assert not told.HasField("random")
    assert running.metric("regard_inputs_total", model="sorter", version="1", task="attribution", code="OK") == 1


async def test_faithfulness_comes_when_it_is_asked_for(serve: Serve) -> None:
    """Every method has its own, and random orders stand beside; sets that several need are run once."""
    async with serve() as running:
        request = request_of(HELLO, methods=[1, 3], faithfulness=True)
        response = await stub_of(running).AttributeClass(request)
        seen = running.worker("sorter").seen

    told = response.results[0].attribution.attributions
    assert all(one.HasField("faithfulness") for one in told.methods) and told.HasField("random")
    assert told.runs == len(seen) <= 1 + (2**4 - 1)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"label": "hello"}, "label"),
        ({"methods": [1, 9]}, "attribution.methods[1]"),
        ({"methods": [2, 2]}, "attribution.methods"),
        ({"granularity": 7}, "attribution.granularity"),
        ({"occlusion_window": 2, "occlusion_stride": 3}, "attribution.occlusion_stride"),
        ({"occlusion_stride": 3}, "attribution.occlusion_window, 2 by default"),
        ({"methods": [6]}, "export it again with regard-export --interventions"),
        ({"methods": [6], "heads": {"kinds": [2]}}, "attribution.heads.kinds: the model gives no cross attention"),
        ({"methods": [6], "heads": {"layers": [7]}}, "attribution.heads.layers: there is no layer 7"),
        ({"heads": {"layers": [0]}}, "attribution.heads chooses what head_knock_out takes away"),
        ({"model_name": "echo"}, "TranslationService"),
    ],
)
async def test_what_cannot_be_asked_is_refused_by_its_name(serve: Serve, fields: dict[str, object], field: str) -> None:
    """The whole request is refused, before the model has run."""
    async with serve() as running:
        code, details = await refusal(stub_of(running).AttributeClass(request_of(HELLO, **fields)))
        assert not running.worker("sorter").seen

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert field in details


async def test_a_long_label_is_quoted_in_part(serve: Serve) -> None:
    """What there is to do about it is then told, too."""
    async with serve() as running:
        _, details = await refusal(stub_of(running).AttributeClass(request_of(HELLO, label="x" * 10**6)))

    assert f"has no class '{'x' * 100}…'; ListModels tells" in details


async def test_a_stride_alone_is_that_of_the_default_window(serve: Serve) -> None:
    """Four words are covered two by two."""
    async with serve() as running:
        response = await stub_of(running).AttributeClass(request_of(HELLO, methods=[2], occlusion_stride=2))

    assert response.results[0].attribution.attributions.runs == 1 + 2


async def test_too_many_runs_are_refused_with_their_number(serve: Serve) -> None:
    """The limit is of each input by itself, and the input is run once at most."""
    async with serve(max_attribution_runs=8) as running:
        request = request_of(HELLO, "the cat the cat the cat", methods=[1, 2])
        response = await stub_of(running).AttributeClass(request)

    assert response.results[0].attribution.attributions.runs == 8
    failure = response.results[1].failure
    assert failure.field == "inputs[1]"
    assert "6 parts take 12 runs of the model; the most for one input is 8" in failure.message


async def test_runs_leave_room_in_the_queue(serve: Serve) -> None:
    """However many runs an input takes, no more are under way than fill two batches."""
    async with serve(engine={"max_rows": 2}) as running:
        worker = running.worker("sorter")
        worker.capacity = 4
        response = await stub_of(running).AttributeClass(request_of("the cat " * 6, faithfulness=True))

    assert response.results[0].HasField("attribution")
    assert worker.refused == 0


async def test_a_run_that_finds_the_queue_full_waits(serve: Serve) -> None:
    """It is run again while the call lasts, and nothing of the input is lost; the first of all is refused at once."""
    full = QueueFullError("full", retry_after_s=0.001)
    async with serve() as running:
        worker = running.worker("sorter")
        worker.fail = lambda request: full if len(worker.seen) in {3, 5} else None
        response = await stub_of(running).AttributeClass(request_of(HELLO))
        assert response.results[0].attribution.attributions.runs + 2 == len(worker.seen)

        worker.seen.clear()
        worker.fail = lambda request: full
        code, _ = await refusal(stub_of(running).AttributeClass(request_of(HELLO)))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len(worker.seen) == 1

        worker.fail = lambda request: full if len(worker.seen) > 2 else None
        code, _ = await refusal(stub_of(running).AttributeClass(request_of(HELLO), timeout=0.5))
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_one_failing_run_ends_its_input_and_the_runs_beside_it(serve: Serve) -> None:
    """The error is that of the run; nothing of the input stays inside."""
    async with serve() as running:
        worker = running.worker("sorter")
        whole = len(running.catalog.find("sorter").text.encode(HELLO, truncate=False, field="text").token_ids)
        worker.fail = failing_for(whole - 1, OutOfMemoryError("no room"))
        code, _ = await refusal(stub_of(running).AttributeClass(request_of(HELLO)))
        await worker.until_inside(0)

    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_caller_who_leaves_takes_every_run_along(serve: Serve) -> None:
    """All runs under way are let go of together."""
    async with serve() as running:
        worker = running.worker("sorter")
        worker.fail = lambda request: worker.steps.clear() if len(worker.seen) == 2 else None
        call = stub_of(running).AttributeClass(request_of("the cat " * 6))
        await asyncio.gather(worker.until_inside(12 + 11), return_exceptions=True)
        call.cancel()
        await worker.until_inside(0)

    assert worker.left_early == 12 + 11


async def test_an_image_is_erased_and_measured_beside_the_event_loop(
    serve: Serve, galleries: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regions, altered pixels, credit and curves are all made in the threads."""
    seen: dict[str, set[int]] = {}

    def watch(owner: object, name: str) -> None:
        watched = getattr(owner, name)

        def noting(*args: Any) -> Any:
            seen.setdefault(name, set()).add(threading.get_ident())
            return watched(*args)

        monkeypatch.setattr(owner, name, noting)

    watch(class_attribution, "eraser_of")
    watch(erasing.ImageEraser, "without")
    for name in ("squares", "regions_of", "credit", "faithfulness"):
        watch(explaining, name)
    request = attribution_pb2.AttributeClassRequest(
        inputs=[classification_pb2.ClassificationInput(image=picture())],
        attribution={"methods": [2], "faithfulness": True},
    )
    async with serve(galleries) as running:
        response = await stub_of(running).AttributeClass(request)

    assert response.results[0].HasField("attribution")
    assert set(seen) == {"eraser_of", "without", "squares", "regions_of", "credit", "faithfulness"}
    assert all(threading.get_ident() not in threads for threads in seen.values())


async def test_what_is_drawn_over_images_has_room_in_its_response(serve: Serve, galleries: Path) -> None:
    """An image whose overlays don't fit beside those of the others fails by itself, with their size and the limit."""
    request = attribution_pb2.AttributeClassRequest(
        inputs=[classification_pb2.ClassificationInput(image=picture())] * 3,
        attribution={"methods": [2], "overlay": True},
    )
    async with serve(galleries) as running:
        response = await stub_of(running).AttributeClass(request)
    (size,) = {len(result.attribution.attributions.methods[0].overlay) for result in response.results}

    async with serve(galleries, max_attention_bytes=3 * size - 1) as running:
        response = await stub_of(running).AttributeClass(request)
    (failed,) = [index for index, result in enumerate(response.results) if result.HasField("failure")]
    failure = response.results[failed].failure
    assert (failure.field, failure.code) == (f"inputs[{failed}].image", grpc.StatusCode.INVALID_ARGUMENT.value[0])
    assert f"comes to {sized(size)}, and of the {sized(3 * size - 1)}" in failure.message
    assert f"{sized(size - 1)} are left" in failure.message


async def test_an_image_has_no_part_that_can_be_left_out(serve: Serve, galleries: Path) -> None:
    """Leave-one-out is refused for its patches, with the methods that there are."""
    request = attribution_pb2.AttributeClassRequest(
        inputs=[classification_pb2.ClassificationInput(image=picture())], attribution={"methods": [1]}
    )
    async with serve(galleries) as running:
        response = await stub_of(running).AttributeClass(request)

    failure = response.results[0].failure
    assert failure.field == "attribution.methods"
    assert "there are occlusion" in failure.message
