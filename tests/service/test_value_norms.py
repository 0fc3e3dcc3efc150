"""Weights times the norms of what they weigh, as a caller sees them, beside what eager states and matrices come to."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from regard.client import AsyncClient, AttentionOptions, RequestFailed, TranslateOptions

from ..conftest import Intervenable  # noqa: TID252 - tests are no package of sys.path
from ..serving import serving_in_thread  # noqa: TID252 - tests are no package of sys.path
from .test_interventions import HEADS, TEXTS

TOLERANCE = 1e-4
NORMS = AttentionOptions(kinds=["self"], weighting="value_norm")
ALL_NORMS = AttentionOptions(kinds=["self", "cross"], weighting="value_norm")


@pytest.fixture(scope="module")
def address(intervenable: Intervenable) -> Iterator[str]:
    """Yield where a server of models that tell norms listens."""
    with serving_in_thread(intervenable.models) as address:
        yield address


@torch.no_grad()
def times_norms(
    weights: torch.Tensor, states: torch.Tensor, value: torch.nn.Module, output: torch.nn.Module
) -> np.ndarray[Any, Any]:
    """Return the norms of weights [1, H, Q, T] times transformed states [1, T, W], one vector at a time."""
    values = value(states)[0]
    size = values.shape[1] // HEADS
    found = np.zeros(weights.shape[1:], np.float32)
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        transformed = values[:, part] @ output.weight[:, part].T
        for query in range(found.shape[1]):
            added = weights[0, head, query][:, None] * transformed
            found[head, query] = added.norm(dim=1)
    return found


class Sorter:
    """The eager classifier of texts, and what it says of one."""

    @torch.no_grad()
    def __init__(self, intervenable: Intervenable, text: str) -> None:
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            intervenable.sorter, attn_implementation="eager"
        ).eval()
        read = transformers.AutoTokenizer.from_pretrained(intervenable.sorter)(
            text, return_tensors="pt", return_token_type_ids=False
        )
        said = model(**read, output_attentions=True, output_hidden_states=True)
        self.maps = [
            times_norms(weights, states, layer.attention.self.value, layer.attention.output.dense)
            for weights, states, layer in zip(
                said.attentions, said.hidden_states, model.bert.encoder.layer, strict=False
            )
        ]


@torch.no_grad()
def translated(intervenable: Intervenable, text: str, written: Sequence[int]) -> dict[str, list[np.ndarray[Any, Any]]]:
    """Return the maps of the eager translator when it writes these tokens, by stack and kind."""
    model = transformers.MarianMTModel.from_pretrained(intervenable.translator, attn_implementation="eager").eval()
    read = transformers.AutoTokenizer.from_pretrained(intervenable.translator)(
        text, return_tensors="pt", return_token_type_ids=False
    )
    before = torch.tensor([[model.config.decoder_start_token_id, *written[:-1]]])
    said = model(**read, decoder_input_ids=before, output_attentions=True, output_hidden_states=True)
    encoder, decoder = model.model.encoder.layers, model.model.decoder.layers
    sites = {
        "encoder.self": (said.encoder_attentions, said.encoder_hidden_states, [one.self_attn for one in encoder]),
        "decoder.self": (said.decoder_attentions, said.decoder_hidden_states, [one.self_attn for one in decoder]),
        "decoder.cross": (
            said.cross_attentions,
            [said.encoder_last_hidden_state] * len(decoder),
            [one.encoder_attn for one in decoder],
        ),
    }
    return {
        name: [
            times_norms(weights, of, site.v_proj, site.out_proj)
            for weights, of, site in zip(maps, states, modules, strict=False)
        ]
        for name, (maps, states, modules) in sites.items()
    }


async def test_a_classifiers_maps_are_those_of_eager_values(intervenable: Intervenable, client: AsyncClient) -> None:
    """Every head of every layer, of ragged texts beside requests for plain weights and for none."""
    weighted, plain, _ = await asyncio.gather(
        client.classify_many(TEXTS, model="sorter", attention=NORMS),
        client.classify_many(TEXTS, model="sorter", attention=AttentionOptions(kinds=["self"])),
        client.classify_many(TEXTS, model="sorter"),
    )
    for text, answer, other in zip(TEXTS, weighted, plain, strict=True):
        expected = Sorter(intervenable, text).maps
        assert len(answer.attention.maps) == len(expected)
        for ours, theirs, weights in zip(answer.attention.maps, expected, other.attention.maps, strict=True):
            assert (ours.weighting, weights.weighting) == ("value_norm", "none")
            np.testing.assert_allclose(ours.weights, theirs, atol=TOLERANCE)
            np.testing.assert_allclose(weights.weights.sum(-1), 1, atol=TOLERANCE)
            assert np.abs(theirs - weights.weights).max() > 100 * TOLERANCE
            np.testing.assert_allclose(ours.shares(), theirs / theirs.sum(-1, keepdims=True), atol=TOLERANCE)


async def test_norms_are_reduced_pooled_and_encoded_as_weights_are(
    intervenable: Intervenable, client: AsyncClient
) -> None:
    """Mean and maximum of heads, chosen heads, sums over words and the largest of a row, in fewer bits."""
    text = TEXTS[1]
    expected = Sorter(intervenable, text).maps[1]

    async def told(**options: Any) -> Any:
        attention = AttentionOptions(kinds=["self"], layers=[1], weighting="value_norm", **options)
        (one,) = (await client.classify(text, model="sorter", attention=attention)).attention.maps
        return one

    mean, most = await told(reduction="mean"), await told(reduction="max", heads=[0, 2])
    np.testing.assert_allclose(mean.weights, expected.mean(0, keepdims=True), atol=TOLERANCE)
    np.testing.assert_allclose(most.weights, expected[[0, 2]].max(0, keepdims=True), atol=TOLERANCE)
    np.testing.assert_allclose((await told(granularity="word")).weights, expected, atol=TOLERANCE)  # a token each
    for encoding in ("float16", "uint8"):
        one = await told(encoding=encoding, top_k=2)
        np.testing.assert_allclose(
            np.sort(one.weights, axis=-1), np.sort(expected, axis=-1)[..., -2:], atol=one.max_error + TOLERANCE
        )


async def test_an_images_maps_are_those_of_eager_values(intervenable: Intervenable, client: AsyncClient) -> None:
    """In a ViT, whose layers attend to normed states."""
    pixels = Image.fromarray(np.random.default_rng(3).integers(0, 255, (16, 24, 3), np.uint8))
    file = io.BytesIO()
    pixels.save(file, "PNG")
    answer = await client.classify(file.getvalue(), model="looker", attention=NORMS)
    model = transformers.AutoModelForImageClassification.from_pretrained(
        intervenable.looker, attn_implementation="eager"
    ).eval()
    read = transformers.ViTImageProcessorPil.from_pretrained(intervenable.looker)(pixels, return_tensors="pt")
    with torch.no_grad():
        said = model(**read, output_attentions=True, output_hidden_states=True)
    modules = dict(model.named_modules())
    values = [module for name, module in modules.items() if name.endswith("v_proj")]
    outputs = [module for name, module in modules.items() if name.endswith("o_proj")]
    norms = [module for name, module in modules.items() if name.endswith("layernorm_before")]
    assert len(values) == len(answer.attention.maps) == 2
    for layer, ours in enumerate(answer.attention.maps):
        states = norms[layer](said.hidden_states[layer])
        theirs = times_norms(said.attentions[layer], states, values[layer], outputs[layer])
        np.testing.assert_allclose(ours.weights, theirs, atol=TOLERANCE)


@pytest.mark.parametrize("beams", [1, 3])
async def test_a_translators_maps_are_those_of_eager_values(
    intervenable: Intervenable, client: AsyncClient, beams: int
) -> None:
    """Encoder, decoder and across, of the surviving hypothesis, beside requests for plain weights of one layer."""
    options = TranslateOptions(model="translator", num_beams=beams, max_new_tokens=8, token_logprobs=True)
    found, plain = await asyncio.gather(
        client.translate_many(TEXTS, **options, attention=ALL_NORMS),
        client.translate_many(TEXTS, **options, attention=AttentionOptions(layers=[1])),
    )
    for text, answer, other in zip(TEXTS, found, plain, strict=True):
        theirs = translated(intervenable, text, [token.token_id for token in answer.tokens])
        assert len(answer.attention.maps) == sum(map(len, theirs.values()))
        for one in answer.attention.maps:
            expected = theirs[f"{one.stack}.{one.kind}"][one.layer]
            np.testing.assert_allclose(one.weights, expected, atol=TOLERANCE)
        (weights,) = other.attention.maps
        np.testing.assert_allclose(weights.weights.sum(-1), 1, atol=TOLERANCE)


async def test_streams_tell_the_rows_of_the_same_maps(client: AsyncClient) -> None:
    """Each token's row, as it is made, is that of the whole map."""
    attention = AttentionOptions(layers=[1], weighting="value_norm")
    events = [
        event
        async for event in client.stream_translate(TEXTS[0], model="translator", max_new_tokens=6, attention=attention)
    ]
    (whole,) = events[-1].attention.maps
    rows = [row for delta in events[:-1] for row in delta.attention]
    assert {row.weighting for row in rows} == {"value_norm"}
    np.testing.assert_allclose(np.stack([row.weights for row in rows], axis=1), whole.weights, atol=1e-6)


async def test_parts_are_worth_what_all_tokens_take_from_them_on_average(
    intervenable: Intervenable, client: AsyncClient
) -> None:
    """As an attribution, of a class whose text begins with no special token; it comes without being asked for."""
    answer = await client.attribute_class(TEXTS[1], model="sorter", granularity="token")
    expected = Sorter(intervenable, TEXTS[1]).maps[-1].mean((0, 1))
    assert [one.method for one in answer.attributions.methods][-1] == "value_norm"
    np.testing.assert_allclose(answer.attributions["value_norm"].weights, expected[:-1], atol=TOLERANCE)


async def test_parts_are_worth_what_each_token_of_a_translation_takes(
    intervenable: Intervenable, client: AsyncClient
) -> None:
    """Of an output, the last layer's cross-attention, with its faithfulness beside."""
    answer = await client.attribute_translation(
        TEXTS[0], model="translator", methods=["value_norm"], granularity="token", max_new_tokens=5, faithfulness=True
    )
    theirs = translated(intervenable, TEXTS[0], [token.token_id for token in answer.tokens])["decoder.cross"][-1]
    told = answer.attributions["value_norm"]
    parts = len(answer.attributions.parts)
    np.testing.assert_allclose(told.target_weights, theirs.mean(0)[:, :parts], atol=TOLERANCE)
    assert told.faithfulness is not None


async def test_what_sums_to_1_is_refused(client: AsyncClient) -> None:
    """Rollouts are products of weights."""
    attention = AttentionOptions(reduction="rollout", weighting="value_norm")
    with pytest.raises(RequestFailed, match="weighting: value_norm can't be had with the reduction rollout"):
        await client.classify(TEXTS[0], model="sorter", attention=attention)
