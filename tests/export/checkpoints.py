"""Small random checkpoints of real model classes, in the files that Transformers writes.

Their weights are drawn wide, so that attention peaks: near-uniform attention would hide errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import GenerationConfig, PreTrainedTokenizerFast

from .vocabularies import save_plain_words

VOCABULARY = 120
EOS, UNK, PAD = 0, 1, 2
TEXT_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 160,
    "pad_token_id": PAD,
    "bos_token_id": EOS,
    "eos_token_id": EOS,
}
IMAGE_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": (16, 24),
    "patch_size": 4,
}
CLIP_WORDS = 84
SWIN_SIZES = {
    "image_size": 32,
    "patch_size": 2,
    "embed_dim": 16,
    "depths": [2, 2],
    "num_heads": [2, 4],
    "window_size": 4,
}

QUERIES_AND_KEYS = (
    "query",
    "key",
    "q_proj",
    "k_proj",
    "q_lin",
    "k_lin",
    "Attention.q.",
    "Attention.k.",
    "c_attn",
    "qkv",
    "in_proj",
)
"""What their weights are called; those are drawn wider still."""
QUERY_AND_KEY_NORMS = ("q_norm", "k_norm")
"""Norms of each head's queries and keys, which would undo that."""


@dataclass(frozen=True)
class Widths:
    """How wide the matrices of a model are drawn, times the root of the number of values that each output reads."""

    matrices: float = 1.3
    queries_and_keys: float = 2.4


UNSCALED = Widths(matrices=1.0, queries_and_keys=1.2)
"""For scores that aren't divided by the root of a head's size: wider, and rounding grows from layer to layer."""
NARROW = Widths(queries_and_keys=1.8)
"""For models in which wider queries and keys make the eager model's own rounding more than 1e-4."""


def save_translator(directory: Path, model_class: str = "MarianMTModel", **options: object) -> Path:
    """Write a translator of two plus two layers, unless the options say otherwise; return its directory."""
    sizes: dict[str, object] = {
        "vocab_size": VOCABULARY,
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48,
        "max_position_embeddings": 160,
        "scale_embedding": True,
        "pad_token_id": PAD,
        "bos_token_id": EOS,
        "eos_token_id": EOS,
        "decoder_start_token_id": PAD,
        "forced_eos_token_id": EOS,
    }
    model_type = getattr(transformers, model_class)
    model = model_type(model_type.config_class(**sizes | options))
    model.generation_config = GenerationConfig(
        decoder_start_token_id=PAD,
        eos_token_id=EOS,
        pad_token_id=PAD,
        bad_words_ids=[[PAD]],
        forced_eos_token_id=EOS,
        max_length=160,
    )
    return _save(model, directory)


def save_multilingual_translator(directory: Path) -> Path:
    """Write a M2M100 with NLLB's tokenizer of three languages, and return its directory."""
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "▁": 4, "a": 5, "b": 6, "▁a": 7}
    tokenizer = transformers.NllbTokenizer(
        vocab=vocabulary,
        merges=[("▁", "a")],
        extra_special_tokens=["eng_Latn", "fra_Latn", "deu_Latn"],
        model_max_length=144,
    )
    ends = {"pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    save_translator(directory, "M2M100ForConditionalGeneration", **ends)
    GenerationConfig(**ends, max_length=160).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def save_fsmt(directory: Path) -> Path:
    """Write an FSMT with a vocabulary for each language, and return its directory."""
    languages = {"langs": ["en", "de"], "src_vocab_size": 100, "tgt_vocab_size": VOCABULARY}
    save_translator(directory, "FSMTForConditionalGeneration", decoder_start_token_id=EOS, **languages)
    generation = GenerationConfig(
        decoder_start_token_id=EOS, eos_token_id=EOS, forced_eos_token_id=EOS, pad_token_id=PAD, max_length=160
    )
    generation.save_pretrained(directory)
    return directory


def save_completer(directory: Path, kind: str = "GPT2", **sizes: object) -> Path:
    """Write a causal language model of two layers, and return its directory."""
    widths = {"OPT": {"ffn_dim": 48, "word_embed_proj_dim": 32}}
    config = getattr(transformers, f"{kind}Config")(**TEXT_SIZES | widths.get(kind, {}) | sizes)
    classes = {"GPT2": "GPT2LMHeadModel", "Gemma3Text": "Gemma3ForCausalLM"}
    model = getattr(transformers, classes.get(kind, f"{kind}ForCausalLM"))(config)
    return _save(model, directory)


def save_git(directory: Path) -> Path:
    """Write a GitForCausalLM of two layers in each stack, for images of 16 by 16; return its directory."""
    ends = {"bos_token_id": UNK, "eos_token_id": EOS}
    config = transformers.GitConfig(**TEXT_SIZES | ends, vision_config=IMAGE_SIZES | {"image_size": 16})
    model = transformers.GitForCausalLM(config)
    model.generation_config = GenerationConfig(**ends, pad_token_id=PAD, max_length=48)
    return _save(model, save_processor(directory, "CLIP", size={"height": 16, "width": 16}, do_center_crop=False))


def save_t5(directory: Path, model_class: str = "T5ForConditionalGeneration") -> Path:
    """Write a T5 of two plus two layers, whose positions fall into few buckets; return its directory."""
    model_type = getattr(transformers, model_class)
    config = model_type.config_class(
        vocab_size=VOCABULARY,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=12,
        pad_token_id=PAD,
        eos_token_id=EOS,
        decoder_start_token_id=PAD,
    )
    return _save(model_type(config), directory, widths=UNSCALED)


def save_classifier(
    directory: Path, model_class: str = "Bert", head: str = "SequenceClassification", **sizes: object
) -> Path:
    """Write a text classifier of two layers and three classes, or another `head`, and return its directory."""
    labels = {"num_labels": 2 if head == "QuestionAnswering" else 3}
    config = getattr(transformers, f"{model_class}Config")(**TEXT_SIZES | labels | sizes)
    return _save(getattr(transformers, f"{model_class}For{head}")(config), directory)


def save_clip(directory: Path, *, eos_token_id: int = CLIP_WORDS + 1) -> Path:
    """Write a CLIPModel of two layers each, and return its directory.

    Configurations of before 2023 call the end 2, whatever the tokenizer does: then the largest token is the end.
    """
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    ends = {"bos_token_id": CLIP_WORDS, "eos_token_id": eos_token_id}
    config = transformers.CLIPConfig(
        text_config=sizes | ends | {"vocab_size": CLIP_WORDS + 2, "max_position_embeddings": 24},
        vision_config=sizes | {"image_size": 16, "patch_size": 4},
        projection_dim=16,
    )
    save_processor(directory, "CLIP", size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    _save(transformers.CLIPModel(config), directory, reads_text=False)
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789.,!?'"]
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "ca", "cat</w>"]
    special = ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: index for index, piece in enumerate([*pieces, *special])}
    assert vocabulary["<|startoftext|>"] == CLIP_WORDS
    tokenizer = transformers.CLIPTokenizer(vocab=vocabulary, merges=[("c", "a"), ("ca", "t</w>")], model_max_length=24)
    tokenizer.save_pretrained(directory)
    return directory


def save_siglip(directory: Path, **tokenizer: object) -> Path:
    """Write a SiglipModel of two layers each, and return its directory; `tokenizer` has settings of its own."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    config = transformers.SiglipConfig(
        text_config=sizes | {"vocab_size": 130, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 1},
        vision_config=sizes | {"image_size": 16, "patch_size": 4},
    )
    save_processor(directory, "Siglip", size={"height": 16, "width": 16})
    _save(transformers.SiglipModel(config), directory, reads_text=False)
    return save_plain_words(directory, model_max_length=64, **tokenizer)


def save_siglip_classifier(directory: Path) -> Path:
    """Write a SiglipForImageClassification of two layers and three classes, and return its directory."""
    sizes = {name: size for name, size in IMAGE_SIZES.items() if name != "image_size"}
    config = transformers.SiglipConfig(vision_config=sizes | {"image_size": 16}, num_labels=3)
    model = transformers.SiglipForImageClassification(config)
    return _save(model, save_processor(directory, "Siglip", size={"height": 16, "width": 16}), reads_text=False)


def save_captioner(directory: Path, encoder: str = "ViT", decoder: str = "GPT2", **sizes: object) -> Path:
    """Write a VisionEncoderDecoderModel of two layers each, and return its directory."""
    vision_config = _image_config(encoder, sizes)
    writer_config = getattr(transformers, f"{decoder}Config")(
        **TEXT_SIZES | {"max_position_embeddings": 48, "is_decoder": True, "add_cross_attention": True}
    )
    model = transformers.VisionEncoderDecoderModel(
        encoder=getattr(transformers, f"{encoder}Model")(vision_config, add_pooling_layer=False),
        decoder=transformers.AutoModelForCausalLM.from_config(writer_config),
    )
    model.generation_config = GenerationConfig(
        decoder_start_token_id=UNK, eos_token_id=EOS, pad_token_id=PAD, max_length=48
    )
    return _save(
        model,
        save_processor(directory, **_size(vision_config)),
        widths=NARROW if decoder in ("Bert", "Roberta") else None,
    )


def save_blip(directory: Path) -> Path:
    """Write a BlipForConditionalGeneration of two layers each, and return its directory."""
    ends = {"bos_token_id": UNK, "sep_token_id": EOS, "eos_token_id": EOS}
    config = transformers.BlipConfig(
        text_config=TEXT_SIZES | ends | {"encoder_hidden_size": 32, "is_decoder": True},
        vision_config=IMAGE_SIZES | {"image_size": 16},
        projection_dim=16,
    )
    model = transformers.BlipForConditionalGeneration(config)
    return _save(model, save_processor(directory, "Blip", size={"height": 16, "width": 16}), widths=NARROW)


def save_image_classifier(directory: Path, model_class: str = "ViT", **sizes: object) -> Path:
    """Write an image classifier of two layers and three classes, and return its directory."""
    config = _image_config(model_class, {"num_labels": 3} | sizes)
    model = getattr(transformers, f"{model_class}ForImageClassification")(config)
    return _save(model, save_processor(directory, **_size(config)), reads_text=False)


def save_processor(directory: Path, kind: str = "ViT", **settings: object) -> Path:
    """Write the preprocessor_config.json of an image processor, for images of 16 by 24 unless said otherwise."""
    processor = getattr(transformers, f"{kind}ImageProcessorPil")(**{"size": {"height": 16, "width": 24}} | settings)
    processor.save_pretrained(directory)
    return directory


def _image_config(kind: str, sizes: dict[str, object]) -> transformers.PretrainedConfig:
    return getattr(transformers, f"{kind}Config")(**(SWIN_SIZES if kind == "Swin" else IMAGE_SIZES) | sizes)


def _size(config: transformers.PretrainedConfig) -> dict[str, object]:
    side = config.image_size
    height, width = (side, side) if isinstance(side, int) else side
    return {"size": {"height": height, "width": width}}


def _draw(model: transformers.PreTrainedModel, widths: Widths) -> None:
    """Draw all weights anew: matrices by the width of what they read, norms around 1."""
    generator = torch.Generator().manual_seed(1)
    modules = dict(model.named_modules())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            kind = type(modules[name.rpartition(".")[0]]).__name__
            if parameter.dim() == 2:
                peaks = any(part in name for part in QUERIES_AND_KEYS)
                width = widths.queries_and_keys if peaks else widths.matrices
                read = parameter.shape[0 if kind == "Conv1D" else 1]
                parameter.normal_(0, width / read**0.5, generator=generator)
            elif "norm" in kind.lower() and name.endswith("weight"):
                width = 2 if any(part in name for part in QUERY_AND_KEY_NORMS) else 1
                parameter.normal_(width, 0.1, generator=generator)
            else:
                parameter.normal_(0, 0.1, generator=generator)


def _save(
    model: transformers.PreTrainedModel, directory: Path, *, reads_text: bool = True, widths: Widths | None = None
) -> Path:
    _draw(model, widths or Widths())
    model.save_pretrained(directory)
    if reads_text:
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
        tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>", pad_token="<pad>", model_max_length=144
    )
