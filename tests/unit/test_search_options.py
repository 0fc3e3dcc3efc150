"""What a request may ask of the search, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from regard.engine.search.options import options_of
from regard.engine.search.rules import Rules
from regard.errors import InvalidInputError
from regard.manifest import GenerationDefaults, GenerationSpec
from regard.testing import END, PAD, echo_package

SPEC = echo_package(max_tokens=64).manifest.generation
assert SPEC is not None
OWN: GenerationSpec = SPEC.model_copy(
    update={
        "forced_eos_token_id": END,
        "defaults": GenerationDefaults(
            num_beams=4, length_penalty=2.0, min_length=11, no_repeat_ngram_size=3, bad_words_ids=((5, 6),)
        ),
    }
)


def test_a_request_that_asks_for_nothing_gets_what_generate_would_do() -> None:
    """The checkpoint's own beams, penalties and lengths; its minimum counts the start token."""
    options = options_of(OWN, {})
    assert (options.num_beams, options.length_penalty, options.no_repeat_ngram_size) == (4, 2.0, 3)
    assert (options.min_new_tokens, options.max_new_tokens) == (10, 64)
    assert options.forced_eos_token_id == END
    assert options.width == 4


@pytest.mark.parametrize(
    ("given", "prompt_tokens", "expected"),
    [({}, 30, (5, 12)), ({}, 62, (3, 3)), ({"max_new_tokens": 30, "min_new_tokens": 0}, 30, (0, 30))],
)
def test_new_tokens_of_a_checkpoint_count_no_prompt(
    given: dict[str, Any], prompt_tokens: int, expected: tuple[int, int]
) -> None:
    """As in `generate()`, they come before its lengths, which the prompt has passed; the request comes before both."""
    defaults = GenerationDefaults(min_length=25, max_length=20, min_new_tokens=5, max_new_tokens=12)
    options = options_of(SPEC.model_copy(update={"defaults": defaults}), given, prompt_tokens)
    assert (options.min_new_tokens, options.max_new_tokens) == expected


def test_what_a_request_gives_takes_the_place_of_the_checkpoints_own() -> None:
    """All but the bad words, which are added."""
    given = {"num_beams": 2, "min_new_tokens": 0, "no_repeat_ngram_size": 0, "bad_words_ids": ((7,),)}
    options = options_of(OWN, given)
    assert (options.num_beams, options.min_new_tokens, options.no_repeat_ngram_size) == (2, 0, 0)
    assert options.bad_words_ids == ((5, 6), (7,))


def test_a_prefix_takes_of_the_models_positions() -> None:
    """Sixty positions are left behind a prefix of four, and the checkpoint's minimum is met the sooner."""
    options = options_of(OWN, {"prefix_token_ids": (5, 6, 7, 8)})
    assert (options.min_new_tokens, options.max_new_tokens) == (6, 60)


def test_the_checkpoints_minimum_is_no_more_than_a_request_allows() -> None:
    """Five tokens at most are five at least, as in `generate()`: the request has said nothing of a minimum."""
    options = options_of(OWN, {"max_new_tokens": 5})
    assert (options.min_new_tokens, options.max_new_tokens) == (5, 5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_new_tokens": 65}, "max_new_tokens is 65; it must be from 1 to 64"),
        ({"max_new_tokens": 5, "min_new_tokens": 6}, "min_new_tokens is 6; it must be from 0 to 5"),
        ({"num_beams": 0}, "num_beams is 0; it must be from 1 to 25"),
        ({"num_beams": 26}, "num_beams is 26; it must be from 1 to 25"),
        ({"num_beams": 2, "length_penalty": float("nan")}, "length_penalty is nan"),
        ({"do_sample": True, "temperature": 0.0}, "temperature is 0; it must be from 0.01 to 100"),
        ({"do_sample": True, "top_p": 1.01}, "top_p is 1.01; it must be from 0 to 1"),
        ({"do_sample": True, "top_p": 1.0000001}, "top_p is 1.0000001; it must be from 0 to 1"),
        ({"do_sample": True, "top_p": 1e300}, "top_p is 1e+300; it must be from 0 to 1"),
        ({"do_sample": True, "top_k": 2**32 - 1}, "top_k is 4294967295; it must be from 0 to 2147483647"),
        ({"do_sample": True, "seed": 2**64}, "seed is 18446744073709551616; it must be from 0 to 18446744073709551615"),
        ({"no_repeat_ngram_size": 2**31}, "no_repeat_ngram_size is 2147483648; it must be from 0 to 2147483647"),
        ({"bad_words_ids": ((5, 100),)}, "bad_words_ids names token 100; the model's go from 0 to 99"),
        ({"do_sample": True, "min_p": -0.5}, "min_p is -0.5; it must be from 0 to 1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0; it must be from 0.01 to 100"),
        ({"top_logprobs": 33}, "top_logprobs is 33; it must be from 0 to 32"),
        ({"suppress_tokens": (100,)}, "suppress_tokens names token 100; the model's go from 0 to 99"),
        ({"suppress_tokens": (5,) * 1025}, "suppress_tokens has 1025 tokens; at most 1024"),
        ({"bad_words_ids": ((),)}, "bad_words holds a word without tokens"),
        ({"forced_bos_token_id": 100}, "forced_bos_token_id names token 100"),
        ({"prefix_token_ids": (5,) * 64}, "target_prefix has 64 tokens; the most that leaves room for more is 63"),
    ],
)
def test_a_value_out_of_range_is_refused(given: dict[str, Any], message: str) -> None:
    """The message names the option, its value and the range."""
    with pytest.raises(InvalidInputError) as caught:
        options_of(SPEC, given)
    assert caught.value.message.startswith(f"generation.{message}")
    assert caught.value.field == f"generation.{message.split()[0]}"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_beams": 2, "do_sample": True}, "do_sample can't be set with num_beams 2; set num_beams to 1"),
        ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences is 3; num_beams 2 gives no more"),
        ({"num_return_sequences": 3}, "num_return_sequences is 3; that needs num_beams, do_sample or alternatives"),
        ({"alternatives_position": 1}, "alternatives_position needs num_return_sequences of 2 or more"),
        (
            {"alternatives_position": 1, "num_beams": 3, "num_return_sequences": 3},
            "alternatives_position can't be set with num_beams 3",
        ),
        (
            {"alternatives_position": 1, "do_sample": True, "num_return_sequences": 3},
            "alternatives_position can't be set with do_sample",
        ),
        (
            {"alternatives_position": 0, "num_return_sequences": 2, "max_new_tokens": 1, "forced_eos_token_id": END},
            "alternatives_position can't be set with max_new_tokens 1: all of them are forced",
        ),
        ({"temperature": 0.5}, "temperature has no effect without do_sample"),
        ({"top_k": 5}, "top_k has no effect without do_sample"),
        ({"seed": 5}, "seed has no effect without do_sample"),
        ({"length_penalty": 0.5}, "length_penalty has no effect with num_beams 1"),
        ({"early_stopping": True}, "early_stopping has no effect with num_beams 1"),
        ({"return_scores": False, "top_logprobs": 2}, "return_scores can't be false with top_logprobs 2"),
        ({"forced_bos_token_id": 7, "suppress_tokens": (5, 7)}, "suppress_tokens bans token 7, with which the same"),
        ({"forced_eos_token_id": 7, "suppress_tokens": (7,)}, "suppress_tokens bans token 7, with which the same"),
        ({"forced_bos_token_id": 7, "bad_words_ids": ((5, 7), (7,))}, "bad_words bans token 7, with which the same"),
        ({"forced_eos_token_id": 7, "bad_words_ids": ((7,),)}, "bad_words bans token 7, with which the same"),
        ({"forced_bos_token_id": 5, "prefix_token_ids": (6,)}, "forced_bos_token_id can't be set with target_prefix"),
    ],
)
def test_a_combination_that_cannot_be_honoured_is_refused(given: dict[str, Any], message: str) -> None:
    """Also one of which a part would have no effect: nothing is ever ignored."""
    with pytest.raises(InvalidInputError) as caught:
        options_of(SPEC, given)
    assert caught.value.message.startswith(f"generation.{message}")


@pytest.mark.parametrize(
    "given",
    [
        {"suppress_tokens": (END,)},
        {"forced_eos_token_id": END, "bad_words_ids": ((END,),)},
        {"forced_bos_token_id": 7, "bad_words_ids": ((7, 8),)},
    ],
)
def test_a_ban_may_meet_what_the_checkpoint_forces(given: dict[str, Any]) -> None:
    """The request has then asked for no two things; nor has it with the end as a bad word, or a longer word."""
    assert options_of(OWN, given).forced_eos_token_id == END


def test_sampling_needs_the_checkpoints_beams_to_be_turned_off() -> None:
    """Where the checkpoint asks for four beams, the refusal says what to set."""
    with pytest.raises(InvalidInputError, match="with num_beams 4; set num_beams to 1"):
        options_of(OWN, {"do_sample": True})
    assert options_of(OWN, {"do_sample": True, "num_beams": 1}).width == 1


@pytest.mark.parametrize("forced", [{}, {"forced_bos_token_id": 7}, {"prefix_token_ids": (7, 8)}])
@pytest.mark.parametrize("end", [None, END])
def test_alternatives_part_where_a_token_is_chosen(forced: dict[str, Any], end: int | None) -> None:
    """The last position that is taken is that of the last token that nothing forces; one more is refused."""
    given = forced | {"forced_eos_token_id": end, "max_new_tokens": 10, "num_return_sequences": 2}
    last = 9 - ("forced_bos_token_id" in forced) - (end is not None)
    options = options_of(SPEC, given | {"alternatives_position": last})
    rules = Rules.of(options, SPEC, [PAD])
    assert rules.first_free + last == rules.limit - 1 - (end is not None)
    with pytest.raises(InvalidInputError, match=f"alternatives_position is {last + 1}; it must be from 0 to {last}$"):
        options_of(SPEC, given | {"alternatives_position": last + 1})
