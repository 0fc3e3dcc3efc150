"""What a decoder has read before its first answer."""

from __future__ import annotations

from dataclasses import dataclass

from regard.engine.source import Source, Tokens
from regard.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Prompt:
    """The tokens before the first that is generated, and how many positions the prefill has put into the cache.

    The last token is fed to the first step: an encoder-decoder has but its start token and an empty
    cache, a completion has all but one of its prompt in there.
    """

    token_ids: tuple[int, ...]
    cached: int = 0


def prompt_of(source: Source, manifest: Manifest) -> Prompt:
    """Return what a request for `source` begins with: a prompt has at least one token."""
    assert manifest.generation is not None
    if manifest.reader == "prefill" and isinstance(source, Tokens):
        return Prompt(tuple(source.input_ids.tolist()), source.length - 1)
    start = (manifest.generation.start_token_id,)
    return Prompt(start, source.length if manifest.reader == "prefill" else 0)
