"""A checkpoint's tokenizer, as files that the `tokenizers` library reads: the service has nothing else to read one.

- `tokenizer.json` is taken as it is.
- WordPiece (`vocab.txt`), byte-level BPE (`vocab.json`, `merges.txt`) and SentencePiece models that
  bring their own vocabulary (`spiece.model`, `sentencepiece.bpe.model`) become the one file that
  Transformers makes of them.
- SentencePiece models with a vocabulary in a file of its own (Marian, M2M100), and SigLIP's, become a
  vocabulary, and one or two cutters whose pieces are looked up in it.

Whatever is made here is proven: it must cut and join the texts of a corpus as Transformers does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, Siglip2Tokenizer, SiglipTokenizer
from transformers.tokenization_utils_tokenizers import TokenizersBackend

from regard_export.errors import CheckpointError
from regard_export.reading import read
from regard_export.tokenization import pieces
from regard_export.tokenization.proof import prove

TOKENIZER_FILE = "tokenizer.json"
SOURCE_PIECES_FILE = "source_pieces.json"
TARGET_PIECES_FILE = "target_pieces.json"
_MOSES_FILE = "vocab-src.json"
_VOCABULARY_FILES = (
    "spiece.model",
    "sentencepiece.bpe.model",
    "source.spm",
    "spm.model",
    "tokenizer.model",
    "vocab.txt",
    "vocab.json",
)
_MORE_THAN_THEIR_FILE = (SiglipTokenizer, Siglip2Tokenizer)
"""Classes of Transformers that do more to a text than a `tokenizer.json` beside them says, such as lowering letters."""
_OPTIONAL_FILES = {"tokenizer_file", "tokenizer_config_file", "normalizer_file"}


@dataclass(frozen=True)
class TokenizerFiles:
    """The files of a package's tokenizer by their names; `source_pieces` and `target_pieces` are among them."""

    contents: Mapping[str, str]
    source_pieces: str | None = None
    target_pieces: str | None = None


def load_tokenizer(directory: Path) -> Any:
    """Load the tokenizer of a checkpoint. Raises `CheckpointError` if it has none, or one of a kind that can't be."""
    if not (directory / TOKENIZER_FILE).is_file():
        _require_vocabulary(directory)
    tokenizer = read(directory, "tokenizer", lambda: AutoTokenizer.from_pretrained(directory, local_files_only=True))
    if (directory / TOKENIZER_FILE).is_file():
        return tokenizer
    if isinstance(tokenizer, TokenizersBackend):
        for kind, name in tokenizer.vocab_files_names.items():
            if kind not in _OPTIONAL_FILES and not (directory / name).is_file():
                raise CheckpointError(
                    f"{directory.name} has no {name}, which its {type(tokenizer).__name__} needs, and no "
                    f"{TOKENIZER_FILE}"
                )
    elif not pieces.understands(tokenizer):
        raise CheckpointError(
            f"{directory.name}: {type(tokenizer).__name__} cuts texts by rules of its own, which the tokenizers "
            f"library can't express; make a fast tokenizer of it and save that ({TOKENIZER_FILE})"
        )
    return tokenizer


def tokenizer_files(directory: Path, tokenizer: Any, *, marked: bool) -> TokenizerFiles:
    """Return the package's files for a loaded tokenizer; `marked` if it was set to a language since.

    Raises `CheckpointError` if they don't do what the tokenizer does.
    """
    file = directory / TOKENIZER_FILE
    if file.is_file() and not marked and not isinstance(tokenizer, _MORE_THAN_THEIR_FILE):
        return TokenizerFiles({TOKENIZER_FILE: file.read_text("utf-8")})
    if isinstance(tokenizer, TokenizersBackend):
        files = TokenizerFiles({TOKENIZER_FILE: str(tokenizer.backend_tokenizer.to_str(pretty=True))})
    else:
        cutters = {SOURCE_PIECES_FILE: pieces.source_cutter(tokenizer)}
        target = pieces.target_cutter(tokenizer)
        if target is not None:
            cutters[TARGET_PIECES_FILE] = target
        files = TokenizerFiles(
            {TOKENIZER_FILE: pieces.vocabulary(tokenizer).to_str()}
            | {name: cutter.to_str() for name, cutter in cutters.items()},
            source_pieces=SOURCE_PIECES_FILE,
            target_pieces=TARGET_PIECES_FILE if target is not None else SOURCE_PIECES_FILE,
        )
    prove(tokenizer, files.contents[TOKENIZER_FILE], files.contents.get(files.source_pieces or ""))
    return files


def _require_vocabulary(directory: Path) -> None:
    if (directory / _MOSES_FILE).is_file():
        raise CheckpointError(
            f"{directory.name} has a tokenizer after Moses ({_MOSES_FILE}), whose rules for each language the "
            f"tokenizers library can't express; train or convert a fast one and save it ({TOKENIZER_FILE})"
        )
    if not any((directory / name).is_file() for name in _VOCABULARY_FILES):
        raise CheckpointError(
            f"{directory.name} has no {TOKENIZER_FILE}, nor a vocabulary to make one from "
            f"({', '.join(_VOCABULARY_FILES)}); save it with tokenizer.save_pretrained"
        )
