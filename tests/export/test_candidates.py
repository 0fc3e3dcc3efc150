"""The best logits, found block by block: bit for bit what ONNX' own operator finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx_ir.tape import Tape

from regard.manifest import load_package
from regard_export.lowering import candidates as rules
from regard_export.lowering.candidates import block_size, candidates, candidates_by_block
from regard_export.package import Options, export

from .checkpoints import save_t5, save_translator

VOCABULARY = 58_101  # 181 blocks of 321
Rule = Callable[[ir.Node, Tape], Sequence[ir.Value]]


@pytest.fixture(scope="module")
def pair() -> tuple[ort.InferenceSession, ort.InferenceSession]:
    """Return what looks at each logit, and what looks at blocks."""
    return _session(candidates, VOCABULARY), _session(candidates_by_block, VOCABULARY)


@pytest.mark.parametrize("count", [1, 2, 8, 50, 181, 182, 500, VOCABULARY])
@pytest.mark.parametrize("decimals", [0, 2, 7])
def test_blocks_give_what_topk_gives(
    pair: tuple[ort.InferenceSession, ort.InferenceSession], decimals: int, count: int
) -> None:
    """Scores and ids are the same for any number of candidates, those among equals included."""
    logits = np.random.default_rng(decimals).standard_normal((3, VOCABULARY)).astype(np.float32).round(decimals)
    _same(pair, logits, count)


@pytest.mark.parametrize("count", [1, 3, 200])
def test_the_best_may_be_anywhere(pair: tuple[ort.InferenceSession, ort.InferenceSession], count: int) -> None:
    """They may all be in one block or at its edges, be equal everywhere, or be ruled out by minus infinity."""
    logits = np.full((6, VOCABULARY), -np.inf, np.float32)
    logits[0, 321:642] = np.arange(321)
    logits[1, [0, 320, 321, 641, 642, VOCABULARY - 1]] = 1
    logits[2] = 4
    logits[3] = np.arange(VOCABULARY)
    logits[4] = -np.arange(VOCABULARY)
    logits[5, ::321] = 2
    _same(pair, logits, count)


def test_a_vocabulary_is_cut_into_equal_blocks_or_not_at_all() -> None:
    """A block has about 256 logits; those of small vocabularies, and of such that nothing divides, are left whole."""
    assert [block_size(vocabulary) for vocabulary in (58_101, 32_128, 250_112, 51_865)] == [321, 251, 256, 253]
    assert [block_size(vocabulary) for vocabulary in (50_257, 256_206, 8191)] == [None, None, None]
    assert _operators(candidates_by_block, 50_257) == ["TopK"]
    assert "ReduceMax" in _operators(candidates_by_block, 58_101)


@pytest.mark.parametrize(("save", "precision"), [(save_translator, "int8"), (save_t5, "fp32")])
def test_a_step_takes_its_candidates_by_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: Callable[[Path], Path], precision: str
) -> None:
    """Where a vocabulary can be cut, the step's graph does so."""
    monkeypatch.setattr(rules, "LEAST_VOCABULARY", 0)
    monkeypatch.setattr(rules, "SMALLEST_BLOCK", 2)
    checkpoint = save(tmp_path / "checkpoint")
    package = load_package(export(checkpoint, tmp_path / "models", Options(name="model", precision=precision)))
    step = onnx.load(str(package.directory / package.manifest.graphs["step"].file), load_external_data=False)
    operators = [node.op_type for node in step.graph.node]
    assert operators.count("TopK") == 3
    assert "GatherND" in operators


def _same(pair: tuple[ort.InferenceSession, ort.InferenceSession], logits: npt.NDArray[np.float32], count: int) -> None:
    whole, cut = (session.run(None, {"logits": logits, "num_candidates": np.array([count])}) for session in pair)
    assert all(np.array_equal(one, other) for one, other in zip(whole, cut, strict=True))
    assert whole[0].shape == (len(logits), count)


def _operators(rule: Rule, vocabulary: int) -> list[str]:
    return [node.op_type for node in _model(rule, vocabulary).graph if node.op_type != "Constant"]


def _session(rule: Rule, vocabulary: int) -> ort.InferenceSession:
    return ort.InferenceSession(
        ir.to_proto(_model(rule, vocabulary)).SerializeToString(), providers=["CPUExecutionProvider"]
    )


def _model(rule: Rule, vocabulary: int) -> ir.Model:
    """Return a graph of nothing but a rule."""
    floats, numbers = ir.TensorType(ir.DataType.FLOAT), ir.TensorType(ir.DataType.INT64)
    logits = ir.Value(name="logits", type=floats, shape=ir.Shape(["N", vocabulary]))
    num_candidates = ir.Value(name="num_candidates", type=numbers, shape=ir.Shape([1]))
    tape = Tape()
    scores, ids = rule(ir.Node("regard", "Candidates", [logits, num_candidates], num_outputs=2), tape)
    for value, name, dtype in ((scores, "candidate_scores", floats), (ids, "candidate_ids", numbers)):
        value.name, value.type, value.shape = name, dtype, ir.Shape(["N", "K"])
    inputs, outputs, opsets = [logits, num_candidates], [scores, ids], {"": 23}
    return ir.Model(ir.Graph(inputs, outputs, nodes=tape.nodes, opset_imports=opsets, name="best"), ir_version=10)
