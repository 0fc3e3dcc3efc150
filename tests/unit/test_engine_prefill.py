"""The generation engine on a decoder-only model: rows that begin with what a prefill made of their prompts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from regard.config import EngineSettings
from regard.engine.generator import Generator
from regard.engine.observer import SilentObserver
from regard.engine.request import Event, GenerateRequest, Generation
from regard.engine.rows import FIRST_POSITIONS
from regard.engine.scheduler import Scheduler
from regard.engine.search.options import GenerationOptions, options_of
from regard.engine.source import Tokens
from regard.engine.ticket import Ticket
from regard.errors import InvalidInputError, RegardError
from regard.testing import END, FakeClock, next_of_sum, sum_package, sum_prefill, sum_step


class Bench:
    """An engine of the model of sums, and what its callers have heard."""

    def __init__(self, **settings: Any) -> None:
        self.settings = EngineSettings(**{"max_rows": 8} | settings)
        self.prefill, self.steps = sum_prefill(), sum_step()
        self.scheduler = Scheduler(self.settings)
        self.manifest = sum_package().manifest
        shared = (self.scheduler, self.settings, FakeClock(), SilentObserver())
        self.engine = Generator(self.manifest, self.prefill, self.steps, *shared)

    def submit(self, prompt: list[int], *taps: str, **options: Any) -> list[Event | RegardError]:
        """Queue a request; the list fills with what its caller hears."""
        heard: list[Event | RegardError] = []
        searched = GenerationOptions(**{"max_new_tokens": 12} | options)
        request = GenerateRequest(Tokens(np.array(prompt)), searched, frozenset(taps))
        self.scheduler.submit(Ticket(request, heard.append, 0.0))
        return heard

    def run(self) -> None:
        """Step until nothing is left to do."""
        for _ in range(500):
            if not self.engine.busy and not self.scheduler.waiting:
                return
            self.engine.step()
        raise AssertionError("the engine did not come to rest")


def prompts(count: int, longest: int = 50) -> list[list[int]]:
    """Return prompts of random lengths, the first of one token."""
    random = np.random.default_rng(0)
    return [[5], *(random.integers(3, 99, random.integers(1, longest)).tolist() for _ in range(count - 1))]


def continued(prompt: list[int], tokens: int = 12) -> list[int]:
    """Return what the model makes of a prompt, without any engine."""
    made: list[int] = []
    for _ in range(tokens):
        made.append(next_of_sum([*prompt, *made]))
    return made


def result_of(heard: list[Event | RegardError]) -> Generation:
    """Return the only thing that was heard, a result."""
    (result,) = heard
    assert isinstance(result, Generation)
    return result


def test_rows_go_on_from_their_own_prompts() -> None:
    """Thirty prompts of one to fifty tokens, over eight rows that move and are reused, are each continued."""
    bench = Bench()
    asked = prompts(30)
    answers = [bench.submit(prompt) for prompt in asked]
    bench.run()
    for prompt, heard in zip(asked, answers, strict=True):
        assert result_of(heard).best.token_ids == continued(prompt)


def test_a_prompt_joins_running_rows_at_its_own_length() -> None:
    """All but its last token are in the cache when its first step comes; the last is fed to that."""
    bench = Bench()
    bench.submit([5, 6, 7])
    bench.engine.step()
    bench.submit([10, 11, 12, 13, 14])
    bench.engine.step()
    assert bench.steps.calls[-1]["row_length"].tolist() == [3, 4]
    assert bench.steps.calls[-1]["token_ids"][1].tolist() == [14]
    assert bench.steps.calls[-1]["total_length"].tolist() == 5


def test_a_prompt_of_one_token_begins_with_an_empty_cache() -> None:
    """Its only token is fed to the first step, whatever the row held before."""
    bench = Bench(max_rows=1)
    first, second = bench.submit([9] * 40), bench.submit([5])
    bench.run()
    assert result_of(first).best.token_ids == continued([9] * 40)
    assert result_of(second).best.token_ids == continued([5])
    assert bench.steps.calls[12]["row_length"].tolist() == [0]


def test_a_prompt_longer_than_the_first_block_makes_room_for_itself() -> None:
    """The cache grows before the prefill's keys are placed, beside a short row that runs."""
    bench = Bench()
    prompt = prompts(2)[1] * FIRST_POSITIONS
    short, long = bench.submit([5, 6]), bench.submit(prompt[: FIRST_POSITIONS + 9])
    bench.run()
    assert result_of(short).best.token_ids == continued([5, 6])
    assert result_of(long).best.token_ids == continued(prompt[: FIRST_POSITIONS + 9])


def test_beams_of_a_prompt_all_begin_with_its_cache() -> None:
    """The best of three beams is the greedy continuation, whose tokens have all the probability."""
    bench = Bench()
    heard = bench.submit([5, 6, 7, 8], num_beams=3)
    others = bench.submit([9, 10])
    bench.run()
    assert result_of(heard).best.token_ids == continued([5, 6, 7, 8])
    assert result_of(others).best.token_ids == continued([9, 10])


def test_penalties_and_bans_look_at_the_prompt() -> None:
    """The token that would come next does not if the prompt holds it and none may come twice."""
    prompt = next(one for first in range(3, 99) if next_of_sum(one := [first, 4, 7]) in one)
    bench = Bench()
    heard = bench.submit(prompt, no_repeat_ngram_size=1, max_new_tokens=1)
    bench.run()
    assert result_of(heard).best.token_ids[0] not in prompt


def test_taps_of_a_step_cover_the_prompt_and_those_of_the_prefill_are_its_own() -> None:
    """Queries of three answers see 4, 5 and 6 keys; the prompt's are cut to its four positions."""
    bench = Bench()
    bench.submit(prompts(4)[3])
    heard = bench.submit([5, 6, 7, 8], "decoder.self.0", "prompt.self.0", max_new_tokens=3)
    bench.run()
    taps = result_of(heard).best.taps
    assert taps["decoder.self.0"].shape == (2, 3, 6)
    assert [np.count_nonzero(taps["decoder.self.0"][0, query]) for query in range(3)] == [4, 5, 6]
    assert taps["prompt.self.0"][0].tolist() == np.tri(4).tolist()


def test_a_prompt_and_what_follows_share_the_positions() -> None:
    """Of 65 tokens, sixty leave room for five, and end of the cache is not passed."""
    bench = Bench()
    options = options_of(bench.manifest.generation, {}, prompt_tokens=60)
    assert options.max_new_tokens == 5
    with pytest.raises(InvalidInputError, match="max_new_tokens is 6; it must be from 1 to 5"):
        options_of(bench.manifest.generation, {"max_new_tokens": 6}, prompt_tokens=60)
    heard = bench.submit([5] * 60, max_new_tokens=5)
    bench.run()
    assert result_of(heard).best.token_ids == continued([5] * 60, 5)
    assert bench.steps.calls[-1]["past_key.0"].shape[2] == 64


def test_a_checkpoint_s_own_length_counts_the_prompt() -> None:
    """Its max_length of 20 leaves twelve tokens behind eight, and none behind twenty: then the request must say."""
    spec = sum_package().manifest.generation
    assert spec is not None
    spec = spec.model_copy(update={"defaults": spec.defaults.model_copy(update={"max_length": 20, "min_length": 10})})
    assert options_of(spec, {}, prompt_tokens=8).max_new_tokens == 12
    assert options_of(spec, {}, prompt_tokens=8).min_new_tokens == 2
    assert options_of(spec, {"max_new_tokens": 30}, prompt_tokens=20).max_new_tokens == 30
    with pytest.raises(InvalidInputError, match="max_new_tokens must be set"):
        options_of(spec, {}, prompt_tokens=20)


def test_an_end_of_sentence_in_the_prompt_ends_nothing() -> None:
    """Only generated tokens can end a sequence."""
    bench = Bench()
    heard = bench.submit([END, 5, END])
    bench.run()
    assert result_of(heard).best.token_ids == continued([END, 5, END])
