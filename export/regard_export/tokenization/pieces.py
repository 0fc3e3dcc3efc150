"""SentencePiece models whose vocabulary is a file of its own (Marian's, M2M100's), as tokenizers; SigLIP's, too.

The model cuts a text into pieces, and the vocabulary names each piece's id by its spelling. The two
don't agree: pieces may lack an id, and a vocabulary holds what the other language's model cuts. So
each becomes a tokenizer of its own.
"""

from __future__ import annotations

import re
import string
from typing import Any

from sentencepiece import sentencepiece_model_pb2
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from transformers import M2M100Tokenizer, MarianTokenizer, SiglipTokenizer

from regard_export.errors import CheckpointError

SPACE = "▁"
_NORMAL, _USER_DEFINED = 1, 4
_UNIGRAM, _BPE = 1, 2
_WHITE_SPACE = r"\s\x1c-\x1f"
"""As Python has it."""
_FINAL_SIGMA = r"(?<=\p{L})Σ(?!\p{L})"
_UNREACHABLE = "\0"
"""The unknown piece's spelling, which no text has."""


def understands(tokenizer: Any) -> bool:
    """Tell whether a tokenizer is of the kinds that this file turns into others."""
    return isinstance(tokenizer, MarianTokenizer | M2M100Tokenizer | SiglipTokenizer)


def vocabulary(tokenizer: Any) -> Tokenizer:
    """Return the tokenizer that knows every piece's id and joins pieces; it cuts nothing."""
    if getattr(tokenizer, "separate_vocabs", False):
        raise CheckpointError(
            "the tokenizer has a vocabulary for each language (separate_vocabs), which is unsupported"
        )
    languages: dict[str, int] = getattr(tokenizer, "lang_token_to_id", {})
    result = Tokenizer(models.WordLevel(tokenizer.get_vocab() | languages, unk_token=tokenizer.unk_token))
    result.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.Fuse(), decoders.Replace(Regex(r"\A +| +\z"), "")]
    )
    controls = _controls(tokenizer.sp_model) if isinstance(tokenizer, SiglipTokenizer) else []
    result.add_special_tokens([*tokenizer.all_special_tokens, *controls, *languages])
    return result


def source_cutter(tokenizer: Any) -> Tokenizer:
    """Return the tokenizer that cuts sources, special tokens included."""
    is_marian = isinstance(tokenizer, MarianTokenizer)
    result = _cutter(tokenizer.spm_source if is_marian else tokenizer.sp_model)
    if isinstance(tokenizer, SiglipTokenizer):
        result.normalizer = normalizers.Sequence([*_plain_words(tokenizer), result.normalizer])
    ends = [token if token == "$A" else tokenizer.convert_ids_to_tokens(token) for token in _template(tokenizer)]
    special = [token for token in ends if token != "$A"]
    result.add_special_tokens(special)
    result.post_processor = processors.TemplateProcessing(
        single=ends, special_tokens=[(token, result.token_to_id(token)) for token in special]
    )
    if is_marian:  # such as >>fra<<, with which a text begins to choose the target's language
        codes = tokenizer.supported_language_codes
        result.add_tokens([AddedToken(code, special=False, normalized=False) for code in codes])
    return result


def target_cutter(tokenizer: Any) -> Tokenizer | None:
    """Return the tokenizer that cuts targets, without special tokens; None if it is the sources'."""
    return _cutter(tokenizer.spm_target) if isinstance(tokenizer, MarianTokenizer) else None


def _plain_words(tokenizer: SiglipTokenizer) -> list[normalizers.Normalizer]:
    """Return what leaves words alone of a text: small letters, without punctuation, one space apart.

    Python makes another letter of a capital sigma where a word ends (The Unicode Standard, section 3.13).
    """
    lower = [normalizers.Replace(Regex(_FINAL_SIGMA), "ς"), normalizers.Lowercase()]
    return [
        *(lower if tokenizer.do_lower_case else []),
        normalizers.Replace(Regex(f"[{re.escape(string.punctuation)}]"), ""),
        normalizers.Replace(Regex(f"[{_WHITE_SPACE}]+"), " "),
        normalizers.Strip(),
    ]


def _controls(processor: Any) -> list[str]:
    """Return the pieces of a SentencePiece model that stand for no text, such as padding."""
    numbers = range(processor.get_piece_size())
    return [processor.id_to_piece(number) for number in numbers if processor.is_control(number)]


def _template(tokenizer: Any) -> list[Any]:
    template: list[Any] = tokenizer.build_inputs_with_special_tokens(["$A"])
    return template


def _cutter(processor: Any) -> Tokenizer:
    messages: Any = sentencepiece_model_pb2  # made as it is imported, so nothing knows its types
    model = messages.ModelProto.FromString(processor.serialized_model_proto())
    trained = model.trainer_spec
    if trained.treat_whitespace_as_suffix or trained.byte_fallback:
        raise CheckpointError(
            "the SentencePiece model treats white space as a suffix or falls back to bytes, unsupported"
        )
    if trained.model_type == _UNIGRAM:
        cutter = Tokenizer(_unigram(model))
    elif trained.model_type == _BPE:
        cutter = Tokenizer(_bpe(model))
    else:
        raise CheckpointError("the SentencePiece model is neither unigram nor BPE: unsupported")
    cutter.normalizer = _normalizer(model.normalizer_spec)
    scheme = "always" if model.normalizer_spec.add_dummy_prefix else "never"
    cutter.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme=scheme, split=False)
    return cutter


def _unigram(model: Any) -> models.Unigram:
    """Control symbols are left out, as no text is cut into them; a user's own win over any other cut."""
    best = max(piece.score for piece in model.pieces if piece.type == _NORMAL)
    scores = [(_UNREACHABLE, 0.0)]
    for piece in model.pieces:
        if piece.type == _NORMAL:
            scores.append((piece.piece, piece.score))
        elif piece.type == _USER_DEFINED:
            scores.append((piece.piece, len(piece.piece) * best - 0.1))
    return models.Unigram(scores, unk_id=0)


def _bpe(model: Any) -> models.BPE:
    """Any two pieces that make up a third one merge, those of the best score first."""
    kept = [piece for piece in model.pieces if piece.type in (_NORMAL, _USER_DEFINED)]
    ids = {_UNREACHABLE: 0} | {piece.piece: number for number, piece in enumerate(kept, 1)}
    merges = [
        (piece.piece[:cut], piece.piece[cut:])
        for piece in sorted(kept, key=lambda piece: -piece.score)
        for cut in range(1, len(piece.piece))
        if piece.piece[:cut] in ids and piece.piece[cut:] in ids
    ]
    return models.BPE(ids, merges, unk_token=_UNREACHABLE, fuse_unk=True)


def _normalizer(spec: Any) -> normalizers.Normalizer:
    """Return what makes the model's own normal form of a text.

    The `Precompiled` one looks at user-perceived characters as wholes, and loses marks or leaves
    syllables in parts where one is written with several; after NFKC none is left that it could.
    """
    steps: list[normalizers.Normalizer] = []
    if spec.precompiled_charsmap:
        steps += [normalizers.NFKC()] if "nfkc" in spec.name else []
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    return normalizers.Sequence(steps)
