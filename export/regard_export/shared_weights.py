"""The weights of a package's graphs, in files beside them: each once, however many graphs read it."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir
from onnx_ir.external_data import convert_tensors_to_external

ALIGNMENT = 4096
"""Where large weights may begin in their file, in bytes, so that the file can be mapped."""

Content = tuple[int, bytes]
"""What weights hold: how many bytes, and their digest."""


def unite_weights(directory: Path) -> None:
    """Keep what graphs of a directory read from files beside them in one place each, and rewrite those files.

    A decoder's prefill has the weights of its step, an encoder the embedding of its decoder, a graph that takes
    interventions all of its twin's. Weights stay in the first file that has them, in the order of the graphs' names.
    """
    models = {path: ir.load(path) for path in sorted(directory.glob("*.onnx"))}
    values = {value: tensor for model in models.values() for value, tensor in _external(model)}
    contents = {(tensor.location, tensor.offset): _content(tensor) for tensor in values.values()}
    kept: dict[Content, ir.ExternalTensor] = {}
    for tensor in values.values():
        kept.setdefault(contents[tensor.location, tensor.offset], tensor)
    if len(kept) == len(contents):
        return
    places: defaultdict[str, list[Content]] = defaultdict(list)
    for content, tensor in kept.items():
        places[str(tensor.location)].append(content)
    for file, here in places.items():
        moved = convert_tensors_to_external([kept[one] for one in here], directory, file, alignment=ALIGNMENT)
        kept.update(zip(here, moved, strict=True))
    for value, tensor in values.items():
        value.const_value = _moved(tensor, kept[contents[tensor.location, tensor.offset]])
    for path, model in models.items():
        ir.save(model, path)
    for file in {str(tensor.location) for tensor in values.values()} - places.keys():
        (directory / file).unlink()


def _external(model: ir.Model) -> Iterator[tuple[ir.Value, ir.ExternalTensor]]:
    """Give every initializer of a graph, and of its branches, that is in a file beside it."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                yield value, value.const_value


def _content(tensor: ir.ExternalTensor) -> Content:
    return tensor.nbytes, hashlib.blake2b(tensor.tobytes()).digest()


def _moved(tensor: ir.ExternalTensor, place: ir.ExternalTensor) -> ir.ExternalTensor:
    """Return weights as they are in another place of the same bytes."""
    return ir.ExternalTensor(
        place.location,
        place.offset,
        place.length,
        tensor.dtype,
        shape=tensor.shape,
        name=tensor.name,
        base_dir=place.base_dir,
    )
