"""The tokens that a text can become, and whether a model has an embedding for each."""

from __future__ import annotations

from tokenizers import Tokenizer


def furthest_token(tokenizer: Tokenizer, pad_token_id: int) -> int:
    """Return the largest token that a text, what is put around it or its padding can become.

    Special tokens that nothing puts there are left out: a text that spells one isn't cut into it.
    """
    known = set(tokenizer.get_vocab(with_added_tokens=True).values())
    special = {token_id for token_id, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    around = {*tokenizer.encode("").ids, pad_token_id}
    return max(known - special | around)


def named(tokenizer: Tokenizer, token_id: int) -> str:
    """Return a token's number and, if it has one, its name."""
    token = tokenizer.id_to_token(token_id)
    return str(token_id) if token is None else f"{token_id} ({token!r})"
