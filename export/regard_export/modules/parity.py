"""The proof of a module's package: its graphs against the module, on the samples that `regard_export.inputs` draws."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch

from regard.manifest import TapSpec
from regard_export.graph_files import GraphFiles
from regard_export.modules.blueprint import Blueprint
from regard_export.parity import Parity
from regard_export.precision import TOLERANCES
from regard_export.stepping import SAMPLE_TOKENS, Array, Feeds, open_session, run


def measure(blueprint: Blueprint, directory: Path, files: GraphFiles) -> Parity:
    """Compare the graphs in `directory` with the module: alone, ragged, and with four hypotheses a request."""
    sessions = {name: open_session(directory / graph.file) for name, graph in files.graphs.items()}
    meant = {provider for graph in files.graphs.values() for provider in graph.providers}
    parity = Parity(TOLERANCES["fp32"], tuple(sorted(meant - {"cpu"})))
    with torch.no_grad():
        for sample in blueprint.inputs.samples():
            if not blueprint.generates:
                _compare_classifier(blueprint, sessions["classifier"], files.taps, sample, parity)
                continue
            generator = _Generator(blueprint, sessions["encoder"], sessions["step"], files.taps, parity)
            for hypotheses in (1, 4):
                generator.compare(sample, hypotheses)
    return parity


def _compare_classifier(
    blueprint: Blueprint, session: ort.InferenceSession, taps: tuple[TapSpec, ...], sample: Feeds, parity: Parity
) -> None:
    """Each row alone, without padding, is what the graph must give for it in its batch."""
    classifier: Any = blueprint.module
    lengths = blueprint.inputs.lengths(sample)
    got = run(session, sample | {"self_tap_rows": np.arange(len(lengths))})
    for row, length in enumerate(lengths):
        logits, weights = classifier.classify(*_alone(sample, row, int(length)))
        parity.note("logits", got["logits"][row], logits[0])
        for tap in taps:
            parity.note(tap.name, got[tap.output][row, :, :length, :length], weights[tap.layer][0])


@dataclass(frozen=True)
class _Generator:
    blueprint: Blueprint
    encoder: ort.InferenceSession
    step: ort.InferenceSession
    taps: tuple[TapSpec, ...]
    parity: Parity

    def compare(self, sample: Feeds, hypotheses: int) -> None:
        """Feed random tokens to the graphs in one batch and to the module row by row; then decode greedily."""
        lengths = self.blueprint.inputs.lengths(sample)
        rows = len(lengths) * hypotheses
        tokens = self._random_tokens(rows)
        encoded = run(self.encoder, sample)
        state = _first_state(encoded, hypotheses)
        memory = {name: array for name, array in encoded.items() if name.startswith("cross_")}
        fixed = memory | {
            "source_length": lengths,
            "num_candidates": np.array([4]),
            "scored": np.array([True]),
            "cross_tap_rows": np.arange(rows),
        }
        eager = [
            _Eager(self.blueprint, sample, row // hypotheses, int(lengths[row // hypotheses])) for row in range(rows)
        ]
        for at in range(SAMPLE_TOKENS):
            got = run(self.step, fixed | state | {"token_ids": tokens[:, at : at + 1]})
            state = {name.replace("present_", "past_"): got[name] for name in got if name.startswith("present_")}
            for row, one in enumerate(eager):
                self._compare_row(got, row, one, int(tokens[row, at]))

    def _compare_row(self, got: dict[str, Array], row: int, eager: _Eager, token: int) -> None:
        logits, weights = eager.step(token)
        self.parity.note("logits", got["logits"][row], logits)
        self.parity.note("log_sum_exp", got["log_sum_exp"][row], torch.logsumexp(logits, -1, keepdim=True))
        for tap in self.taps:
            self.parity.note(tap.name, got[tap.output][row, :, 0, : weights.shape[1]], weights)
        self.parity.tokens_compared += 1
        chosen = int(got["candidate_ids"][row, 0])
        if not self.parity.tied(logits.numpy(), chosen, int(logits.argmax())):
            self.parity.tokens_different += 1

    def _random_tokens(self, rows: int) -> Array:
        spec = self.blueprint.generation
        assert spec is not None
        tokens = np.random.default_rng(1).integers(0, spec.vocabulary_size, (rows, SAMPLE_TOKENS))
        tokens[:, 0] = spec.start_token_id
        return tokens


class _Eager:
    """The module, on one row alone."""

    def __init__(self, blueprint: Blueprint, sample: Feeds, row: int, length: int) -> None:
        module: Any = blueprint.module
        self._module = module
        source, self._length = _alone(sample, row, length)
        self._memory, self._state = self._module.encode(source, self._length)

    def step(self, token: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logits [V] and the weights [H, S] of the next step."""
        logits, self._state, weights = self._module.step(torch.tensor([token]), self._state, self._memory, self._length)
        return logits[0], weights[0]


def _alone(sample: Feeds, row: int, length: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return one row of a sample without its padding."""
    if "pixel_values" in sample:
        return torch.from_numpy(sample["pixel_values"][row : row + 1]), None
    source = torch.from_numpy(sample["input_ids"][row : row + 1, :length])
    return source, torch.tensor([length], dtype=torch.int32)


def _first_state(encoded: dict[str, Array], hypotheses: int) -> Feeds:
    return {
        name.replace("first_", "past_"): array.repeat(hypotheses, axis=0)
        for name, array in encoded.items()
        if name.startswith("first_state.")
    }
