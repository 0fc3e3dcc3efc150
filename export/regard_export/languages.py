"""Multilingual translators: a package translates from one language into one other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import GenerationConfig

from regard_export.errors import CheckpointError


@dataclass(frozen=True)
class Languages:
    """The languages that an export asks for, by the codes of the model's tokenizer; None if not asked for."""

    source: str | None
    target: str | None


ANY_LANGUAGES = Languages(None, None)


def choose_languages(tokenizer: Any, generation: GenerationConfig, languages: Languages) -> None:
    """Set the tokenizer to mark texts of the source language, and `generation` to begin with the target's mark.

    Raises `CheckpointError` if the model knows no languages but is asked for some, doesn't know those
    that it is asked for, or knows several and is asked for none.
    """
    if getattr(tokenizer, "src_lang", None) is None:
        if languages != ANY_LANGUAGES:
            raise CheckpointError(
                "the tokenizer knows of no languages: leave --source-language and --target-language out"
            )
        return
    if languages.source is not None:
        _token_of(tokenizer, languages.source, "--source-language")
        tokenizer.src_lang = languages.source
    starts_with_mark = _is_mark(tokenizer, generation.decoder_start_token_id)
    if languages.target is not None:
        mark = _token_of(tokenizer, languages.target, "--target-language")
        if starts_with_mark:
            generation.decoder_start_token_id = mark
        else:
            generation.forced_bos_token_id = mark
    elif not starts_with_mark and generation.forced_bos_token_id is None:
        raise CheckpointError(
            "the model translates between many languages: choose with --source-language and --target-language, "
            f"such as {_examples(tokenizer)}"
        )


def _token_of(tokenizer: Any, code: str, option: str) -> int:
    token = tokenizer.convert_tokens_to_ids(_marks(tokenizer).get(code, code))
    if not _is_mark(tokenizer, token):
        raise CheckpointError(f"{option}: the tokenizer knows no language {code!r}, but {_examples(tokenizer)}")
    return int(token)


def _is_mark(tokenizer: Any, token: int | None) -> bool:
    return token is not None and tokenizer.convert_ids_to_tokens(token) in _marks(tokenizer).values()


def _marks(tokenizer: Any) -> dict[str, str]:
    """Return the tokens that mark languages, by their codes.

    M2M100 has a table of them; elsewhere they are the special tokens that don't look like `<s>`, as
    the others do.
    """
    marks: dict[str, str] | None = getattr(tokenizer, "lang_code_to_token", None)
    return marks or {token: token for token in tokenizer.all_special_tokens if not token.startswith("<")}


def _examples(tokenizer: Any) -> str:
    codes = list(_marks(tokenizer))
    return ", ".join(codes[:3]) + (f" and {len(codes) - 3} more" if len(codes) > 3 else "")
