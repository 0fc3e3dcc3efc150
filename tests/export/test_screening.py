"""Steps of one row that screen the vocabulary with weights of 4 bits."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest

from regard.config import EngineSettings
from regard.engine.lane import MOST_OF_SCREENED
from regard.loading import open_session
from regard.manifest import GenerationDefaults, Package, load_package
from regard.testing import echo_package
from regard_export import alone as twins
from regard_export.lowering import candidates as rules
from regard_export.package import Options, export
from regard_export.quantization import quantize
from regard_export.screening import BLOCK, MIDDLE, may_screen, pack, screen

from .checkpoints import save_captioner, save_completer, save_t5, save_translator

TOKENS, WIDE, WIDTH, NUM_CANDIDATES, NUM_SCREENED = 5000, 160, 96, 4, 32
OUTPUTS = ["candidate_ids", "candidate_scores", "log_sum_exp", "logits", "hidden"]


class Step:
    """The end of a step in int8: a matrix that narrows, and an output layer that is tied to an embedding."""

    def __init__(
        self,
        directory: Path,
        scale: str,
        *,
        biased: bool = True,
        least: int = 0,
        tied: bool = True,
        by_position: bool = False,
    ) -> None:
        random = np.random.default_rng(0)
        self.embedding = random.standard_normal((TOKENS, WIDTH)).astype(np.float32)
        self.bias = random.standard_normal(TOKENS).astype(np.float32) * (4 if biased else 0)
        self.wide = random.standard_normal((300, WIDE)).astype(np.float32)
        file = directory / f"{scale}-{least}.onnx"
        narrowing = random.standard_normal((WIDE, WIDTH)).astype(np.float32) / WIDE**0.5
        _save(self.embedding, self.bias, narrowing, file, tied=tied, by_position=by_position)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(twins, "screen", functools.partial(screen, least=least))
            alone = file.with_stem(f"{file.stem}_alone")
            self.screens = quantize(file, scale, alone)
        self._plain = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        if self.screens:
            self._alone = ort.InferenceSession(str(alone), providers=["CPUExecutionProvider"])

    def run(self, rows: slice, num_screened: int = 0) -> dict[str, npt.NDArray[np.generic]]:
        """Return what the graph gives, or, if tokens are screened, its twin for a row that is alone."""
        wide = self.wide[rows]
        feeds = {
            "wide": wide,
            "token_ids": np.zeros(len(wide), np.int64),
            "num_candidates": np.array([NUM_CANDIDATES]),
        }
        if not num_screened:
            return dict(zip(OUTPUTS, self._plain.run(OUTPUTS, feeds), strict=True))
        return dict(
            zip(OUTPUTS, self._alone.run(OUTPUTS, feeds | {"num_screened": np.array([num_screened])}), strict=True)
        )


def test_weights_of_4_bits_are_packed_as_the_operator_takes_them() -> None:
    """Two to a byte, the lower first, with a scale for each block; the last block may be short."""
    weights = np.random.default_rng(0).standard_normal((7, BLOCK + 6)).astype(np.float32)
    weights[3] = 0
    packed, scales = pack(weights)
    assert packed.shape == (7, 2, BLOCK // 2)
    unpacked = np.stack([packed & 15, packed >> 4], axis=-1).reshape(7, 2, BLOCK).astype(int) - MIDDLE
    found = (unpacked * scales[..., None]).reshape(7, -1)[:, : BLOCK + 6]
    assert (np.abs(found - weights) <= np.repeat(scales, BLOCK, axis=1)[:, : BLOCK + 6] / 2 + 1e-6).all()
    assert (found[3] == 0).all()


@pytest.mark.parametrize("by_position", [True, False])
@pytest.mark.parametrize("biased", [True, False])
def test_what_is_screened_is_exact(tmp_path: Path, biased: bool, by_position: bool) -> None:
    """Candidates and their scores are those of fp32, and so are all logits that passed; the rest is nearly so."""
    step = Step(tmp_path, "mixed", biased=biased, by_position=by_position)
    for row in range(len(step.wide)):
        got = step.run(slice(row, row + 1), NUM_SCREENED)
        exact = (got["hidden"] @ step.embedding.T + step.bias)[0]
        best = np.argsort(-exact)[:NUM_CANDIDATES]
        assert got["candidate_ids"][0].tolist() == best.tolist()
        assert np.allclose(got["candidate_scores"][0], exact[best], atol=1e-4)
        assert abs(got["log_sum_exp"][0, 0] - np.logaddexp.reduce(exact)) < 0.02
        right = np.isclose(got["logits"][0], exact, atol=1e-4)
        assert NUM_SCREENED <= right.sum() < TOKENS / 10


def test_a_step_with_a_twin_stays_as_it_is(tmp_path: Path) -> None:
    """The graph for any number of rows gives bit for bit what one without a twin does, for one row and for many."""
    step, plain = Step(tmp_path, "mixed"), Step(tmp_path, "mixed", least=1 << 30)
    assert step.screens
    assert not plain.screens
    for rows in (slice(1), slice(2), slice(300)):
        got, expected = step.run(rows), plain.run(rows)
        assert all(np.array_equal(got[name], expected[name]) for name in OUTPUTS)


def test_a_row_that_is_alone_needs_no_scale_of_its_own(tmp_path: Path) -> None:
    """Where the step screens, matrices that narrow take the scale of the batch, which is the row's."""
    step, by_batch = Step(tmp_path, "mixed"), Step(tmp_path, "tensor")
    hidden = step.run(slice(1), NUM_SCREENED)["hidden"]
    assert np.array_equal(hidden, by_batch.run(slice(1))["hidden"])
    assert not np.array_equal(hidden, step.run(slice(1))["hidden"])
    assert np.allclose(hidden, step.run(slice(1))["hidden"], atol=0.1)


@pytest.mark.parametrize("scale", ["tensor", "token"])
def test_only_mixed_scales_screen(tmp_path: Path, scale: str) -> None:
    """An answer that must not depend on what is beside it can't be screened where it is alone."""
    assert not Step(tmp_path, scale).screens


def test_a_layer_without_an_embedding_is_not_screened(tmp_path: Path) -> None:
    """There is nothing to score the best again by."""
    assert not Step(tmp_path, "mixed", tied=False).screens


SAVERS: dict[str, Callable[[Path], Path]] = {
    "Marian": save_translator,
    "BART": lambda at: save_translator(at, "BartForConditionalGeneration"),
    "T5": save_t5,
    "ViT and GPT-2": save_captioner,
    "GPT-2": save_completer,
    "OPT": lambda at: save_completer(at, "OPT"),
}


@pytest.mark.parametrize(("family", "by_block"), [*((family, False) for family in SAVERS), ("Marian", True)])
def test_a_traced_step_screens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, by_block: bool) -> None:
    """A step, as it is exported, finds in 4 bits what it finds in 8, but for what 8 bits lose."""
    if by_block:
        monkeypatch.setattr(rules, "LEAST_VOCABULARY", 0)
        monkeypatch.setattr(rules, "SMALLEST_BLOCK", 2)
    package = _exported(tmp_path, SAVERS[family])
    whole, screened = (_step_of_one_row(package, count) for count in (0, NUM_SCREENED))
    assert np.array_equal(whole["candidate_scores"], -np.sort(-whole["logits"])[:, :NUM_CANDIDATES])
    spread = float(whole["logits"].std())
    assert screened["candidate_ids"][0, 0] == whole["candidate_ids"][0, 0]
    lost = 0.2 if family == "ViT and GPT-2" else 0.1  # whose int8 is 0.3 off fp32 on these random states
    assert np.allclose(screened["candidate_scores"], whole["candidate_scores"], atol=lost * spread)
    assert np.allclose(screened["log_sum_exp"], whole["log_sum_exp"], atol=0.1 * spread)
    assert not np.array_equal(screened["candidate_scores"], whole["candidate_scores"])
    listed = np.take_along_axis(screened["logits"], screened["candidate_ids"], axis=1)
    assert np.array_equal(listed, screened["candidate_scores"])
    assert all(np.allclose(screened[name], whole[name], atol=0.1) for name in whole if name.startswith("present_"))


def test_what_rows_never_screen_is_not_written() -> None:
    """Models that suppress many tokens, or some at first, show too many candidates, or are asked for all logits."""
    spec = echo_package().manifest.generation
    assert spec is not None
    assert may_screen(spec)
    assert not may_screen(None)
    assert not may_screen(spec.model_copy(update={"suppressed_token_ids": tuple(range(MOST_OF_SCREENED))}))
    assert may_screen(spec.model_copy(update={"suppressed_token_ids": tuple(range(MOST_OF_SCREENED - 1))}))
    assert not may_screen(spec.model_copy(update={"defaults": GenerationDefaults(begin_suppress_tokens=(3,))}))


def _exported(directory: Path, save: Callable[[Path], Path]) -> Package:
    """Export a small model whose step has a twin for a row that is alone."""
    checkpoint = save(directory / "checkpoint")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(twins, "screen", functools.partial(screen, least=0))
        return load_package(export(checkpoint, directory / "models", Options(name="model", precision="int8")))


def _step_of_one_row(package: Package, num_screened: int) -> dict[str, npt.NDArray[np.generic]]:
    """Return what the service's session gives of random numbers: one row, three positions in its cache, no weights."""
    manifest = package.manifest
    assert manifest.graphs["step"].lone_graph == "step_alone"
    session = open_session(package, "step", EngineSettings(provider="cpu"))
    random = np.random.default_rng(1)
    sizes = {"N": 1, "R": 1, "P": 8, "S": 5, "K": NUM_CANDIDATES}
    numbers = {"row_length": 3, "total_length": 4, "source_length": 5, "token_ids": 7}
    numbers |= {"num_candidates": NUM_CANDIDATES, "num_screened": num_screened, "scored": True}
    feeds: dict[str, npt.NDArray[np.generic]] = {}
    for spec in manifest.graphs["step_alone"].inputs:
        shape = [size if isinstance(size, int) else sizes.get(size, 0) for size in spec.shape]
        if spec.dtype == "float":
            feeds[spec.name] = random.standard_normal(shape).astype(np.float32)
        else:
            feeds[spec.name] = np.full(shape, numbers.get(spec.name, 0), spec.dtype)
    caches = {state.output: feeds[state.input] for state in manifest.state}
    names = OUTPUTS[:4]
    return caches | dict(zip(names, session.bind(feeds, caches, names).run(), strict=True))


def _save(
    embedding: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    narrowing: npt.NDArray[np.float32],
    file: Path,
    *,
    tied: bool,
    by_position: bool,
) -> None:
    """Write a graph that scores the next token as a step does; `by_position`, products are [N, 1, V]."""
    helper, numbers = onnx.helper, onnx.TensorProto
    node, info = helper.make_node, helper.make_tensor_value_info
    nodes = [
        node("Gather", ["embedding" if tied else "other", "token_ids"], ["embedded"], axis=0),
        node("MatMul", ["wide", "narrowing"], ["narrowed"]),
        node("Add", ["narrowed", "narrowing_bias"], ["hidden"]),
        node("Transpose", ["embedding"], ["transposed"], perm=[1, 0]),
        node("MatMul", ["hidden", "transposed"], ["products"]),
        node("Add", ["products", "bias"], ["logits"]),
        node("TopK", ["logits", "num_candidates"], ["candidate_scores", "candidate_ids"], axis=-1),
        node("ReduceLogSumExp", ["logits", "last"], ["log_sum_exp"], keepdims=1),
    ]
    products = ["N", TOKENS]
    if by_position:
        products.insert(1, 1)
        nodes[4:6] = [
            node("Unsqueeze", ["hidden", "position"], ["hidden_by_position"]),
            node("MatMul", ["hidden_by_position", "transposed"], ["products"]),
            node("Add", ["products", "bias"], ["biased"]),
            node("Squeeze", ["biased", "position"], ["logits"]),
        ]
    if not bias.any():  # then nothing adds it
        (add,) = (one for one in nodes if "bias" in one.input)
        nodes[nodes.index(add) - 1].output[0] = add.output[0]
        nodes.remove(add)
    inputs = [
        info("wide", numbers.FLOAT, ["N", WIDE]),
        info("token_ids", numbers.INT64, ["N"]),
        info("num_candidates", numbers.INT64, [1]),
    ]
    sizes = {"candidate_scores": "K", "log_sum_exp": 1, "logits": TOKENS, "hidden": WIDTH, "embedded": WIDTH}
    outputs = [info(name, numbers.FLOAT, ["N", size]) for name, size in sizes.items()]
    outputs.append(info("candidate_ids", numbers.INT64, ["N", "K"]))
    weights = {
        "embedding": embedding,
        "other": embedding + 1,
        "bias": bias,
        "narrowing": narrowing,
        "narrowing_bias": embedding[0],
        "last": np.array([-1]),
        "position": np.array([1]),
    }
    graph = helper.make_graph(
        nodes,
        "step",
        inputs,
        outputs,
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
        value_info=[
            info("narrowed", numbers.FLOAT, ["N", WIDTH]),
            *(info(name, numbers.FLOAT, products) for name in ("products", "biased")),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, file, save_as_external_data=True, location=f"{file.name}.data", size_threshold=0)
