"""Models that have only a decoder: their packages, and the engine on them beside `generate()`."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from tests.parity.family import Family, served
from tests.parity.rounding import EAGER, EXACT, distances
from tests.parity.verdicts import Verdicts

from regard.engine.request import GenerateRequest, Generation
from regard.manifest import Package, Task, load_package
from regard_export.checkpoint import load_checkpoint
from regard_export.families import exchanged
from regard_export.graphs import PrefillGraph
from regard_export.languages import ANY_LANGUAGES
from regard_export.lowering import TARGETS, lower
from regard_export.package import Options, export
from regard_export.stepping import open_session, run
from regard_export.tracing import trace

from .checkpoints import EOS, PAD, save_completer
from .families import CAPTIONERS, COMPLETERS

LIKE_LLAMA = ("Mistral", "Qwen2")
"""Families whose graphs are Llama's but for biases and sizes: proven as all others are, and left out here."""
SAVES = {name: save for name, save in COMPLETERS.items() if name not in LIKE_LLAMA} | {"GIT": CAPTIONERS["GIT"]}
LAYERS = 2
OPTIONS = (
    "greedy",
    "greedy, penalty",
    "greedy, long",
    "greedy, no 1-gram twice",
    "greedy, bad words",
    "greedy, suppressed first",
    "greedy, last forced",
    "greedy, prefix and bans",
    "greedy, stop strings",
    "beams",
    "beams, never",
    "beams, penalty",
    "beams, no 2-gram twice",
    "samples, every warper",
    "alternatives, later",
)


class Bench:
    """A family's package, and itself at work."""

    def __init__(self, checkpoint: Path, package: Path, family: Family) -> None:
        self.checkpoint = checkpoint
        self.package: Package = load_package(package)
        self.family = family
        self.report: dict[str, Any] = json.loads((package / "parity.json").read_text())


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Bench]]:
    """Return what gives a family's bench; each is exported once."""
    with ExitStack() as stack:

        @cache
        def of(name: str) -> Bench:
            at = tmp_path_factory.mktemp("prefill")
            checkpoint = SAVES[name](at / "checkpoint")
            package = export(checkpoint, at / "models", Options(name="tiny"))
            return Bench(checkpoint, package, stack.enter_context(served(checkpoint, package)))

        yield of


@pytest.mark.parametrize("name", SAVES)
def test_a_prefill_and_a_step_equal_the_eager_model(name: str, bench: Callable[[str], Bench]) -> None:
    """Greedy tokens, logits and every map; the step has no cross-attention, the state begins with the prefill's."""
    manifest, report = bench(name).package.manifest, bench(name).report
    assert manifest.task is (Task.CAPTIONING if name == "GIT" else Task.COMPLETION)
    assert manifest.graphs.keys() == {"prefill", "step"}
    step = manifest.graphs["step"].operators
    assert step["com.microsoft::GroupQueryAttention"] == LAYERS
    assert "com.microsoft::MultiHeadAttention" not in step
    assert {spec.first_output for spec in manifest.state} == {
        f"first_{half}.{layer}" for half in ("key", "value") for layer in range(LAYERS)
    }
    assert manifest.cross_state == ()
    stacks = ("prompt", "decoder", "encoder") if name == "GIT" else ("prompt", "decoder")
    taps = {f"{stack}.self.{layer}" for stack in stacks for layer in range(LAYERS)}
    assert {tap.name for tap in manifest.taps} == taps
    reduced = {f"{tap}.{word}" for tap in taps if not tap.startswith("decoder") for word in ("mean", "max")}
    assert {tap.name for tap in manifest.reduced_taps} == reduced
    assert report["max_abs_difference"].keys() == taps | reduced | {"logits", "log_sum_exp"}
    assert 0 < max(report["max_abs_difference"].values()) < 1e-4
    assert report["greedy_tokens_compared"] > 20
    assert report["greedy_tokens_different"] == 0


@pytest.mark.parametrize("name", SAVES)
def test_the_engine_answers_as_generate_does(name: str, bench: Callable[[str], Bench]) -> None:
    """Prompts of many lengths, each with options of its own, in one batch: penalties and bans look at the prompt."""
    family, random, verdicts = bench(name).family, np.random.default_rng(0), Verdicts()
    asks = [family.ask(option, random) for option in OPTIONS]

    async def answers() -> list[Generation]:
        return await asyncio.gather(*(family.answer(ask.source, ask.options) for ask in asks))

    for ask, answer in zip(asks, asyncio.run(answers()), strict=True):
        verdicts.judge(ask, answer, family)
    assert verdicts.explanations == []
    assert sum(verdicts.asked.values()) == len(OPTIONS)


@pytest.mark.parametrize("name", ["GPT-2", "GIT"])
def test_a_score_that_differs_is_told_beside_float64(name: str, bench: Callable[[str], Bench]) -> None:
    """A score that is off by 1e-3 differs, however close float64 finds both sides' log-probabilities."""
    family, verdicts = bench(name).family, Verdicts()
    ask = family.ask("beams", np.random.default_rng(0))
    answer = asyncio.run(family.answer(ask.source, ask.options))
    best = replace(answer.best, score=answer.best.score + 1e-3)
    verdicts.judge(ask, replace(answer, sequences=[best, *answer.sequences[1:]]), family)
    assert verdicts.totals == (1, 0, 1)
    told = re.search(r"float64 model is (\S+) from ours, (\S+) from the eager", verdicts.explanations[0])
    assert told is not None
    assert all(0 < float(distance) < 1e-4 for distance in told.groups())


@pytest.mark.parametrize(("name", "fused"), [("GPT-2", ["generate() with SDPA"]), ("GIT", [])])
def test_generate_is_told_beside_itself(name: str, fused: list[str], bench: Callable[[str], Bench]) -> None:
    """The same search in another way is as good as the same, but for rounding; GIT has no SDPA."""
    found = asyncio.run(distances(bench(name).family, 4, np.random.default_rng(0)))
    others = {(one, EAGER) for one in [EXACT, "generate() without its cache", *fused]}
    assert found.keys() == {("Regard", EXACT), *others}
    for differences in found.values():
        assert len(differences) == 4
        assert 0 < max(differences) < 1e-3


@pytest.mark.parametrize("name", SAVES)
def test_the_engine_s_maps_are_the_eager_model_s(name: str, bench: Callable[[str], Bench]) -> None:
    """Those of all answers over all before them, and the prompt's own, side by side with others' requests."""
    family = bench(name).family
    names = frozenset(tap.name for tap in bench(name).package.manifest.taps if tap.stack == "decoder")
    asks = [family.ask_with("maps", {"max_new_tokens": 6}, np.random.default_rng(seed)) for seed in range(3)]

    async def answers() -> list[Any]:
        return await asyncio.gather(
            *(family.worker.run(GenerateRequest(ask.source, ask.options, names)) for ask in asks)
        )

    for ask, answer in zip(asks, asyncio.run(answers()), strict=True):
        tokens, length = answer.best.token_ids, ask.source.length
        eager = family.reference.attentions(ask.arguments, tokens[:-1])
        first = eager[0].shape[1] - len(tokens)
        for layer in range(LAYERS):
            ours = answer.best.taps[f"decoder.self.{layer}"]
            assert np.abs(ours - eager[layer][:, first:].numpy()).max() < 1e-4
            prompt = answer.best.taps[f"prompt.self.{layer}"]
            assert np.abs(prompt - eager[layer][:, :length, :length].numpy()).max() < 1e-4


def test_a_completion_s_manifest_says_where_prompts_end(bench: Callable[[str], Bench]) -> None:
    """Prompt and text share the positions; an empty prompt stands for the checkpoint's first token."""
    manifest = bench("GPT-2").package.manifest
    assert manifest.text is not None and manifest.generation is not None
    assert (manifest.text.max_source_tokens, manifest.generation.max_target_tokens) == (143, 159)
    assert manifest.text.empty_token_id == EOS
    read = [tensor.name for tensor in manifest.graphs["prefill"].inputs]
    assert read == ["input_ids", "self_tap_rows", "self_mean_rows", "self_max_rows"]


def test_a_prompt_may_hold_the_padding_s_token(bench: Callable[[str], Bench]) -> None:
    """It counts as any other token does, in the middle and at the end."""
    family = bench("OPT").family
    prompt = torch.tensor([[5, PAD, 7, PAD]])
    expected = family.reference.search({"input_ids": prompt}, {"max_new_tokens": 8})
    answer = asyncio.run(family.complete(prompt[0].numpy(), {"max_new_tokens": 8}))
    assert [answer.best.token_ids] == expected.sequences


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor, Any]:
    """Return a prefill that is not lowered yet, a prompt for it and what the eager model makes of that."""
    at = tmp_path_factory.mktemp("traced")
    checkpoint = load_checkpoint(save_completer(at / "checkpoint"), ANY_LANGUAGES)
    graph = PrefillGraph(checkpoint, taps=True)
    with exchanged(checkpoint.model, checkpoint.family):
        ir.save(trace(graph), at / "prefill.onnx")
    prompt = torch.randint(0, 120, (3, 11))
    with torch.no_grad():
        return at / "prefill.onnx", prompt, checkpoint.model(prompt, output_attentions=True, use_cache=True)


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_reads_from_left_to_right(target: str, traced: tuple[Path, torch.Tensor, Any]) -> None:
    """Keys, values and maps of the prefill, in the operators of each target."""
    path, prompt, eager = traced
    model = ir.load(path)
    lower(model, TARGETS[target])
    lowered = path.with_name(f"{target}.onnx")
    ir.save(model, lowered)
    got = run(open_session(lowered), {"input_ids": prompt.numpy(), "self_tap_rows": np.arange(3)})
    for layer, cached in enumerate(eager.past_key_values.layers):
        for name, expected in (("first_key", cached.keys), ("first_value", cached.values)):
            assert np.abs(got[f"{name}.{layer}"] - expected.numpy()).max() < 1e-4
        assert np.abs(got[f"self_attention.{layer}"] - eager.attentions[layer].numpy()).max() < 1e-4
