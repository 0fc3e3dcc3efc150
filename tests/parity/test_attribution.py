"""The demonstration packages' attributions, through gRPC, against eager Transformers on the same altered inputs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import torch
from tests.serving import serving
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from regard.client import AsyncClient, ClassAttribution

ROOT = Path(__file__).parents[2]
CHECKPOINTS = ROOT / "export" / "checkpoints"
DATA = Path(__file__).parent / "data"
TOLERANCE = 1e-4
PLAIN = re.compile("[a-z ]+")
"""Utterances whose words are what stands between their spaces."""
HELD_OUT = filter(PLAIN.fullmatch, (DATA / "utterances.en.txt").read_text("utf-8").splitlines())
UTTERANCES = [*islice(HELD_OUT, 8), "weather", " ".join(["please", "tell", "me"] * 12)]


class Intents:
    """The eager classifier, fed with tokens that are altered here."""

    def __init__(self) -> None:
        at = CHECKPOINTS / "demo-intent"
        self.tokenizer = AutoTokenizer.from_pretrained(at, local_files_only=True)
        self.model = AutoModelForSequenceClassification.from_pretrained(
            at, local_files_only=True, dtype=torch.float32, attn_implementation="eager"
        ).eval()

    def words(self, text: str) -> tuple[list[int], list[list[int]]]:
        """Return the tokens of a text that white space divides into words, and the tokens of each word."""
        encoded = self.tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
        ends = np.cumsum([len(word) + 1 for word in text.split(" ")])
        words: list[list[int]] = [[] for _ in ends]
        for place, ((start, _), special) in enumerate(
            zip(encoded["offset_mapping"], encoded["special_tokens_mask"], strict=True)
        ):
            if not special:
                words[int(np.searchsorted(ends, start, side="right"))].append(place)
        return list(encoded["input_ids"]), words

    @torch.inference_mode()
    def probability(self, token_ids: Sequence[int], label: int) -> float:
        """Return the probability of a class."""
        return float(self.model(torch.tensor([list(token_ids)])).logits.softmax(-1)[0, label])

    def left_out(self, text: str, removed: set[int], label: int) -> float:
        """Return the probability of a class without some words, the text closed up."""
        token_ids, words = self.words(text)
        gone = {place for word in removed for place in words[word]}
        return self.probability([token for place, token in enumerate(token_ids) if place not in gone], label)

    def covered(self, text: str, removed: set[int], label: int) -> float:
        """Return the probability of a class with some words masked in their places."""
        token_ids, words = self.words(text)
        for word in removed:
            for place in words[word]:
                token_ids[place] = self.tokenizer.mask_token_id
        return self.probability(token_ids, label)


def area_below(curve: Sequence[float]) -> float:
    """Return the area below points that are evenly spread from 0 to 1."""
    return sum((left + right) / 2 for left, right in pairwise(curve)) / (len(curve) - 1)


async def attribute(packages: Path, texts: Sequence[str], **options: object) -> list[ClassAttribution]:
    """Return what the served classifier attributes, all of which must succeed."""
    async with serving(packages) as target, AsyncClient(target) as client:
        answers = await client.attribute_class_many(texts, **options)
    assert all(isinstance(answer, ClassAttribution) for answer in answers)
    return answers


async def test_a_word_is_worth_what_the_class_loses_without_it(packages: Path) -> None:
    """Leave-one-out and occlusion by windows of 3, 2 apart, are eager differences of the same altered tokens."""
    eager, most = Intents(), 0.0
    for text, answer in zip(
        UTTERANCES,
        await attribute(packages, UTTERANCES, occlusion_window=3, occlusion_stride=2),
        strict=True,
    ):
        label, found = answer.explained.index, answer.attributions
        assert [part.text for part in found.parts] == text.split()
        assert found.cover == "[MASK]"
        whole, count = eager.left_out(text, set(), label), len(found.parts)
        alone = [whole - eager.left_out(text, {word}, label) for word in range(count)]
        most = max(most, float(np.abs(found["leave_one_out"].weights - alone).max()))
        starts = sorted({*range(0, max(count - 3, 0), 2), max(count - 3, 0)})
        spans = [range(start, min(start + 3, count)) for start in starts]
        falls = [whole - eager.covered(text, set(span), label) for span in spans]
        covered = [
            np.mean([fall for span, fall in zip(spans, falls, strict=True) if word in span]) for word in range(count)
        ]
        most = max(most, float(np.abs(found["occlusion"].weights - covered).max()))
    assert most <= TOLERANCE


async def test_faithfulness_is_that_of_eager_curves(packages: Path) -> None:
    """The deletion and insertion curves of leave-one-out are eager probabilities of texts that close up."""
    eager, texts = Intents(), UTTERANCES[:3]
    for text, answer in zip(
        texts, await attribute(packages, texts, methods=["leave_one_out"], faithfulness=True), strict=True
    ):
        found, label = answer.attributions["leave_one_out"], answer.explained.index
        order = np.argsort(-found.weights, kind="stable").tolist()
        sizes = range(len(order) + 1)
        deletion = area_below([eager.left_out(text, {*order[:size]}, label) for size in sizes])
        insertion = area_below([eager.left_out(text, {*order[size:]}, label) for size in sizes])
        assert found.faithfulness is not None and answer.attributions.random is not None
        assert abs(found.faithfulness.deletion_auc - deletion) <= TOLERANCE
        assert abs(found.faithfulness.insertion_auc - insertion) <= TOLERANCE


async def test_another_class_can_be_explained(packages: Path) -> None:
    """Weights are of the class that was asked for; the likeliest is told beside."""
    eager, text = Intents(), "book me a flight to paris"
    (answer,) = await attribute(packages, [text], label="book_hotel", methods=["leave_one_out"])
    assert (answer.explained.label, answer.likeliest.label) == ("book_hotel", "book_flight")
    label = eager.model.config.label2id["book_hotel"]
    assert abs(answer.explained.probability - eager.left_out(text, set(), label)) <= TOLERANCE
    fall = answer.explained.probability - eager.left_out(text, {3}, label)
    assert abs(answer.attributions["leave_one_out"].weights[3] - fall) <= TOLERANCE


async def test_attention_is_eager_attention(packages: Path) -> None:
    """The last layer's and the rollout's row of [CLS] are those of eager attention, multiplied here."""
    eager = Intents()
    for text, answer in zip(UTTERANCES, await attribute(packages, UTTERANCES), strict=True):
        token_ids, words = eager.words(text)
        with torch.inference_mode():
            layers = eager.model(torch.tensor([token_ids]), output_attentions=True).attentions
        means = [layer[0].mean(dim=0).double().numpy() for layer in layers]
        rolled = np.eye(len(token_ids))
        for mean in means:
            rolled = (mean + np.eye(len(token_ids))) / 2 @ rolled
        for method, flow in (("last_layer", means[-1]), ("rollout", rolled)):
            expected = [sum(flow[0, place] for place in word) for word in words]
            np.testing.assert_allclose(answer.attributions[method].weights, expected, atol=TOLERANCE)
