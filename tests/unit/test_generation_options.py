"""From the message that asks for a search to the options of the engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken

from regard.engine.search.options import GenerationOptions
from regard.errors import InvalidInputError
from regard.manifest import GenerationSpec, Task
from regard.rpc.options import search_of
from regard.text.codec import TextCodec
from regard.v1 import generation_pb2

from .packages import manifest_of, package_of, unigram, word_piece

Asked = tuple[GenerationSpec, TextCodec]


OTHERS = ("<mask>", "<s>", "[CLS]", "<extra_id_0>", "<start>")


@pytest.fixture
def model(tmp_path: Path) -> Asked:
    """A model with a token for each of two languages."""
    tokenizer = unigram()
    tokenizer.add_special_tokens([*map(AddedToken, ("fr_XX", "de_DE", *OTHERS))])
    manifest = manifest_of(Task.TRANSLATION)
    assert manifest.generation is not None
    sizes = {"vocabulary_size": tokenizer.get_vocab_size(), "start_token_id": tokenizer.token_to_id("<start>")}
    spec = manifest.generation.model_copy(update=sizes)
    return spec, TextCodec(package_of(tmp_path, tokenizer, manifest))


def options(
    model: Asked, *, streaming: bool = False, fixed: Mapping[str, Any] | None = None, **fields: Any
) -> GenerationOptions:
    """Return what the engine is asked for by a message of these fields."""
    message = generation_pb2.GenerationOptions(**fields)
    return search_of(message, *model, streaming=streaming, fixed=fixed or {}).behind()


def test_an_empty_message_asks_for_what_the_checkpoint_asks_for(model: Asked) -> None:
    """Greedy, and as long as the model allows."""
    assert options(model) == GenerationOptions(max_new_tokens=32)


def test_a_prefix_stands_behind_the_fixed_one(model: Asked) -> None:
    """What a task says itself, such as the language that is spoken, comes first."""
    asked = options(model, fixed={"prefix_token_ids": (7, 8), "prefix_choices": (5, 6)}, target_prefix="The cat")
    assert asked.prefix_token_ids == (7, 8, *model[1].pieces("The cat"))
    assert asked.prefix_choices == (5, 6)


def test_what_a_task_fixes_is_not_counted_as_the_requests(model: Asked) -> None:
    """Of 32 positions one is the start token's, two are the task's, and one must be left to generate."""
    prefix = "The cat sat on the mat. " * 9
    given = len(model[1].pieces(prefix))
    with pytest.raises(InvalidInputError, match=f"target_prefix has {given} tokens; .* room for more is 29"):
        options(model, fixed={"prefix_token_ids": (7, 8)}, target_prefix=prefix)


def test_every_field_has_its_option(model: Asked) -> None:
    """Also those that are given as what is 0 or False."""
    asked = options(
        model,
        max_new_tokens=9,
        min_new_tokens=2,
        num_beams=4,
        length_penalty=0,
        early_stopping=generation_pb2.EARLY_STOPPING_NEVER,
        num_return_sequences=2,
        do_sample=False,
        repetition_penalty=1.5,
        no_repeat_ngram_size=3,
        bad_words_ids=[generation_pb2.TokenIds(token_ids=[5, 6])],
        suppress_tokens=[7],
        forced_bos_token_id=0,
        forced_eos_token_id=3,
        return_scores=False,
    )
    assert asked == GenerationOptions(
        max_new_tokens=9,
        min_new_tokens=2,
        num_beams=4,
        length_penalty=0,
        early_stopping="never",
        num_return_sequences=2,
        repetition_penalty=1.5,
        no_repeat_ngram_size=3,
        bad_words_ids=((5, 6),),
        suppress_tokens=(7,),
        forced_bos_token_id=0,
        forced_eos_token_id=3,
        return_scores=False,
    )
    assert options(model, top_logprobs=4, return_scores=True).top_logprobs == 4


def test_listed_tokens_come_with_their_scores(model: Asked) -> None:
    """To list them without is refused."""
    with pytest.raises(InvalidInputError, match="return_scores can't be false with token_logprobs") as caught:
        options(model, token_logprobs=True, return_scores=False)
    assert caught.value.field == "generation.return_scores"


def test_texts_become_tokens(model: Asked) -> None:
    """A prefix, bad words, and a language by the name of its token."""
    codec = model[1]
    assert options(model, target_prefix="The cat").prefix_token_ids == tuple(codec.pieces("The cat"))
    assert options(model, bad_words=["cat", "mat"]).bad_words_ids == (
        tuple(codec.pieces("cat")),
        tuple(codec.pieces("mat")),
    )
    assert options(model, target_language="de_DE").forced_bos_token_id == codec.special_token("de_DE")


def test_draws_begin_elsewhere_unless_a_seed_says_where(model: Asked) -> None:
    """Two requests without a seed differ; a seed is kept, also 0."""
    assert options(model, do_sample=True).seed != options(model, do_sample=True).seed
    assert options(model, do_sample=True, seed=0).seed == 0


TOO_LONG: dict[str, tuple[dict[str, Any], str]] = {
    "words": ({"bad_words": ["x"] * 1025}, "bad_words has 1025 words; at most 1024"),
    "one-letter words": ({"bad_words": ["x "] * 99_999}, "bad_words has 99999 words; at most 1024"),
    "characters of words": ({"bad_words": ["x" * 65_536, "x"]}, "bad_words has 65537 characters; at most 65536"),
    "words of tokens": (
        {"bad_words_ids": [generation_pb2.TokenIds()] * 1025},
        "bad_words_ids has 1025 words; at most 1024",
    ),
    "tokens of words": (
        {"bad_words_ids": [generation_pb2.TokenIds(token_ids=[5] * 513)] * 2},
        "bad_words_ids has 1026 tokens; at most 1024",
    ),
    "tokens": ({"suppress_tokens": [5] * 1025}, "suppress_tokens has 1025 tokens; at most 1024"),
    "a prefix": ({"target_prefix": "x" * 65_537}, "target_prefix has 65537 characters; at most 65536"),
}


@pytest.mark.parametrize("name", TOO_LONG)
def test_what_is_too_long_is_refused_before_it_is_tokenized(
    model: Asked, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists by their length, and texts by their characters, before one token is made of them."""

    def pieces(codec: TextCodec, text: str) -> list[int]:
        raise AssertionError("nothing may be tokenized")

    monkeypatch.setattr(TextCodec, "pieces", pieces)
    fields, message = TOO_LONG[name]
    with pytest.raises(InvalidInputError) as caught:
        options(model, **fields)
    assert caught.value.message.startswith(f"generation.{message}")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stop_strings": ["."] * 17}, "stop_strings has 17 strings; at most 16"),
        ({"stop_strings": [""]}, "stop_strings holds a string of 0 characters; it takes 1 to 100"),
        ({"stop_strings": ["x" * 101]}, "stop_strings holds a string of 101 characters"),
        ({"stop_strings": ["cat"], "target_prefix": "The cat"}, "target_prefix holds the stop string 'cat'"),
        ({"target_language": "the"}, "target_language is 'the', which is no special token of the model"),
        ({"target_language": "xx_XX"}, "target_language is 'xx_XX', which is no special token of the model"),
        ({"target_language": "x" * 10**6}, f"target_language is '{'x' * 100}…', which is no special token"),
        ({"target_prefix": " \t"}, "target_prefix gives no token; it needs at least 1 character that the model reads"),
        ({"target_prefix": "The\0cat"}, "target_prefix holds a NUL (U+0000) at position 3, which is no text"),
        ({"target_language": "</s>"}, "target_language is '</s>', which stands for the end of a sentence"),
        ({"target_language": "<unk>"}, "target_language is '<unk>', which stands for what the vocabulary doesn't know"),
        ({"target_language": "<pad>"}, "target_language is '<pad>', which stands for padding"),
        ({"target_language": "<mask>"}, "target_language is '<mask>', which stands for a word that is left out"),
        ({"target_language": "<s>"}, "target_language is '<s>', which stands for no language"),
        ({"target_language": "[CLS]"}, "target_language is '[CLS]', which stands for no language"),
        ({"target_language": "<extra_id_0>"}, "target_language is '<extra_id_0>', which stands for no language"),
        ({"target_language": "<start>"}, "target_language is '<start>', which stands for the beginning of a text"),
        ({"target_language": "fr_XX", "forced_bos_token_id": 5}, "target_language can't be set with forced_bos"),
        ({"early_stopping": 9}, "early_stopping has no value 9"),
        ({"num_beams": 2, "num_return_sequences": 2}, "num_return_sequences is 2; a stream gives one sequence"),
        ({"temperature": 2.0}, "temperature has no effect without do_sample"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(model: Asked, fields: dict[str, Any], message: str) -> None:
    """The field is named in the message and beside it."""
    with pytest.raises(InvalidInputError) as caught:
        options(model, streaming=True, **fields)
    assert caught.value.message.startswith(f"generation.{message}")
    assert caught.value.field == f"generation.{message.split()[0]}"


def test_a_prefix_is_looked_through_for_stop_strings_as_the_model_spells_it(tmp_path: Path) -> None:
    """A tokenizer that lower-cases makes a stop string of what was none."""
    manifest = manifest_of(Task.TRANSLATION)
    assert manifest.generation is not None
    lower = manifest.generation, TextCodec(package_of(tmp_path, word_piece(), manifest))
    assert options(lower, target_prefix="the cat", stop_strings=["The"]).prefix_token_ids
    with pytest.raises(InvalidInputError, match="target_prefix holds the stop string 'the'"):
        options(lower, target_prefix="The cat", stop_strings=["the"])
