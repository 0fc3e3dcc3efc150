"""Between the messages of attributions and what explains an input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from regard.attention.axes import Axis, AxisName
from regard.attention.faithfulness import Faithfulness
from regard.attention.knock_out import HeadMap, Heads, heads_of
from regard.attention.selection import AttentionChoice, AttentionKind, AttentionStack, Granularity
from regard.errors import InvalidInputError
from regard.manifest import Manifest, Package
from regard.rpc import convert
from regard.rpc.explaining import Account, Explanation, Method, Subject, Wish, default_window
from regard.v1 import attribution_pb2

METHODS = {
    Method.LEAVE_ONE_OUT: attribution_pb2.ATTRIBUTION_METHOD_LEAVE_ONE_OUT,
    Method.OCCLUSION: attribution_pb2.ATTRIBUTION_METHOD_OCCLUSION,
    Method.LAST_LAYER: attribution_pb2.ATTRIBUTION_METHOD_LAST_LAYER,
    Method.ROLLOUT: attribution_pb2.ATTRIBUTION_METHOD_ROLLOUT,
    Method.ALIGNMENT_HEADS: attribution_pb2.ATTRIBUTION_METHOD_ALIGNMENT_HEADS,
    Method.HEAD_KNOCK_OUT: attribution_pb2.ATTRIBUTION_METHOD_HEAD_KNOCK_OUT,
    Method.VALUE_NORM: attribution_pb2.ATTRIBUTION_METHOD_VALUE_NORM,
}
GRANULARITIES = {one: convert.GRANULARITIES[one] for one in (Granularity.TOKEN, Granularity.WORD)}


def wish_of(options: attribution_pb2.AttributionOptions, manifest: Manifest) -> Wish:
    """Return what to tell of the inputs of a model.

    Raises `InvalidInputError` for a value that no enum has, a stride that leaves gaps and heads that can't be knocked
    out.
    """
    methods = convert.several(options.methods, METHODS, "attribution.methods")
    if len(set(methods)) < len(methods):
        raise InvalidInputError("attribution.methods names a method twice; name each once", field="attribution.methods")
    window, stride = options.occlusion_window or default_window(manifest.image), options.occlusion_stride or 1
    if stride > window:
        raise InvalidInputError(
            f"attribution.occlusion_stride is {stride}; it must be at most attribution.occlusion_window, "
            f"{window}{'' if options.occlusion_window else ' by default'}, or some parts would never be covered",
            field="attribution.occlusion_stride",
        )
    granularity = Granularity.WORD
    if options.granularity:
        granularity = convert.one_of(options.granularity, GRANULARITIES, "attribution.granularity")
    heads = _heads(options, methods, manifest)
    return Wish(methods, granularity, window, stride, options.faithfulness, options.overlay, heads)


def _heads(options: attribution_pb2.AttributionOptions, methods: Sequence[Method], manifest: Manifest) -> Heads | None:
    field = "attribution.heads"
    if Method.HEAD_KNOCK_OUT in methods:
        choice = AttentionChoice(
            kinds=convert.several(options.heads.kinds, convert.KINDS, f"{field}.kinds"),
            stacks=convert.several(options.heads.stacks, convert.STACKS, f"{field}.stacks"),
            layers=convert.each_once(options.heads.layers, f"{field}.layers"),
        )
        return heads_of(choice, manifest, field)
    if options.HasField("heads"):
        raise InvalidInputError(
            f"{field} chooses what head_knock_out takes away; name it in attribution.methods, or leave them out",
            field=field,
        )
    return None


def attributions(
    package: Package, wish: Wish, subject: Subject, explanation: Explanation, overlays: Mapping[Method, bytes]
) -> attribution_pb2.Attributions:
    """Return what all methods tell of one input as a message, each with what it looks like over the image, if any."""
    source, told = Axis(AxisName.SOURCE, subject.parts.segments, grid=subject.parts.grid), explanation.parts
    return attribution_pb2.Attributions(
        source=convert.axis_message(source),
        methods=[
            attribution_pb2.Attribution(
                method=METHODS[method],
                weights=weights.sum(axis=0).tolist(),
                faithfulness=_faithfulness(told.faithfulness.get(method)),
                overlay=overlays.get(method, b""),
                target_weights=weights.ravel().tolist() if subject.targets else (),
            )
            for method, weights in told.weights.items()
        ],
        random=_faithfulness(told.random),
        cover=subject.eraser.cover,
        runs=explanation.runs,
        package_sha256=package.sha256,
        precision=package.manifest.precision,
        heads=_head_attribution(wish.heads, explanation.heads, subject) if wish.heads and explanation.heads else None,
    )


def _head_attribution(heads: Heads, told: Account, subject: Subject) -> attribution_pb2.HeadAttribution:
    (weights,) = told.weights.values()
    return attribution_pb2.HeadAttribution(
        maps=[_head_weights(one, by_target=subject.targets is not None) for one in heads.maps(weights)],
        faithfulness=_faithfulness(told.faithfulness.get(Method.HEAD_KNOCK_OUT)),
        random=_faithfulness(told.random),
    )


def _head_weights(one: HeadMap, *, by_target: bool) -> attribution_pb2.HeadWeights:
    first = one.taps[0]
    return attribution_pb2.HeadWeights(
        kind=convert.KINDS[AttentionKind(first.kind)],
        stack=convert.STACKS[AttentionStack(first.stack)],
        layers=[tap.layer for tap in one.taps],
        heads=first.heads,
        weights=one.weights.sum(axis=0).ravel().tolist(),
        target_weights=one.weights.ravel().tolist() if by_target else (),
    )


def _faithfulness(measured: Faithfulness | None) -> attribution_pb2.Faithfulness | None:
    return None if measured is None else attribution_pb2.Faithfulness(**asdict(measured))
