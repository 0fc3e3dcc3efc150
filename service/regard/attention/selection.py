"""Which attention a request gets: its options against what a package can give."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from regard.attention.encoding import Encoding
from regard.attention.heads import alignment_of, tap_name
from regard.errors import InvalidInputError
from regard.manifest import AlignmentSpec, Manifest, TapSpec


class AttentionKind(StrEnum):
    """Which tokens a layer attends with and to."""

    SELF = "self"
    CROSS = "cross"


class AttentionStack(StrEnum):
    """The stack of layers that a map comes from."""

    ENCODER = "encoder"
    DECODER = "decoder"
    TEXT_ENCODER = "text_encoder"
    IMAGE_ENCODER = "image_encoder"


class Reduction(StrEnum):
    """How the heads of one layer, or those of several, are put together."""

    NONE = "none"
    MEAN = "mean"
    MAX = "max"
    ALIGNMENT_HEADS = "alignment_heads"
    ROLLOUT = "rollout"


class Weighting(StrEnum):
    """What weights are multiplied by."""

    NONE = "none"
    VALUE_NORM = "value_norm"


class Granularity(StrEnum):
    """What one query and one key of a map stand for."""

    TOKEN = "token"
    WORD = "word"
    PATCH = "patch"


@dataclass(frozen=True, slots=True)
class AttentionChoice:
    """What a request asks for. Empty kinds, stacks, layers and heads, and no `top_k`, stand for their defaults."""

    kinds: tuple[AttentionKind, ...] = ()
    stacks: tuple[AttentionStack, ...] = ()
    layers: tuple[int, ...] = ()
    heads: tuple[int, ...] = ()
    reduction: Reduction = Reduction.NONE
    granularity: Granularity = Granularity.TOKEN
    prompt: bool = False
    top_k: int = 0
    encoding: Encoding = Encoding.FLOAT32
    weighting: Weighting = Weighting.NONE


@dataclass(frozen=True, slots=True)
class Selection:
    """What a request gets: a map for each of `maps`, in the manifest's order, of its `heads`; empty for all.

    `taps` are those that the maps are made of, which the engine is asked for: the same, unless a
    reduction goes over layers. `reads_source` is whether the decoder reads the source itself,
    before what it writes. Of every query the `top_k` largest weights are kept, or all if it is 0.
    """

    maps: tuple[TapSpec, ...]
    taps: tuple[TapSpec, ...]
    heads: tuple[int, ...]
    reduction: Reduction
    granularity: Granularity
    top_k: int = 0
    encoding: Encoding = Encoding.FLOAT32
    reads_source: bool = False
    reduced: tuple[TapSpec, ...] = ()
    """The taps, if there are any, whose heads the graph puts together as is asked; each in the place of its own."""
    alignment: AlignmentSpec | None = None
    """How the heads are put together, if the reduction is to the alignment heads; the taps are then theirs."""

    @property
    def tap_names(self) -> frozenset[str]:
        """The names of the taps, as the engine is asked for them."""
        return frozenset(self.given(tap).name for tap in self.taps)

    def given(self, tap: TapSpec) -> TapSpec:
        """Return what the graph gives for one of the `taps`: the same, or what its heads come to."""
        place = (tap.graph, tap.kind, tap.stack, tap.layer)
        return next((one for one in self.reduced if (one.graph, one.kind, one.stack, one.layer) == place), tap)

    def of_stack(self, stack: AttentionStack) -> Selection | None:
        """Return what is chosen of one stack; None if nothing is."""
        maps, taps = (tuple(tap for tap in chosen if tap.stack == stack) for chosen in (self.maps, self.taps))
        return replace(self, maps=maps, taps=taps) if maps else None

    def heads_of(self, tap: TapSpec) -> tuple[int, ...]:
        """Return the heads of `tap` that are chosen, or are its layer's alignment heads, in ascending order."""
        if self.alignment is not None:
            return tuple(sorted({head.head for head in self.alignment.heads if head.layer == tap.layer}))
        return self.heads or tuple(range(tap.heads))


def select(choice: AttentionChoice, manifest: Manifest) -> Selection:
    """Return the taps and heads that `choice` stands for.

    Kinds default to cross, and for a model without it to self, of the decoder if it has one; stacks
    otherwise to all that have those kinds, layers to all, but to the last of a rollout, and heads to
    all. Raises `InvalidInputError` for what the package lacks, naming the field, the value and what
    there is instead.
    """
    if choice.granularity is Granularity.PATCH and manifest.image is None:
        raise _refusal(
            "granularity", f"model {manifest.name} looks at no image, so it has no patches; ask for tokens or words"
        )
    if choice.weighting is not Weighting.NONE:
        _check_weighting(choice, manifest)
    if choice.reduction is Reduction.ALIGNMENT_HEADS:
        return _of_alignment(choice, manifest)
    given = manifest.taps if choice.weighting is Weighting.NONE else manifest.norm_taps
    taps = tuple(tap for tap in given if not tap.of_prompt)
    taps = _of_kinds(choice.kinds, taps) if choice.kinds else _usual(taps)
    if choice.stacks:
        taps = _of_stacks(choice.stacks, taps)
    if choice.layers:
        taps = _of_layers(choice.layers, taps)
    elif choice.reduction is Reduction.ROLLOUT:
        taps = _last(taps)
    if choice.prompt:
        taps = (*_of_prompt(taps, manifest), *taps)
    maps = taps
    if choice.reduction is Reduction.ROLLOUT:
        factors = {factor.name for tap in maps for factor in _factors(tap, manifest)}
        taps = tuple(tap for tap in manifest.taps if tap.name in factors)
    _check_heads(choice.heads, taps)
    return _selection(choice, maps, taps, manifest)


def _check_weighting(choice: AttentionChoice, manifest: Manifest) -> None:
    if choice.reduction in (Reduction.ALIGNMENT_HEADS, Reduction.ROLLOUT):
        raise _refusal(
            "weighting",
            f"{choice.weighting} can't be had with the reduction {choice.reduction}, whose weights sum to 1; "
            "choose another reduction",
        )
    if not manifest.norm_taps:
        raise _refusal(
            "weighting",
            f"model {manifest.name} tells no {choice.weighting}, because its package was exported without; export it "
            "again with regard-export --value-norms, or use another model",
        )


def _selection(
    choice: AttentionChoice, maps: tuple[TapSpec, ...], taps: tuple[TapSpec, ...], manifest: Manifest
) -> Selection:
    return Selection(
        maps,
        taps,
        tuple(sorted(set(choice.heads))),
        choice.reduction,
        choice.granularity,
        choice.top_k,
        choice.encoding,
        manifest.reader == "prefill",
        _reduced(choice, manifest),
    )


def _reduced(choice: AttentionChoice, manifest: Manifest) -> tuple[TapSpec, ...]:
    """Return what the graphs put together as `choice` asks: of all heads, and a maximum before anything is pooled."""
    if (
        choice.heads
        or choice.weighting is not Weighting.NONE
        or (choice.reduction is Reduction.MAX and choice.granularity is not Granularity.TOKEN)
    ):
        return ()
    wanted = "mean" if choice.reduction is Reduction.ROLLOUT else choice.reduction
    return tuple(tap for tap in manifest.reduced_taps if tap.reduction == wanted)


def _usual(taps: Sequence[TapSpec]) -> tuple[TapSpec, ...]:
    """Return what the answer attended with: across, or else in the decoder, or else in the only stack there is."""
    cross = tuple(tap for tap in taps if tap.kind == "cross")
    decoder = tuple(tap for tap in taps if tap.stack == "decoder")
    return cross or decoder or _of_kinds((AttentionKind.SELF,), taps)


def _of_prompt(taps: Sequence[TapSpec], manifest: Manifest) -> list[TapSpec]:
    """Return the taps with which the decoder reads its source, of the layers that were chosen of it."""
    layers = {tap.layer for tap in taps if tap.stack == "decoder"}
    found = [tap for tap in manifest.taps if tap.of_prompt and tap.layer in layers]
    if not found:
        raise _refusal("prompt", f"no decoder reads the source in what is asked for: {_inventory(taps)}")
    return found


def _of_alignment(choice: AttentionChoice, manifest: Manifest) -> Selection:
    spec = alignment_of(manifest, "attention.reduction")
    for name in ("kinds", "stacks", "layers", "heads"):
        if getattr(choice, name):
            raise _refusal(
                name, "can't be chosen with the reduction to alignment heads, which the package names itself"
            )
    names = {tap_name(head) for head in spec.heads}
    taps = tuple(tap for tap in manifest.taps if tap.name in names)
    return replace(_selection(choice, taps[-1:], taps, manifest), alignment=spec)


def _last(taps: Sequence[TapSpec]) -> tuple[TapSpec, ...]:
    """Return the last layer's tap of every kind and stack."""
    deepest: dict[tuple[str, str], int] = {}
    for tap in taps:
        deepest[tap.stack, tap.kind] = max(tap.layer, deepest.get((tap.stack, tap.kind), 0))
    return tuple(tap for tap in taps if tap.layer == deepest[tap.stack, tap.kind])


def _factors(tap: TapSpec, manifest: Manifest) -> list[TapSpec]:
    """Return the taps that a rollout up to `tap` is the product of. Raises `InvalidInputError` if a layer has none."""
    if tap.kind == "self":
        reading = (
            [] if tap.stack != "decoder" or manifest.reader != "prefill" else _layers("prompt.self", tap, manifest)
        )
        return reading if tap.of_prompt else [*reading, *_layers(f"{tap.stack}.self", tap, manifest)]
    whole = max((one for one in manifest.taps if one.stack == "encoder"), key=lambda one: one.layer, default=tap)
    return [
        *_layers("encoder.self", whole, manifest),
        *_layers("decoder.self", tap, manifest),
        *_layers("decoder.cross", tap, manifest),
    ]


def _layers(family: str, deepest: TapSpec, manifest: Manifest) -> list[TapSpec]:
    """Return the taps of a family, such as `encoder.self`, from the first layer to that of `deepest`."""
    given = {tap.name: tap for tap in manifest.taps}
    names = [f"{family}.{layer}" for layer in range(deepest.layer + 1)]
    for name in names:
        if name not in given:
            raise _refusal(
                "reduction",
                f"a rollout multiplies all layers up to its own, and model {manifest.name} gives no {name}; it gives "
                f"{_inventory(manifest.taps)}",
            )
    return [given[name] for name in names]


def _of_kinds(kinds: Sequence[AttentionKind], taps: Sequence[TapSpec]) -> tuple[TapSpec, ...]:
    for kind in kinds:
        if not any(tap.kind == kind for tap in taps):
            raise _refusal("kinds", f"the model gives no {kind} attention, only {_inventory(taps)}")
    return tuple(tap for tap in taps if tap.kind in kinds)


def _of_stacks(stacks: Sequence[AttentionStack], taps: Sequence[TapSpec]) -> tuple[TapSpec, ...]:
    """Return the taps in `stacks`: each stack must have one of the kinds, and each kind must be in one."""
    chosen = tuple(tap for tap in taps if tap.stack in stacks)
    kinds = sorted({tap.kind for tap in taps})
    for stack in stacks:
        if not any(tap.stack == stack for tap in chosen):
            asked = " or ".join(kinds)
            raise _refusal("stacks", f"the {stack} gives no {asked} attention; the model gives {_inventory(taps)}")
    for kind in kinds:
        if not any(tap.kind == kind for tap in chosen):
            asked = " and ".join(stacks)
            raise _refusal("stacks", f"the {asked} gives no {kind} attention; the model gives {_inventory(taps)}")
    return chosen


def _of_layers(layers: Sequence[int], taps: Sequence[TapSpec]) -> tuple[TapSpec, ...]:
    for layer in layers:
        if not any(tap.layer == layer for tap in taps):
            raise _refusal("layers", f"there is no layer {layer} in what is asked for: {_inventory(taps)}")
    return tuple(tap for tap in taps if tap.layer in layers)


def _check_heads(heads: Sequence[int], taps: Sequence[TapSpec]) -> None:
    for tap in taps:
        for head in heads:
            if not 0 <= head < tap.heads:
                where = f"layer {tap.layer} of the {tap.stack}'s {tap.kind} attention"
                raise _refusal("heads", f"there is no head {head} in {where}; it has {_numbers(range(tap.heads))}")


def _refusal(field: str, problem: str) -> InvalidInputError:
    return InvalidInputError(f"attention.{field}: {problem}", field=f"attention.{field}")


def _inventory(taps: Iterable[TapSpec]) -> str:
    """Return what there is, such as `encoder self (layers 0 to 5), decoder cross (layers 0 to 5)`."""
    layers: dict[str, list[int]] = {}
    for tap in taps:
        layers.setdefault(f"{tap.stack} {tap.kind}", []).append(tap.layer)
    return ", ".join(f"{name} (layers {_numbers(sorted(found))})" for name, found in layers.items()) or "none at all"


def _numbers(numbers: Sequence[int]) -> str:
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers))
