"""The options of a search, which every command takes that generates text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from regard.cli.flags import Flag, Group

if TYPE_CHECKING:
    from regard.client import GenerationOptions

FLAGS: dict[str, tuple[Any, str]] = {
    "max_new_tokens": (int, "The most tokens to generate."),
    "min_new_tokens": (int, "The fewest tokens to generate."),
    "num_beams": (int, "Beams of a beam search; 1 is greedy. Default: as the checkpoint asks."),
    "length_penalty": (float, "Above 0 favours long sequences of a beam search, below 0 short ones."),
    "early_stopping": (
        Literal["false", "true", "never"],
        "End a beam search as soon as enough sequences have ended, or never before the best is sure.",
    ),
    "num_return_sequences": (int, "Sequences to return, the best first; one a line."),
    "do_sample": (bool, "Draw tokens by their probability."),
    "temperature": (float, "Sharpen (below 1) or flatten (above 1) what is drawn from."),
    "top_k": (int, "Draw from so many of the likeliest tokens; 0 is all."),
    "top_p": (float, "Draw from the likeliest tokens that sum to this probability."),
    "min_p": (float, "Draw from tokens of at least this share of the likeliest one's probability."),
    "seed": (int, "Draw as the last time with this seed."),
    "repetition_penalty": (float, "Above 1 discourages tokens that were there before."),
    "no_repeat_ngram_size": (int, "Let no run of so many tokens come twice."),
    "bad_words": (list[str], "A text that must not come; may be repeated."),
    "target_language": (str, 'The language to write, as the tokenizer spells its token, such as "fr_XX".'),
    "target_prefix": (str, "What the output begins with."),
    "stop_strings": (list[str], "A text before which the output ends; may be repeated."),
    "alternatives_position": (
        int,
        "Where several sequences part, each with another of the likeliest tokens, if the output is so long.",
    ),
    "top_logprobs": (int, "List so many of the likeliest tokens at each position (with --json)."),
    "return_scores": (bool, "Tell log-probabilities and scores (with --json), which costs a few percent; the default."),
}
"""Each option, by the name that the client has for it: its type and its help."""
_SINGULAR = {"bad_words": "--bad-word", "stop_strings": "--stop"}
_EARLY_STOPPING: dict[str, bool | Literal["never"]] = {"false": False, "true": True, "never": "never"}


def _flag(name: str, kind: Any, help_text: str) -> Flag:
    flag = _SINGULAR.get(name, f"--{name.replace('_', '-')}")
    if kind is bool:
        flag += f"/--no-{name.replace('_', '-')}"
    return Flag(kind, (flag,), help_text)


def _search(given: Mapping[str, Any]) -> GenerationOptions:
    found: Any = {name: given[name] for name in FLAGS if given[name] is not None and given[name] != []}
    if "early_stopping" in found:
        found["early_stopping"] = _EARLY_STOPPING[found["early_stopping"]]
    options: GenerationOptions = found
    return options


SEARCH = Group("search", "Search", {name: _flag(name, *flag) for name, flag in FLAGS.items()}, _search)
"""How to search, as `GenerationOptions` of what was given only."""
