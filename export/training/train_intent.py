"""Train `export/checkpoints/demo-intent`, a small BERT that names the intent of an utterance, on CLINC150.

    python export/training/train_intent.py --data data_full.json --output DIR

The recipe (all defaults): a WordPiece vocabulary, two layers, every intent and the out-of-scope
utterances as classes, and two losses at once on utterances of which some words are masked: the
class from [CLS] and, as in BERT's own pre-training (Devlin et al. 2019, arXiv:1810.04805), the
masked words. Muon optimises the matrices, AdamW the rest. Out of scope is what the model calls so,
and what it calls anything else with a probability below a threshold that the validation split sets.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import WordPieceTrainer
from torch import nn
from torch.nn import functional
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

import clinc150
from clinc150 import OUT_OF_SCOPE, Utterance, judge
from muon import Muon

PAD, UNK, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
MAX_POSITIONS = 128

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Row:
    """An utterance as the model sees it."""

    input_ids: list[int]
    label: int


def train_tokenizer(texts: Sequence[str], pieces: int) -> PreTrainedTokenizerFast:
    """Return a lower-casing WordPiece tokenizer, as BERT's, with digits one by one.

    Question marks and full stops are white space to it: CLINC150 has none, so they would be unknown.
    The trainer breaks ties at random: each run gives a few other pieces, in another order.
    """
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNK))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Replace("’", "'"),
            normalizers.Replace(Regex(r"[?.]"), " "),
            normalizers.BertNormalizer(lowercase=True),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Digits(individual_digits=True)]
    )
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(
        texts, WordPieceTrainer(vocab_size=pieces, special_tokens=[PAD, UNK, CLS, SEP, MASK], show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}", special_tokens=[(token, tokenizer.token_to_id(token)) for token in (CLS, SEP)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNK,
        cls_token=CLS,
        sep_token=SEP,
        mask_token=MASK,
        model_max_length=MAX_POSITIONS,
        model_input_names=["input_ids", "attention_mask"],
    )


def build_model(
    tokenizer: PreTrainedTokenizerFast, labels: Sequence[str], width: int, layers: int, dropout: float
) -> BertForSequenceClassification:
    """Return an untrained model."""
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 48,
        intermediate_size=4 * width,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=0.1,
        classifier_dropout=dropout,
        max_position_embeddings=MAX_POSITIONS,
        type_vocab_size=1,
        pad_token_id=tokenizer.pad_token_id,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        out_of_scope_label=OUT_OF_SCOPE,
        out_of_scope_threshold=0.0,
    )
    return BertForSequenceClassification(config)


class MaskedWordHead(nn.Module):
    """Names masked tokens from their hidden states, by the input embeddings; training needs it, the checkpoint not."""

    def __init__(self, model: BertForSequenceClassification) -> None:
        super().__init__()
        width, words = model.config.hidden_size, model.config.vocab_size
        self.transform = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        self.bias = nn.Parameter(torch.zeros(words))

    def forward(self, hidden: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """Return logits [tokens, words] of `hidden` [tokens, width]."""
        return functional.linear(self.transform(hidden), embeddings, self.bias)


def batches(rows: Sequence[Row], size: int, rng: random.Random) -> Iterator[list[Row]]:
    """Yield batches of `size` rows of similar lengths, in random order."""
    ordered = sorted(rows, key=lambda row: len(row.input_ids) + 3 * rng.random())
    groups = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    rng.shuffle(groups)
    yield from groups


def pad(rows: Sequence[Row], value: int) -> torch.Tensor:
    """Return int64 [rows, longest], padded on the right with `value`."""
    longest = max(len(row.input_ids) for row in rows)
    return torch.tensor([row.input_ids + [value] * (longest - len(row.input_ids)) for row in rows])


def losses_of(
    model: BertForSequenceClassification, head: MaskedWordHead, batch: Sequence[Row], mask_id: int, mask_share: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two mean cross-entropies of `batch`, in nats: the classes' (smoothed) and the masked words'."""
    pad_id = model.config.pad_token_id
    ids = pad(batch, pad_id)
    special = (ids == pad_id) | (ids == batch[0].input_ids[0]) | (ids == batch[0].input_ids[-1])
    masked = (torch.rand(ids.shape) < mask_share) & ~special
    inputs = ids.masked_fill(masked, mask_id)
    states = model.bert(input_ids=inputs, attention_mask=(ids != pad_id).long())
    logits = model.classifier(model.dropout(states.pooler_output))
    labels = torch.tensor([row.label for row in batch])
    embeddings = model.bert.embeddings.word_embeddings.weight
    return (
        functional.cross_entropy(logits, labels, label_smoothing=0.1),
        functional.cross_entropy(head(states.last_hidden_state[masked], embeddings), ids[masked]),
    )


@torch.inference_mode()
def probabilities_of(model: BertForSequenceClassification, rows: Sequence[Row]) -> FloatArray:
    """Return the class probabilities [rows, classes]."""
    model.eval()
    pad_id = model.config.pad_token_id
    order = sorted(range(len(rows)), key=lambda index: len(rows[index].input_ids))
    result = torch.empty(len(rows), model.config.num_labels)
    for start in range(0, len(order), 256):
        chosen = order[start : start + 256]
        ids = pad([rows[index] for index in chosen], pad_id)
        result[chosen] = model(input_ids=ids, attention_mask=(ids != pad_id).long()).logits.softmax(-1)
    return result.numpy()


def choose_threshold(probabilities: FloatArray, expected: IntArray, out_of_scope: int, cost: float) -> float:
    """Return the highest threshold, in hundredths, that takes at most `cost` of the in-scope accuracy."""

    def accuracy(threshold: float) -> float:
        return judge(probabilities, expected, out_of_scope=out_of_scope, threshold=threshold).in_scope_accuracy

    least = accuracy(0.0) - cost
    return max(hundredths / 100 for hundredths in range(100) if accuracy(hundredths / 100) >= least)


def build_optimizers(
    model: BertForSequenceClassification, head: MaskedWordHead, matrix_learning_rate: float, learning_rate: float
) -> list[torch.optim.Optimizer]:
    """Return Muon for the weight matrices, AdamW for embeddings, norms, biases and the classifier."""
    matrices, rest = [], list(head.parameters())
    for name, parameter in model.named_parameters():
        (matrices if parameter.dim() == 2 and "encoder.layer" in name else rest).append(parameter)
    optimizers = [
        Muon(matrices, lr=matrix_learning_rate, weight_decay=0.05),
        torch.optim.AdamW(rest, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.05, fused=True),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def schedule(step: int, steps: int, warm_up: int = 200) -> float:
    """Return the share of the peak learning rate at `step`: a linear warm-up, then half a cosine down to 0."""
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 + 0.5 * math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up))


def main() -> None:
    """Train, choose the threshold, write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="data_full.json of github.com/clinc/oos-eval")
    parser.add_argument("--output", type=Path, required=True, help="where the checkpoint is written")
    parser.add_argument("--epochs", type=int, default=20, help="passes over the data (default: 20)")
    parser.add_argument("--batch-size", type=int, default=96, help="utterances in a batch (default: 96)")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="peak, AdamW")
    parser.add_argument("--matrix-learning-rate", type=float, default=4e-3, help="peak, Muon")
    parser.add_argument("--width", type=int, default=192, help="model width (default: 192)")
    parser.add_argument("--layers", type=int, default=2, help="layers (default: 2)")
    parser.add_argument("--dropout", type=float, default=0.3)
    parser.add_argument("--mask-share", type=float, default=0.15, help="share of the words that are masked")
    parser.add_argument("--mask-weight", type=float, default=0.3, help="weight of the masked words' loss")
    parser.add_argument("--pieces", type=int, default=4000, help="vocabulary size")
    parser.add_argument("--threshold-cost", type=float, default=0.01, help="in-scope accuracy the threshold may take")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch (default: 1)")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    rng = random.Random(options.seed)
    corpus = clinc150.load(options.data)
    labels = corpus.labels
    out_of_scope = labels.index(OUT_OF_SCOPE)
    tokenizer = train_tokenizer([utterance.text for utterance in corpus.train], options.pieces)
    model = build_model(tokenizer, labels, options.width, options.layers, options.dropout)
    head = MaskedWordHead(model)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer)} pieces", flush=True)

    def encode(utterances: Sequence[Utterance]) -> list[Row]:
        encoded = tokenizer([utterance.text for utterance in utterances])["input_ids"]
        return [Row(ids, labels.index(utterance.intent)) for ids, utterance in zip(encoded, utterances, strict=True)]

    train, validation = encode(corpus.train), encode(corpus.validation)
    expected = np.array([row.label for row in validation])
    optimizers = build_optimizers(model, head, options.matrix_learning_rate, options.learning_rate)
    parameters = [*model.parameters(), *head.parameters()]
    steps = options.epochs * math.ceil(len(train) / options.batch_size)
    step = 0
    started = time.monotonic()
    for epoch in range(1, options.epochs + 1):
        model.train()
        totals = [0.0, 0.0]
        for batch in batches(train, options.batch_size, rng):
            for group in (group for optimizer in optimizers for group in optimizer.param_groups):
                group["lr"] = group["peak_lr"] * schedule(step, steps)
            class_loss, word_loss = losses_of(model, head, batch, tokenizer.mask_token_id, options.mask_share)
            (class_loss + options.mask_weight * word_loss).backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            step += 1
            totals = [total + loss.item() for total, loss in zip(totals, (class_loss, word_loss), strict=True)]
        quality = judge(probabilities_of(model, validation), expected, out_of_scope=out_of_scope, threshold=0.0)
        means = [total * options.epochs / steps for total in totals]
        minutes = (time.monotonic() - started) / 60
        print(
            f"epoch {epoch}/{options.epochs}  loss {means[0]:.3f}, words {means[1]:.3f}  validation: {quality}  "
            f"{minutes:.1f} min",
            flush=True,
        )

    model = model.half().float()
    probabilities = probabilities_of(model, validation)
    threshold = choose_threshold(probabilities, expected, out_of_scope, options.threshold_cost)
    model.config.out_of_scope_threshold = threshold
    quality = judge(probabilities, expected, out_of_scope=out_of_scope, threshold=threshold)
    print(f"threshold {threshold}  validation: {quality}")
    options.output.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(options.output)
    model.half().save_pretrained(options.output)
    recipe = {k: v for k, v in vars(options).items() if k not in ("data", "output")}
    (options.output / "recipe.json").write_text(json.dumps(recipe | {"steps": steps}, indent=2) + "\n")


if __name__ == "__main__":
    main()
