"""Small random checkpoints of real model classes, in the files that Transformers writes.

Their weights are drawn wide, so that attention peaks: near-uniform attention would hide errors.
"""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import GenerationConfig, PreTrainedTokenizerFast

VOCABULARY = 120
EOS, UNK, PAD = 0, 1, 2


def save_translator(directory: Path, **options: object) -> Path:
    """Write a MarianMTModel of two plus two layers and return its directory."""
    config = transformers.MarianConfig(
        **{
            "vocab_size": VOCABULARY,
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "max_position_embeddings": 96,
            "pad_token_id": PAD,
            "eos_token_id": EOS,
            "decoder_start_token_id": PAD,
            "bos_token_id": None,
            "forced_eos_token_id": EOS,
        }
        | options
    )
    model = transformers.MarianMTModel(config)
    model.generation_config = GenerationConfig(
        decoder_start_token_id=PAD,
        eos_token_id=EOS,
        pad_token_id=PAD,
        bad_words_ids=[[PAD]],
        forced_eos_token_id=EOS,
        max_length=96,
    )
    return _save(model, directory)


def save_classifier(directory: Path, model_class: str = "Bert") -> Path:
    """Write a text classifier of two layers and three classes, and return its directory."""
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 96,
        "pad_token_id": PAD,
    }
    distil = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}
    if model_class == "DistilBert":
        sizes = {k: v for k, v in sizes.items() if k in ("vocab_size", "max_position_embeddings", "pad_token_id")}
        sizes |= distil
    config = getattr(transformers, f"{model_class}Config")(**sizes, num_labels=3)
    return _save(getattr(transformers, f"{model_class}ForSequenceClassification")(config), directory)


def _save(model: transformers.PreTrainedModel, directory: Path) -> Path:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 1.3 / parameter.shape[-1] ** 0.5, generator=generator)
            elif "norm" not in name.lower():
                parameter.normal_(0, 0.1, generator=generator)
    model.save_pretrained(directory)
    _tokenizer().save_pretrained(directory)
    return directory


def _tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of whole words: "w5" is token 5."""
    words = {f"w{index}": index for index in range(PAD + 1, VOCABULARY)}
    vocabulary = {"</s>": EOS, "<unk>": UNK, "<pad>": PAD} | words
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", EOS)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>", pad_token="<pad>", model_max_length=90
    )
