"""What each head is worth to an answer, as a caller sees it, beside the eager model without that head."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from regard.client import AsyncClient, HeadChoice, RequestFailed

from ..conftest import Intervenable  # noqa: TID252 - tests are no package of sys.path
from ..serving import serving, serving_in_thread  # noqa: TID252 - tests are no package of sys.path
from .test_interventions import HEADS, TEXTS, changed

LAYERS = (0, 1)
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def address(intervenable: Intervenable) -> Iterator[str]:
    """Yield where a server of models that take interventions listens."""
    with serving_in_thread(intervenable.models) as address:
        yield address


def falls(
    model: transformers.PreTrainedModel, projection: str, score: Callable[[], np.ndarray]
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return by how much eager scores [outcomes] fall without each head, [outcomes, layers, heads].

    `projection` is the name of what puts the heads of a layer together, with the layer in the place of `{}`.
    """
    with changed(model, {}, {}):
        whole = score()
    found = np.empty((len(whole), len(LAYERS), HEADS))
    for layer in LAYERS:
        for head in range(HEADS):
            with changed(model, {}, {projection.format(layer): [head]}):
                found[:, layer, head] = whole - score()
    return found


class Sorter:
    """The eager classifier of texts."""

    projection = "bert.encoder.layer.{}.attention.output.dense"

    def __init__(self, intervenable: Intervenable, text: str, label: int) -> None:
        self.model = transformers.AutoModelForSequenceClassification.from_pretrained(intervenable.sorter).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(intervenable.sorter)
        self.read = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
        self.label = label

    def score(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return the probability of the class, [1]."""
        return self.model(**self.read).logits.double().softmax(-1)[:, self.label].numpy()

    def without(self, heads: Sequence[int]) -> float:
        """Return the same without some heads, numbered through both layers."""
        gone = {
            self.projection.format(layer): [head % HEADS for head in heads if head // HEADS == layer]
            for layer in LAYERS
        }
        with changed(self.model, {}, gone):
            return float(self.score()[0])


async def test_a_head_is_worth_what_the_class_loses_without_it(intervenable: Intervenable, client: AsyncClient) -> None:
    """Every head of every layer, of ragged texts and of a class that was asked for, is an eager difference."""
    for label in ("", "LABEL_1"):
        answers = await client.attribute_class_many(TEXTS, model="sorter", methods=["head_knock_out"], label=label)
        for text, answer in zip(TEXTS, answers, strict=True):
            told = answer.attributions
            eager = Sorter(intervenable, text, answer.explained.index)
            (expected,) = falls(eager.model, eager.projection, eager.score)
            assert (told.methods, told.random, told.runs) == ((), None, 1 + 2 * HEADS)
            assert (told.heads.maps[0].layers, told.heads.maps[0].target_weights) == (LAYERS, None)
            np.testing.assert_allclose(told.heads["encoder", "self"].weights, expected, atol=TOLERANCE)
            assert np.abs(expected).max() > 10 * TOLERANCE


async def test_heads_of_an_image_are_those_of_its_layers(intervenable: Intervenable, client: AsyncClient) -> None:
    """In a ViT, of one layer that is chosen, beside a method that tells of patches."""
    pixels = np.random.default_rng(3).integers(0, 255, (16, 24, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    answer = await client.attribute_class(
        file.getvalue(), model="looker", methods=["last_layer", "head_knock_out"], heads=HeadChoice(layers=[1])
    )
    model = transformers.AutoModelForImageClassification.from_pretrained(intervenable.looker).eval()
    read = transformers.ViTImageProcessorPil.from_pretrained(intervenable.looker)(
        Image.fromarray(pixels), return_tensors="pt"
    )
    (first, *_) = [name for name, _ in model.named_modules() if name.endswith("o_proj")]

    def score() -> np.ndarray[Any, np.dtype[np.float64]]:
        return model(**read).logits.double().softmax(-1)[:, answer.explained.index].numpy()

    (expected,) = falls(model, first.replace(".0.", ".{}."), score)
    assert [one.method for one in answer.attributions.methods] == ["last_layer"]
    (told,) = answer.attributions.heads.maps
    assert told.layers == (1,)
    np.testing.assert_allclose(told.weights, expected[1:], atol=TOLERANCE)


async def test_a_head_is_worth_what_each_token_of_a_translation_loses(
    intervenable: Intervenable, client: AsyncClient
) -> None:
    """Self- and cross-attention of both stacks, of own translations and a given one, are eager forced decoding's."""
    asked: Mapping[str, Any] = {
        "model": "translator",
        "methods": ["head_knock_out"],
        "granularity": "token",
        "max_new_tokens": 6,
    }
    answers = await client.attribute_translation_many([*TEXTS, (TEXTS[0], "w3 w4")], **asked)
    model = transformers.MarianMTModel.from_pretrained(intervenable.translator).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(intervenable.translator)
    places = {
        ("encoder", "self"): "model.encoder.layers.{}.self_attn.out_proj",
        ("decoder", "self"): "model.decoder.layers.{}.self_attn.out_proj",
        ("decoder", "cross"): "model.decoder.layers.{}.encoder_attn.out_proj",
    }
    for text, answer in zip([*TEXTS, TEXTS[0]], answers, strict=True):
        read = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
        written = torch.tensor([[token.token_id for token in answer.tokens]])
        before = torch.cat([torch.tensor([[model.config.decoder_start_token_id]]), written[:, :-1]], 1)

        def score(read: Any = read, before: torch.Tensor = before, written: torch.Tensor = written) -> Any:
            scores = model(**read, decoder_input_ids=before).logits[0].double().log_softmax(-1)
            return scores[torch.arange(written.shape[1]), written[0]].numpy()

        told = answer.attributions.heads
        assert answer.attributions.runs == 1 + 6 * HEADS
        assert {(one.stack, one.kind) for one in told.maps} == places.keys()
        for place, projection in places.items():
            expected = falls(model, projection, score)
            np.testing.assert_allclose(told[place].target_weights, expected, atol=TOLERANCE)
            np.testing.assert_allclose(told[place].weights, told[place].target_weights.sum(axis=0), atol=1e-9)
            assert np.abs(expected).max() > 10 * TOLERANCE


async def test_faithfulness_is_that_of_eager_curves(intervenable: Intervenable, client: AsyncClient) -> None:
    """Deletion, insertion, comprehensiveness and sufficiency of the order of heads are eager without sets of them."""
    answer = await client.attribute_class(TEXTS[1], model="sorter", methods=["head_knock_out"], faithfulness=True)
    told, eager = answer.attributions.heads, Sorter(intervenable, TEXTS[1], answer.explained.index)
    order = np.argsort(-told.maps[0].weights.ravel(), kind="stable").tolist()
    count = len(order)
    deletion = [eager.without(order[:size]) for size in range(count + 1)]
    insertion = [eager.without(order[size:]) for size in range(count + 1)]
    firsts = [1, 1, 1, 2, 4]  # 1, 5, 10, 20 and 50 % of eight heads
    expected = [
        area_below(deletion),
        area_below(insertion),
        np.mean([deletion[0] - deletion[size] for size in firsts]),
        np.mean([deletion[0] - insertion[size] for size in firsts]),
    ]
    measured = told.faithfulness
    found = [measured.deletion_auc, measured.insertion_auc, measured.comprehensiveness, measured.sufficiency]
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)
    assert told.random is not None and answer.attributions.random is None


def area_below(curve: Sequence[float]) -> float:
    """Return the area below points that are evenly spread from 0 to 1."""
    return sum((left + right) / 2 for left, right in pairwise(curve)) / (len(curve) - 1)


async def test_kinds_default_to_those_of_the_stacks(client: AsyncClient) -> None:
    """An encoder has self-attention alone; what is chosen bounds the runs."""
    answer = await client.attribute_translation(
        "w5 w9", model="translator", methods=["head_knock_out"], heads=HeadChoice(stacks=["encoder"], layers=[1])
    )
    (told,) = answer.attributions.heads.maps
    assert (told.stack, told.kind, told.layers) == ("encoder", "self", (1,))
    assert answer.attributions.runs == 1 + HEADS


async def test_too_many_heads_are_refused_with_the_runs_that_they_take(intervenable: Intervenable) -> None:
    """The refusal says to choose fewer layers; those fit."""
    async with serving(intervenable.models, max_attribution_runs=2 * HEADS) as target, AsyncClient(target) as client:
        with pytest.raises(
            RequestFailed, match=r"2 parts and 8 heads take 9 runs .* most for one input is 8.* layers of"
        ):
            await client.attribute_class("w5 w9", model="sorter", methods=["head_knock_out"])
        answer = await client.attribute_class(
            "w5 w9", model="sorter", methods=["head_knock_out"], heads=HeadChoice(layers=[0])
        )
    assert answer.attributions.heads.maps[0].weights.shape == (1, HEADS)
