"""The weights of a checkpoint on disk: where they are, and whether they are numbers that a model computes with."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open
from transformers import PretrainedConfig

from regard_export.errors import CheckpointError
from regard_export.reading import read

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = {"F64", "F32", "F16", "BF16"}
"""Types of tensors, as safetensors names them, that become float32 without a scale."""


def weight_file(directory: Path, config: PretrainedConfig) -> Path:
    """Return the file of the weights, or the index of several.

    Raises `CheckpointError` if there is none, one is missing, or the weights are quantised.
    """
    quantization = getattr(config, "quantization_config", None)
    if quantization is not None:
        method = dict(quantization).get("quant_method") if isinstance(quantization, dict) else None
        raise _quantized(directory, f"config.json has a quantization_config{f' ({method})' if method else ''}")
    for file in (directory / WEIGHTS, directory / INDEX):
        if file.is_file():
            for part in _parts(directory, file):
                _require_floats(directory, part)
            return file
    raise CheckpointError(f"{directory.name} has no {WEIGHTS}; save it with model.save_pretrained")


def _parts(directory: Path, file: Path) -> list[Path]:
    if file.name != INDEX:
        return [file]
    index = read(directory, file.name, lambda: json.loads(file.read_text("utf-8"))["weight_map"])
    parts = [directory / name for name in sorted(set(index.values()))]
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise CheckpointError(f"{directory.name} has no {missing[0]}, which {file.name} names; download it again")
    return parts


def _require_floats(directory: Path, file: Path) -> None:
    """Raise `CheckpointError` for a weight of another type: cast to float32, it would be a wrong number."""

    def dtypes() -> dict[str, str]:
        with safe_open(file, framework="pt") as tensors:
            return {name: tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118

    for name, dtype in read(directory, file.name, dtypes).items():
        if name.endswith(".weight") and dtype not in FLOATS:
            raise _quantized(directory, f"{file.name} holds {name} as {dtype}")


def _quantized(directory: Path, evidence: str) -> CheckpointError:
    return CheckpointError(
        f"{directory.name} is quantised: {evidence}; export the checkpoint that it was made from, with --precision "
        "int8 for a package in int8"
    )
