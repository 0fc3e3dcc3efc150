"""The searches against `generate()` of Transformers, on a model that is nothing but a table of scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    GenerationConfig,
    GenerationMixin,
    LogitsProcessorList,
    PretrainedConfig,
    PreTrainedModel,
    TopPLogitsWarper,
    WhisperTimeStampLogitsProcessor,
)
from transformers.modeling_outputs import CausalLMOutput

from regard.engine.search.hypothesis import Hypothesis
from regard.engine.search.options import options_of
from regard.engine.search.shortlist import StepScores
from regard.engine.search.strategy import search_of
from regard.manifest import GenerationSpec

from .reference import border_of_top_p

VOCABULARY = 30
START, END = 2, 0
SPEC = GenerationSpec(
    start_token_id=START,
    eos_token_ids=(END,),
    pad_token_id=START,
    suppressed_token_ids=(),
    forced_bos_token_id=None,
    forced_eos_token_id=None,
    max_target_tokens=64,
    vocabulary_size=VOCABULARY,
)
OPTION_SETS: dict[str, dict[str, Any]] = {
    "greedy_with_penalty": {"repetition_penalty": 1.4},
    "greedy_with_bonus": {"repetition_penalty": 0.8},
    "greedy_without_repetition": {"no_repeat_ngram_size": 2},
    "greedy_long": {"min_new_tokens": 12},
    "beams": {"num_beams": 4},
    "beams_early": {"num_beams": 4, "early_stopping": True},
    "beams_never": {"num_beams": 3, "early_stopping": "never"},
    "beams_never_short": {"num_beams": 3, "early_stopping": "never", "length_penalty": -0.5},
    "beams_long": {"num_beams": 5, "length_penalty": 2.0, "num_return_sequences": 5},
    "beams_unnormalized": {"num_beams": 2, "length_penalty": 0.0, "num_return_sequences": 2},
    "beams_with_penalty": {"num_beams": 4, "repetition_penalty": 1.3, "num_return_sequences": 3},
    "beams_without_repetition": {"num_beams": 4, "no_repeat_ngram_size": 2, "min_new_tokens": 6},
    "beams_of_few_tokens": {"num_beams": 4, "suppress_tokens": tuple(range(3, 24)), "no_repeat_ngram_size": 3},
    "beams_forced": {"num_beams": 4, "forced_bos_token_id": 9, "forced_eos_token_id": END, "max_new_tokens": 7},
    "beams_with_bad_words": {"num_beams": 3, "bad_words_ids": ((5,), (6, 7), (8, 9, 10)), "num_return_sequences": 2},
}


class TableModel(PreTrainedModel, GenerationMixin):
    """A language model whose scores are a table's, looked up by the last two tokens."""

    config_class = PretrainedConfig

    def __init__(self, table: np.ndarray[Any, np.dtype[np.float32]]) -> None:
        super().__init__(PretrainedConfig(vocab_size=VOCABULARY))
        self.table = torch.nn.Parameter(torch.from_numpy(table))
        self.generation_config = GenerationConfig(eos_token_id=END, pad_token_id=START, use_cache=False)

    def forward(self, input_ids: torch.Tensor, **_: Any) -> CausalLMOutput:
        """Return the scores that follow each position."""
        before = torch.cat([torch.full_like(input_ids[:, :1], START), input_ids[:, :-1]], dim=1)
        return CausalLMOutput(logits=self.table[before, input_ids])

    def prepare_inputs_for_generation(self, input_ids: torch.Tensor, **_: Any) -> dict[str, Any]:
        """Read the whole sequence anew in every step."""
        return {"input_ids": input_ids}


def table_of(seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return random scores in which sentences of some ten tokens end by themselves."""
    table = np.random.default_rng(seed).normal(0, 2, (VOCABULARY, VOCABULARY, VOCABULARY)).astype(np.float32)
    table[:, :, END] += 0.5
    return table


def searched(table: Any, given: dict[str, Any], spec: GenerationSpec = SPEC) -> list[Hypothesis]:
    """Return what our search finds in a table, from as many candidates as it says that it needs."""
    options = options_of(spec, given)
    search = search_of(options, spec, [START])
    assert search is not None
    while not search.done:
        sequences = [[START, START, *hypothesis.token_ids][-2:] for hypothesis in search.hypotheses]
        logits = np.stack([table[before, last] for before, last in sequences])
        count = min(search.best_needed, VOCABULARY)
        ids = np.argsort(-logits, axis=1)[:, :count]
        total = np.log(np.exp(logits).sum(axis=1, keepdims=True))
        search.advance(StepScores(ids, np.take_along_axis(logits, ids, axis=1), total, logits))
    return search.results


@pytest.mark.parametrize("name", OPTION_SETS)
def test_a_search_finds_what_generate_finds(name: str) -> None:
    """The same tokens, and scores within 1e-4, in a dozen tables."""
    given = {"max_new_tokens": 20} | OPTION_SETS[name]
    theirs = {option: list(map(list, value)) if option == "bad_words_ids" else value for option, value in given.items()}
    for seed in range(12):
        table = table_of(seed)
        expected = TableModel(table).generate(
            torch.tensor([[START]]), do_sample=False, return_dict_in_generate=True, output_scores=True, **theirs
        )
        ours = searched(table, given)
        assert len(ours) == len(expected.sequences)
        for hypothesis, sequence in zip(ours, expected.sequences.tolist(), strict=True):
            assert hypothesis.token_ids == sequence[1 : 1 + len(hypothesis.token_ids)]
            assert set(sequence[1 + len(hypothesis.token_ids) :]) <= {START}
        if expected.get("sequences_scores") is not None:
            scores = [hypothesis.score for hypothesis in ours]
            assert np.allclose(scores, expected.sequences_scores, atol=1e-4)


@pytest.mark.parametrize("given", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_a_prefix_is_a_prompt(given: dict[str, Any]) -> None:
    """What follows a forced prefix is what `generate()` gives for a decoder that begins with it."""
    prefix = (4, 11, 5)
    given = {"max_new_tokens": 12, "no_repeat_ngram_size": 2} | given
    for seed in range(8):
        table = table_of(seed)
        expected = TableModel(table).generate(torch.tensor([[START, *prefix]]), do_sample=False, **given)
        (ours,) = searched(table, given | {"prefix_token_ids": prefix})
        assert [START, *ours.token_ids] == expected[0].tolist()[: 1 + len(ours.token_ids)]
        assert ours.log_probabilities[:3] == [0, 0, 0]


def test_alternatives_are_the_best_tokens_of_a_position_completed_greedily() -> None:
    """Each equals `generate()` behind the greedy beginning and its own token."""
    for seed in range(8):
        table = table_of(seed)
        model = TableModel(table)
        beginning = model.generate(torch.tensor([[START]]), max_new_tokens=3, min_new_tokens=4)[0]
        best = table[beginning[-2], beginning[-1]].argsort()[::-1][:5]
        ours = searched(
            table, {"alternatives_position": 3, "num_return_sequences": 5, "max_new_tokens": 20, "min_new_tokens": 3}
        )
        for token, hypothesis in zip(best, ours, strict=True):
            start = torch.cat([beginning, torch.tensor([token])])[None]
            expected = start if token == END else model.generate(start, max_new_tokens=16)
            assert [START, *hypothesis.token_ids] == expected[0].tolist()[: 1 + len(hypothesis.token_ids)]


def test_samples_follow_the_filtered_distribution() -> None:
    """Every drawn token is one that Transformers' warpers leave, and a seed gives the same samples again."""
    table = table_of(1)
    given = {"do_sample": True, "top_k": 5, "top_p": 0.9, "num_return_sequences": 6, "seed": 11, "max_new_tokens": 20}
    samples = searched(table, given)
    for sample in samples:
        context = [START, START]
        for token in sample.token_ids:
            assert token in table[context[0], context[1]].argsort()[::-1][:5]
            context = [context[1], token]
    assert len({tuple(sample.token_ids) for sample in samples}) > 1
    assert [sample.token_ids for sample in searched(table, given)] == [sample.token_ids for sample in samples]


FIRST_TIME = 20
TIMED = SPEC.model_copy(update={"eos_token_ids": (18,), "pad_token_id": 18})
TIMED_SETS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "begins late": {"max_initial_timestamp_index": 9},
    "begins early": {"max_initial_timestamp_index": 1, "begin_suppress_tokens": (20, 3)},
    "without repetition": {"no_repeat_ngram_size": 3, "suppress_tokens": (3, 4, 5)},
    "beams": {"num_beams": 4, "num_return_sequences": 2},
    "beams with a penalty": {"num_beams": 3, "repetition_penalty": 1.2, "max_initial_timestamp_index": 5},
}


@pytest.mark.parametrize("name", TIMED_SETS)
def test_times_come_where_those_of_whisper_do(name: str) -> None:
    """The same tokens as with Transformers' rule, in a dozen tables whose texts hold several times."""
    given = {"max_new_tokens": 20} | TIMED_SETS[name]
    theirs = {option: list(value) if isinstance(value, tuple) else value for option, value in given.items()}
    latest = theirs.pop("max_initial_timestamp_index", None)
    prefix, times = (4, 11), 0
    for seed in range(12):
        table = table_of(seed)
        table[:, :, FIRST_TIME:] += 0.7
        model = TableModel(table)
        model.generation_config.update(eos_token_id=18, pad_token_id=18)
        rules = GenerationConfig(eos_token_id=18)
        rules.no_timestamps_token_id = FIRST_TIME - 1
        rules.max_initial_timestamp_index = latest
        rule = WhisperTimeStampLogitsProcessor(rules, begin_index=3)
        expected = model.generate(
            torch.tensor([[START, *prefix]]), do_sample=False, logits_processor=LogitsProcessorList([rule]), **theirs
        )
        asked = given | {"prefix_token_ids": prefix, "first_timestamp_token_id": FIRST_TIME}
        ours = searched(table, asked, TIMED)
        for hypothesis, sequence in zip(ours, expected.tolist(), strict=True):
            assert [START, *hypothesis.token_ids] == sequence[: 1 + len(hypothesis.token_ids)]
            times += sum(token >= FIRST_TIME for token in hypothesis.token_ids)
    assert times > 24


@pytest.mark.parametrize("given", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_the_likeliest_choice_begins_a_prefix(given: dict[str, Any]) -> None:
    """What follows is what `generate()` gives behind it, and it counts as forced."""
    choices = (7, 12, 25)
    for seed in range(8):
        table = table_of(seed)
        likeliest = max(choices, key=lambda token, table=table: table[START, START, token])  # type: ignore[misc]
        given = {"max_new_tokens": 12, "begin_suppress_tokens": (3, 9)} | given
        theirs = {option: list(value) if isinstance(value, tuple) else value for option, value in given.items()}
        expected = TableModel(table).generate(torch.tensor([[START, likeliest, 5]]), do_sample=False, **theirs)
        (ours,) = searched(table, given | {"prefix_token_ids": (7, 5), "prefix_choices": choices})
        assert [START, *ours.token_ids] == expected[0].tolist()[: 1 + len(ours.token_ids)]
        assert ours.log_probabilities[:2] == [0, 0]


@pytest.mark.parametrize(
    ("shares", "border"),
    [
        ([0.5, 0.3, 0.2], 0.1),  # the last one is left out, and by far
        ([0.4, 0.3, 0.3], 0.0),  # one of two that tie
        ([0.5, 0.26, 0.24], np.log(0.26 / 0.24)),  # one of two that nearly do
        ([0.61, 0.29, 0.1], 0.01),  # the best alone is nearly enough
        ([0.98, 0.01, 0.01], 0.38),  # the best is kept alone, and by far
    ],
)
def test_a_nucleus_has_two_borders(shares: list[float], border: float) -> None:
    """What its tokens come to may be close to 0.6, or the worst of them to the best that isn't one."""
    scores = torch.tensor([shares, shares], dtype=torch.float64).log()
    torch.testing.assert_close(border_of_top_p(TopPLogitsWarper(0.6), scores), torch.full_like(scores[:, 0], border))
