"""Fakes for tests of the engine and of programs built on it: no ONNX Runtime, no real time.

`FakeSession` runs a Python function as a graph. `echo_package`, `echo_encoder` and `echo_step`
together are a translator that answers with its input, and notices when the engine mixes up the
rows' caches. `sum_package`, `sum_prefill` and `sum_step` are a decoder-only model, each of whose answers
depends on every token before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from regard.engine.memory import HostMemory, Memory, Tensor
from regard.manifest import (
    CrossStateSpec,
    GenerationSpec,
    GraphSpec,
    Manifest,
    Package,
    SourceSpec,
    StateSpec,
    TapSpec,
    Task,
    TextSpec,
)

Array = npt.NDArray[Any]
Compute = Callable[[Mapping[str, Array]], Mapping[str, Array]]

PAD, END, MIXED_UP = 0, 1, 2
"""Token ids of the echo translator; MIXED_UP is its answer to a cache that isn't the row's own."""

HEADS = 2
VOCABULARY = 100


class FakeClock:
    """A clock that stands still until it is told to move. Call it for the time, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class FakeSession:
    """A `Session` whose graph is a function from inputs to outputs. `calls` keeps what it was fed."""

    def __init__(self, compute: Compute, inputs: Sequence[str]) -> None:
        self._compute = compute
        self.inputs = frozenset(inputs)
        self.provider = "FakeExecutionProvider"
        self.memory: Memory = HostMemory()
        self.calls: list[dict[str, Array]] = []

    def run(self, feeds: Mapping[str, Tensor], fetches: Sequence[str]) -> list[Array]:
        """Call the function and return the outputs named in `fetches`."""
        known = {name: _array(tensor) for name, tensor in feeds.items() if name in self.inputs}
        self.calls.append({name: array.copy() for name, array in known.items()})
        outputs = self._compute(known)
        return [outputs[name] for name in fetches]

    def run_keeping(
        self, feeds: Mapping[str, Tensor], kept: Sequence[str], fetches: Sequence[str]
    ) -> tuple[list[Tensor], list[Array]]:
        """Call the function; what is kept is arrays too."""
        outputs = self.run(feeds, [*kept, *fetches])
        return list(outputs[: len(kept)]), outputs[len(kept) :]

    def bind(self, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor], fetches: Sequence[str]) -> FakeBinding:
        """Tie the function to buffers."""
        return FakeBinding(self, inputs, outputs, fetches)


class FakeBinding:
    """A `Binding` of a `FakeSession`."""

    def __init__(
        self,
        session: FakeSession,
        inputs: Mapping[str, Tensor],
        outputs: Mapping[str, Tensor],
        fetches: Sequence[str],
    ) -> None:
        self._session = session
        self._inputs = inputs
        self._outputs = {name: _array(tensor) for name, tensor in outputs.items()}
        self._fetches = fetches

    def run(self) -> list[Array]:
        """Call the function, write what it returns into the bound outputs, return what is fetched."""
        names = [*self._outputs, *self._fetches]
        arrays = dict(zip(names, self._session.run(self._inputs, names), strict=True))
        for name, buffer in self._outputs.items():
            buffer[...] = arrays[name]
        return [arrays[name] for name in self._fetches]


def _array(tensor: Tensor) -> Array:
    assert isinstance(tensor, np.ndarray), "fakes compute on the host"
    return tensor


def echo_package(*, max_tokens: int = 64) -> Package:
    """Return the package of the echo translator: one layer, two heads, tokens from 3 to 99."""
    graph = GraphSpec(file="none", inputs=(), outputs=(), operators={}, optimized_operators={})
    state = {"kind": "kv", "heads": HEADS, "head_size": 1, "dtype": "float"}
    taps = (("encoder", "self", "encoder"), ("step", "self", "decoder"), ("step", "cross", "decoder"))
    manifest = Manifest(
        format_version=2,
        name="echo",
        version="1",
        task=Task.TRANSLATION,
        target="cpu",
        precision="fp32",
        source=SourceSpec(architecture="Echo", model_type="echo", weights_sha256="0" * 64),
        graphs={"encoder": graph, "step": graph},
        taps=tuple(
            TapSpec.model_validate(
                {
                    "graph": graph_name,
                    "kind": kind,
                    "stack": stack,
                    "layer": 0,
                    "heads": HEADS,
                    "output": f"{kind}_attention.0",
                    "rows_input": f"{kind}_tap_rows",
                }
            )
            for graph_name, kind, stack in taps
        ),
        state=(StateSpec.model_validate(state | {"input": "past_key.0", "output": "present_key.0"}),),
        cross_state=(
            CrossStateSpec(
                encoder_output="cross_key.0", step_input="cross_key.0", heads=HEADS, head_size=1, dtype="float"
            ),
        ),
        text=TextSpec(tokenizer_file="tokenizer.json", max_source_tokens=max_tokens, pad_token_id=PAD),
        generation=GenerationSpec(
            start_token_id=PAD,
            eos_token_ids=(END,),
            pad_token_id=PAD,
            suppressed_token_ids=(PAD,),
            forced_bos_token_id=None,
            forced_eos_token_id=None,
            max_target_tokens=max_tokens,
            vocabulary_size=VOCABULARY,
        ),
        classification=None,
        image=None,
        exported_with={},
        files={},
    )
    return Package(directory=Path("echo/1"), manifest=manifest, sha256="0" * 64)


def echo_encoder() -> FakeSession:
    """Return an encoder that hands its tokens on as cross-attention keys."""

    def encode(feeds: Mapping[str, Array]) -> dict[str, Array]:
        tokens = feeds["input_ids"].astype(np.float32)
        rows = feeds["self_tap_rows"]
        length = tokens.shape[1]
        keys = np.repeat(tokens[:, None, :, None], HEADS, axis=1)
        weights = np.broadcast_to(np.eye(length, dtype=np.float32), (len(rows), HEADS, length, length))
        return {"cross_key.0": keys, "self_attention.0": weights}

    return FakeSession(encode, ["input_ids", "source_length", "self_tap_rows"])


def echo_step() -> FakeSession:
    """Return a step that gives the source's next token, if the row's cache holds the former ones.

    The token fed at position p is written to the cache; the answer at p is source token p, so the
    cache must hold the start token and the source's first p tokens. The scores are 0 for the token,
    -1 for the end and less than -9 for all others; NaN where the cross-attention state is. A
    request's rows share its source.
    """

    def step(feeds: Mapping[str, Array]) -> dict[str, Array]:
        cache, sources = feeds["past_key.0"], feeds["cross_key.0"]
        width = len(cache) // len(sources)
        logits = np.tile(-9 - np.arange(VOCABULARY, dtype=np.float32) / VOCABULARY, (len(cache), 1))
        logits[:, END] = -1
        for row, at in enumerate(feeds["row_length"]):
            source = sources[row // width, 0, :, 0]
            cache[row, :, at, 0] = feeds["token_ids"][row, 0]
            own = [PAD, *source[:at]]
            answer = source[at] if at < len(source) and list(cache[row, 0, : at + 1, 0]) == own else MIXED_UP
            if np.isnan(sources[row // width]).any():
                logits[row] = np.nan
            else:
                logits[row, int(answer)] = 0
        ids = np.argsort(-logits, axis=1, kind="stable")[:, : int(feeds["num_candidates"][0])]
        asked = {kind: feeds[f"{kind}_tap_rows"] for kind in ("self", "cross")}
        keys = {"self": int(feeds["total_length"]), "cross": sources.shape[2]}
        weights = {
            f"{kind}_attention.0": np.stack(
                [np.full((HEADS, 1, keys[kind]), row + 1, np.float32) for row in rows] or [np.zeros((HEADS, 1, 0))]
            )
            for kind, rows in asked.items()
        }
        return {
            "candidate_ids": ids,
            "candidate_scores": np.take_along_axis(logits, ids, axis=1),
            "log_sum_exp": np.zeros((len(cache), 1), np.float32),
            "logits": logits,
            "present_key.0": cache,
            **weights,
        }

    inputs = ["token_ids", "row_length", "total_length", "source_length", "num_candidates", "past_key.0", "cross_key.0"]
    return FakeSession(step, [*inputs, "self_tap_rows", "cross_tap_rows"])


def sum_package(*, max_tokens: int = 64) -> Package:
    """Return the package of a decoder-only model: one layer, two heads, tokens from 3 to 99."""
    echo = echo_package(max_tokens=max_tokens).manifest
    manifest = echo.model_copy(
        update={
            "name": "sum",
            "task": Task.COMPLETION,
            "graphs": {"prefill": echo.graphs["encoder"], "step": echo.graphs["step"]},
            "taps": tuple(
                tap.model_copy(update={"graph": "prefill" if tap.graph == "encoder" else "step", "stack": "decoder"})
                for tap in echo.taps
                if tap.kind == "self"
            ),
            "state": tuple(state.model_copy(update={"first_output": "first_key.0"}) for state in echo.state),
            "cross_state": (),
        }
    )
    return Package(directory=Path("sum/1"), manifest=manifest, sha256="0" * 64)


def next_of_sum(token_ids: Sequence[int]) -> int:
    """Return what the model of `sum_package` answers to all tokens so far: a function of each and its place."""
    return 3 + sum((place + 1) * token_id for place, token_id in enumerate(token_ids)) % (VOCABULARY - 3)


def sum_prefill() -> FakeSession:
    """Return a prefill whose keys are its tokens."""

    def read(feeds: Mapping[str, Array]) -> dict[str, Array]:
        tokens, rows = feeds["input_ids"].astype(np.float32), feeds["self_tap_rows"]
        length = tokens.shape[1]
        weights = np.broadcast_to(np.tri(length, dtype=np.float32), (len(rows), HEADS, length, length))
        return {"first_key.0": np.repeat(tokens[:, None, :, None], HEADS, axis=1), "self_attention.0": weights}

    return FakeSession(read, ["input_ids", "self_tap_rows"])


def sum_step() -> FakeSession:
    """Return a step that gives `next_of_sum` of what its row's cache holds; other tokens' scores are below -9."""

    def step(feeds: Mapping[str, Array]) -> dict[str, Array]:
        cache = feeds["past_key.0"]
        logits = np.tile(-9 - np.arange(VOCABULARY, dtype=np.float32) / VOCABULARY, (len(cache), 1))
        for row, at in enumerate(feeds["row_length"]):
            cache[row, :, at, 0] = feeds["token_ids"][row, 0]
            logits[row, next_of_sum(cache[row, 0, : at + 1, 0].astype(np.int64).tolist())] = 0
        ids = np.argsort(-logits, axis=1, kind="stable")[:, : int(feeds["num_candidates"][0])]
        rows, keys = feeds["self_tap_rows"], int(feeds["total_length"])
        return {
            "candidate_ids": ids,
            "candidate_scores": np.take_along_axis(logits, ids, axis=1),
            "log_sum_exp": np.zeros((len(cache), 1), np.float32),
            "logits": logits,
            "present_key.0": cache,
            "self_attention.0": np.repeat(rows + 1, HEADS * keys).reshape(-1, HEADS, 1, keys).astype(np.float32),
        }

    inputs = ["token_ids", "row_length", "total_length", "num_candidates", "past_key.0", "self_tap_rows"]
    return FakeSession(step, inputs)
