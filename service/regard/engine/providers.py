"""Execution providers: which one a graph gets, what it is told, and how a refusal reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from regard.config import EngineSettings
from regard.engine.memory import Device
from regard.errors import ConfigurationError, PackageError
from regard.manifest import GraphSpec, Provider

ONNX_NAMES: Mapping[Provider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
ATTENTION_OPERATORS = frozenset({"Attention", "MultiHeadAttention", "GroupQueryAttention", "TensorScatter"})
"""What must not be elsewhere than the rows: they read the state, or write it in place."""

REMEDIES: Mapping[Provider, str] = {
    "cpu": "pip install 'regard[cpu]'",
    "cuda": "pip install 'regard[gpu]' on a machine with an NVIDIA GPU and its driver",
    "tensorrt": "pip install 'regard[gpu]', and NVIDIA's TensorRT 10 beside it",
}


@dataclass(frozen=True)
class Choice:
    """The provider that a graph runs on, and why no better one of those that it was exported for."""

    provider: Provider
    passed_over: Mapping[Provider, str]


def choose(graph: str, ladder: Sequence[Provider], asked: str, why_not: Callable[[Provider], str | None]) -> Choice:
    """Return the provider for a graph that was exported for those of `ladder`, the best first.

    `asked` is the setting; `why_not` tells what keeps a provider from being had, or None. Where
    `tensorrt` is asked for, a graph that only CUDA can run has CUDA. Raises `PackageError`, naming
    the graph, if it wasn't exported for what is asked or for anything that is there, and
    `ConfigurationError` if a provider that is asked for by name isn't there.
    """
    if asked == "auto":
        passed_over: dict[Provider, str] = {}
        for provider in ladder:
            reason = why_not(provider)
            if reason is None:
                return Choice(provider, passed_over)
            passed_over[provider] = reason
        told = "; ".join(f"{provider} can't be had: {reason}" for provider, reason in passed_over.items())
        raise PackageError(f"{graph} is exported for {_either(ladder)}, and {told}. {_remedy(ladder[0])}")
    named = next((one for one in ladder if one == asked or (asked, one) == ("tensorrt", "cuda")), None)
    if named is None:
        raise PackageError(
            f"{graph} is exported for {_either(ladder)}, and provider {asked} is asked for: export it again with "
            f"--target {asked}, or serve it with --provider {ladder[0]} or auto"
        )
    if (reason := why_not(named)) is not None:
        raise ConfigurationError(f"provider {named} can't be had: {reason}. {_remedy(named)}")
    return Choice(named, {})


def device_of(provider: Provider, settings: EngineSettings) -> Device | None:
    """Return the device that holds the rows of a graph on `provider`; None for the host's arrays."""
    return None if provider == "cpu" else Device("cuda", settings.device_id)


def onnx_providers(
    provider: Provider, settings: EngineSettings, spec: GraphSpec | None = None
) -> list[tuple[str, dict[str, str]]]:
    """Return what ONNX Runtime is asked for, in order, with the options of each."""
    if provider == "cpu":
        return [(ONNX_NAMES["cpu"], {})]
    cuda = {"device_id": str(settings.device_id), "use_tf32": "0"}  # a package's fp32 is held to 1e-4
    if settings.device_memory_bytes:
        cuda["gpu_mem_limit"] = str(settings.device_memory_bytes)
    providers = [(ONNX_NAMES["cuda"], cuda)]
    if provider == "tensorrt":
        tensorrt = {"device_id": str(settings.device_id), **(_profiles(spec) if spec else {})}
        providers.insert(0, (ONNX_NAMES["tensorrt"], tensorrt))
    return providers


def check_placement(graph: str, provider: Provider, operators: Mapping[str, Sequence[str]]) -> None:
    """Raise `PackageError` if attention was left to the CPU; `operators` has each provider's node types."""
    if provider == "cpu":
        return
    stray = sorted(ATTENTION_OPERATORS.intersection(operators.get(ONNX_NAMES["cpu"], ())))
    if stray:
        raise PackageError(
            f"{graph}: ONNX Runtime runs its {', '.join(stray)} on the CPU and not on {provider}, away from the rows' "
            "state; export it again for this version of ONNX Runtime"
        )


def _profiles(spec: GraphSpec) -> dict[str, str]:
    """Return the shapes that TensorRT builds its engine for."""
    if not spec.profiles:
        return {}
    options = {}
    for end in ("min", "opt", "max"):
        sizes = {letter: getattr(profile, end) for letter, profile in spec.profiles.items()}
        shapes = ("x".join(str(sizes.get(str(size), size)) for size in tensor.shape) for tensor in spec.inputs)
        named = (f"{tensor.name}:{shape}" for tensor, shape in zip(spec.inputs, shapes, strict=True) if shape)
        options[f"trt_profile_{end}_shapes"] = ",".join(named)
    return options


def _either(ladder: Sequence[Provider]) -> str:
    return " or ".join(ladder)


def _remedy(provider: Provider) -> str:
    return f"Install what it needs ({REMEDIES[provider]}), or choose another with --provider"
