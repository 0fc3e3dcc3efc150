"""Between the messages of attributions and what explains an input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from regard.attention.axes import Axis, AxisName
from regard.attention.faithfulness import Faithfulness
from regard.attention.selection import Granularity
from regard.errors import InvalidInputError
from regard.manifest import ImageSpec, Package
from regard.rpc import convert
from regard.rpc.explaining import Explanation, Method, Subject, Wish, default_window
from regard.v1 import attribution_pb2

METHODS = {
    Method.LEAVE_ONE_OUT: attribution_pb2.ATTRIBUTION_METHOD_LEAVE_ONE_OUT,
    Method.OCCLUSION: attribution_pb2.ATTRIBUTION_METHOD_OCCLUSION,
    Method.LAST_LAYER: attribution_pb2.ATTRIBUTION_METHOD_LAST_LAYER,
    Method.ROLLOUT: attribution_pb2.ATTRIBUTION_METHOD_ROLLOUT,
    Method.ALIGNMENT_HEADS: attribution_pb2.ATTRIBUTION_METHOD_ALIGNMENT_HEADS,
}
GRANULARITIES = {one: convert.GRANULARITIES[one] for one in (Granularity.TOKEN, Granularity.WORD)}


def wish_of(options: attribution_pb2.AttributionOptions, image: ImageSpec | None) -> Wish:
    """Return what to tell of inputs that are texts, or images like `image`.

    Raises `InvalidInputError` for a value that no enum has and a stride that leaves gaps.
    """
    methods = convert.several(options.methods, METHODS, "attribution.methods")
    if len(set(methods)) < len(methods):
        raise InvalidInputError("attribution.methods names a method twice; name each once", field="attribution.methods")
    window, stride = options.occlusion_window or default_window(image), options.occlusion_stride or 1
    if stride > window:
        raise InvalidInputError(
            f"attribution.occlusion_stride is {stride}; it must be at most attribution.occlusion_window, "
            f"{window}{'' if options.occlusion_window else ' by default'}, or some parts would never be covered",
            field="attribution.occlusion_stride",
        )
    granularity = Granularity.WORD
    if options.granularity:
        granularity = convert.one_of(options.granularity, GRANULARITIES, "attribution.granularity")
    return Wish(methods, granularity, window, stride, options.faithfulness, options.overlay)


def attributions(
    package: Package, subject: Subject, explanation: Explanation, overlays: Mapping[Method, bytes]
) -> attribution_pb2.Attributions:
    """Return what all methods tell of one input as a message, each with what it looks like over the image, if any."""
    source = Axis(AxisName.SOURCE, subject.parts.segments, grid=subject.parts.grid)
    return attribution_pb2.Attributions(
        source=convert.axis_message(source),
        methods=[
            attribution_pb2.Attribution(
                method=METHODS[method],
                weights=weights.sum(axis=0).tolist(),
                faithfulness=_faithfulness(explanation.faithfulness.get(method)),
                overlay=overlays.get(method, b""),
                target_weights=weights.ravel().tolist() if subject.targets else (),
            )
            for method, weights in explanation.weights.items()
        ],
        random=_faithfulness(explanation.random),
        cover=subject.eraser.cover,
        runs=explanation.runs,
        package_sha256=package.sha256,
        precision=package.manifest.precision,
    )


def _faithfulness(measured: Faithfulness | None) -> attribution_pb2.Faithfulness | None:
    return None if measured is None else attribution_pb2.Faithfulness(**asdict(measured))
