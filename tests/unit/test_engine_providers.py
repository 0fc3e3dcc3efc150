"""Execution providers: which one is taken, what is told, and what ONNX Runtime itself says of a graph."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnxruntime as ort
import pytest

from regard.config import EngineSettings
from regard.engine import moves
from regard.engine.libraries import missing_libraries, needed_libraries
from regard.engine.memory import Device
from regard.engine.providers import ONNX_NAMES, check_placement, choose, device_of, onnx_providers
from regard.engine.session import OnnxSession, why_not
from regard.errors import ConfigurationError, PackageError
from regard.manifest import GraphSpec, ProfileSpec, Provider, TensorSpec

LACKING = "libcublasLt.so.13 can't be loaded"
TENSORRT_FIRST: tuple[Provider, ...] = ("tensorrt", "cuda", "cpu")
WhyNot = Callable[[Provider], str | None]


def lacking(*providers: Provider) -> WhyNot:
    """Return a machine that lacks these."""
    return lambda provider: LACKING if provider in providers else None


def test_auto_takes_the_best_that_is_there() -> None:
    """Of those that a graph was exported for, the first."""
    assert choose("package a/1", TENSORRT_FIRST, "auto", lacking()).provider == "tensorrt"
    assert choose("package a/1", ("cpu",), "auto", lacking("cuda")).provider == "cpu"


def test_auto_tells_what_it_passes_over() -> None:
    """Every better provider, with what keeps it away."""
    choice = choose("package a/1", TENSORRT_FIRST, "auto", lacking("tensorrt", "cuda"))

    assert choice.provider == "cpu"
    assert choice.passed_over == {"tensorrt": LACKING, "cuda": LACKING}


def test_a_package_is_refused_where_none_of_its_providers_is() -> None:
    """By its name, with what is missing, how to get it and what else to choose."""
    with pytest.raises(PackageError) as caught:
        choose("package a/1", ("cuda",), "auto", lacking("cuda"))

    assert caught.value.message == (
        f"package a/1 is exported for cuda, and cuda can't be had: {LACKING}. Install what it needs (pip install "
        "'regard[gpu]' on a machine with an NVIDIA GPU and its driver), or choose another with --provider"
    )


@pytest.mark.parametrize(("asked", "extra"), [("cuda", "regard[gpu]"), ("tensorrt", "TensorRT 10")])
def test_a_provider_that_is_asked_for_must_be_there(asked: Provider, extra: str) -> None:
    """Nothing else is taken for it; the message names the library and what to install."""
    with pytest.raises(ConfigurationError) as caught:
        choose("package a/1", TENSORRT_FIRST, asked, lacking("cuda", "tensorrt"))

    assert caught.value.message.startswith(f"provider {asked} can't be had: {LACKING}. ")
    assert extra in caught.value.message


def test_a_package_must_be_exported_for_the_provider_that_is_asked_for() -> None:
    """A graph of fused operators for the CPU is not run on CUDA; the message tells both ways out."""
    with pytest.raises(PackageError) as caught:
        choose("package a/1", ("cpu",), "cuda", lacking())

    assert caught.value.message == (
        "package a/1 is exported for cpu, and provider cuda is asked for: export it again with --target cuda, or "
        "serve it with --provider cpu or auto"
    )


def test_what_tensorrt_can_not_run_stays_on_cuda() -> None:
    """A decoder's step, in a package whose encoder runs on TensorRT."""
    assert choose("package a/1", ("cuda", "cpu"), "tensorrt", lacking()).provider == "cuda"


def test_cuda_is_told_the_device_and_the_limit() -> None:
    """And to multiply float32 as it is, not rounded to TF32."""
    settings = EngineSettings(device_id=1, device_memory_bytes=1 << 30)

    assert onnx_providers("cuda", settings) == [
        ("CUDAExecutionProvider", {"device_id": "1", "use_tf32": "0", "gpu_mem_limit": str(1 << 30)})
    ]
    assert device_of("cuda", settings) == Device("cuda", 1)
    assert device_of("cpu", settings) is None


def test_tensorrt_is_told_the_shapes_and_has_cuda_behind_it() -> None:
    """Letters of a graph's inputs become the sizes of the profile; numbers stay."""
    inputs = (
        TensorSpec(name="input_ids", dtype="int64", shape=("R", "S")),
        TensorSpec(name="pixel_values", dtype="float", shape=("R", 3, 8, 8)),
    )
    profiles = {"R": ProfileSpec(min=1, opt=8, max=64), "S": ProfileSpec(min=1, opt=64, max=512)}
    spec = GraphSpec(file="none", inputs=inputs, outputs=(), operators={}, optimized_operators={}, profiles=profiles)

    (name, told), (behind, _) = onnx_providers("tensorrt", EngineSettings(), spec)

    assert (name, behind) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    assert told == {
        "device_id": "0",
        "trt_profile_min_shapes": "input_ids:1x1,pixel_values:1x3x8x8",
        "trt_profile_opt_shapes": "input_ids:8x64,pixel_values:8x3x8x8",
        "trt_profile_max_shapes": "input_ids:64x512,pixel_values:64x3x8x8",
    }


def test_attention_away_from_its_state_is_refused() -> None:
    """Shapes may be computed on the CPU, attention may not; on the CPU all of it is."""
    operators = {ONNX_NAMES["cuda"]: ["MatMul"], ONNX_NAMES["cpu"]: ["Shape", "GroupQueryAttention", "Shape"]}

    with pytest.raises(PackageError, match=r"step\.onnx: .* GroupQueryAttention on the CPU and not on cuda"):
        check_placement("step.onnx", "cuda", operators)
    check_placement("step.onnx", "cuda", {ONNX_NAMES["cpu"]: ["Shape"]})
    check_placement("step.onnx", "cpu", operators)


def test_a_session_counts_its_nodes_by_provider() -> None:
    """ONNX Runtime tells where it put each of them."""
    session = OnnxSession(moves.copy("float32", 3), EngineSettings())

    assert session.provider == "CPUExecutionProvider"
    assert session.operators == {"CPUExecutionProvider": ["Gather", "ScatterND"] * 3}


def test_a_runtime_for_cpus_has_no_other_provider() -> None:
    """The one that is installed says why."""
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this ONNX Runtime is built for GPUs: make test-gpu-environment tests it")

    assert why_not("cpu", EngineSettings()) is None
    assert why_not("cuda", EngineSettings()) == f"onnxruntime {ort.__version__} is built without it"


def test_a_library_that_is_missing_is_named(tmp_path: Path) -> None:
    """What a shared library asks for is read off its file, and looked for without loading the file."""
    library = next((Path(ort.__file__).parent / "capi").glob("libonnxruntime_providers_shared*.so"))
    broken = tmp_path / "broken.so"
    broken.write_bytes(library.read_bytes().replace(b"libc.so.6\0", b"libz.so.0\0"))

    assert "libc.so.6" in needed_libraries(library)
    assert missing_libraries(library) == []
    assert missing_libraries(broken) == ["libz.so.0"]
    (tmp_path / "libz.so.0").touch()
    assert missing_libraries(broken) == []


@pytest.mark.parametrize(("given", "held"), [({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0")])
def test_onnx_runtime_reports_to_nobody_unless_it_is_asked_to(given: dict[str, str], held: str) -> None:
    """Its telemetry starts with its import, so the variable is set before; who sets it has his way."""
    program = (
        "import os, sys, regard.engine.session\n"
        "assert 'onnxruntime' in sys.modules\n"
        "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"} | given
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)

    assert done.stdout.strip() == held
