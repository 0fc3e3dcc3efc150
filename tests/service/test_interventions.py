"""Attention that a request changes, as a caller sees it, beside the eager model changed by other means."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from regard.client import (
    AsyncClient,
    AttentionOptions,
    Ban,
    Bias,
    Intervention,
    KnockOut,
    LocalWindow,
    Places,
    RequestFailed,
    TranslateOptions,
)
from regard.manifest import load_package, sha256_of

from ..conftest import Intervenable  # noqa: TID252 - tests are no package of sys.path
from ..serving import serving, serving_in_thread  # noqa: TID252 - tests are no package of sys.path

TEXTS = ["w5 w9 w30 w7", "w11 w12 w13 w14 w15 w16 w17 w18 w19", "w40 w41"]
EVERYTHING = AttentionOptions(kinds=("self",))
HEADS = 4

_added: dict[int, torch.Tensor] = {}


@pytest.fixture(scope="module")
def address(intervenable: Intervenable) -> Iterator[str]:
    """Yield where a server of models that take interventions listens."""
    with serving_in_thread(intervenable.models) as address:
        yield address


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    scores = query @ key.mT * (scaling or query.shape[-1] ** -0.5)
    if attention_mask is not None:
        scores = scores + attention_mask
    if id(module) in _added:
        scores = scores + _added[id(module)]
    weights = scores.softmax(-1)
    return (weights @ value).transpose(1, 2), weights


AttentionInterface.register("with-edges", _attend)
AttentionMaskInterface.register("with-edges", eager_mask)


@contextmanager
def changed(
    model: transformers.PreTrainedModel,
    added: Mapping[str, torch.Tensor],
    out: Mapping[str, Sequence[int]],
) -> Iterator[None]:
    """Add to the scores of the attention modules of these names, and zero heads before projections of these names."""
    modules = dict(model.named_modules())
    _added.update({id(modules[name]): edges for name, edges in added.items()})

    def without(heads: Sequence[int]) -> Any:
        def hook(_: torch.nn.Module, arguments: tuple[torch.Tensor]) -> torch.Tensor:
            size = arguments[0].shape[-1] // HEADS
            kept = arguments[0].clone()
            for head in heads:
                kept[..., head * size : (head + 1) * size] = 0
            return kept

        return hook

    model.set_attn_implementation("with-edges")
    with ExitStack() as stack:
        stack.callback(_added.clear)
        for name, heads in out.items():
            stack.callback(modules[name].register_forward_pre_hook(without(heads)).remove)
        with torch.no_grad():
            yield


def banned(size: int, keys: Sequence[int], queries: Sequence[int] | slice = slice(None)) -> torch.Tensor:
    """Return what bans keys for queries, [size, size]."""
    edges = torch.zeros(size, size)
    for key in keys:
        edges[queries, key] = -torch.inf
    return edges


def window(distances: torch.Tensor, radius: int) -> torch.Tensor:
    """Return what bans the keys that are further away."""
    return torch.where(distances > radius, -torch.inf, 0.0)


def of_heads(edges: torch.Tensor, heads: Sequence[int]) -> torch.Tensor:
    """Return what is added to some heads, [H, Q, K]."""
    every = torch.zeros(HEADS, *edges.shape)
    every[list(heads)] = edges
    return every


async def test_a_changed_classifier_equals_the_eager_model_changed_alike(
    intervenable: Intervenable, client: AsyncClient
) -> None:
    """Heads out, a window, a ban for some queries and a bias, in ragged texts: classes and maps are eager's to 1e-4."""
    interventions: list[Intervention] = [
        KnockOut(layers=[0], heads=[1, 3]),
        LocalWindow(layers=[1], heads=[0, 2], radius=1),
        Ban(layers=[0], heads=[0, 2], keys=Places(spans=[(1, 4)]), queries=Places(positions=[0])),
        Bias(layers=[1], value=1.5, keys=Places(positions=[1])),
    ]
    found = await client.classify_many(TEXTS, model="sorter", attention=EVERYTHING, interventions=interventions)

    model = transformers.AutoModelForSequenceClassification.from_pretrained(intervenable.sorter).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(intervenable.sorter)
    for text, answer in zip(TEXTS, found, strict=True):
        read = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
        size = read["input_ids"].shape[1]
        places = torch.arange(size)
        touched = [0, 1] if text.startswith("w5") else [0]
        near = window((places[:, None] - places).abs(), 1)
        bias = torch.zeros(size, size)
        bias[:, 1] = 1.5
        added = {
            "bert.encoder.layer.0.attention.self": of_heads(banned(size, touched, [0]), [0, 2]),
            "bert.encoder.layer.1.attention.self": of_heads(near, [0, 2]) + bias,
        }
        with changed(model, added, {"bert.encoder.layer.0.attention.output.dense": [1, 3]}):
            expected = model(**read, output_attentions=True)
        _agree(answer, expected)


async def test_a_changed_look_at_an_image_equals_the_eager_model_changed_alike(
    intervenable: Intervenable, client: AsyncClient
) -> None:
    """Patches banned, a window in the grid that spares [CLS] and heads out, in a ViT: eager's to 1e-4."""
    pixels = np.random.default_rng(3).integers(0, 255, (16, 24, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    interventions: list[Intervention] = [
        Ban(layers=[0], keys=Places(patches=[(1, 2), (2, 0, 2, 3)])),
        LocalWindow(layers=[1], heads=[1, 2], radius=1),
        KnockOut(layers=[1], heads=[0]),
    ]
    answer = await client.classify(file.getvalue(), model="looker", attention=EVERYTHING, interventions=interventions)

    model = transformers.AutoModelForImageClassification.from_pretrained(intervenable.looker).eval()
    read = transformers.ViTImageProcessorPil.from_pretrained(intervenable.looker)(
        Image.fromarray(pixels), return_tensors="pt"
    )
    rows, columns = 4, 6
    patches = [1 + 6 + 2, *(1 + row * columns + column for row in (2, 3) for column in (0, 1, 2))]
    grid = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    distances = torch.zeros(25, 25)
    distances[1:, 1:] = (grid[:, None] - grid).abs().amax(-1)
    attending = [name for name, module in model.named_modules() if type(module).__name__ == "ViTAttention"]
    projecting = [name for name, _ in model.named_modules() if name.endswith("o_proj")]
    added = {
        attending[0]: of_heads(banned(25, patches), range(HEADS)),
        attending[1]: of_heads(window(distances, 1), [1, 2]),
    }
    with changed(model, added, {projecting[1]: [0]}):
        expected = model(**read, output_attentions=True)
    _agree(answer, expected)


def _agree(answer: Any, expected: Any) -> None:
    probabilities = expected.logits[0].softmax(-1).numpy()
    for one in answer.classes:
        assert one.probability == pytest.approx(float(probabilities[one.index]), abs=1e-4)
    assert len(answer.attention.maps) == len(expected.attentions)
    for ours, theirs in zip(answer.attention.maps, expected.attentions, strict=True):
        np.testing.assert_allclose(ours.weights, theirs[0].numpy(), atol=1e-4)


@pytest.mark.parametrize("beams", [1, 3])
async def test_a_changed_translator_equals_the_eager_model_changed_alike(
    intervenable: Intervenable, client: AsyncClient, beams: int
) -> None:
    """Encoder, cross- and self-attention of the decoder changed at once: scores and maps are eager's to 1e-4."""
    interventions: list[Intervention] = [
        KnockOut(kinds=["self"], stacks=["encoder"], layers=[0], heads=[2]),
        LocalWindow(kinds=["self"], stacks=["encoder"], layers=[1], heads=[0, 1], radius=1),
        Ban(heads=[0, 1], keys=Places(spans=[(3, 5)])),
        Bias(layers=[1], value=-2.0, keys=Places(positions=[0])),
        KnockOut(layers=[1], heads=[3]),
        KnockOut(kinds=["self"], stacks=["decoder"], layers=[0], heads=[0]),
    ]
    attention = AttentionOptions(kinds=["self", "cross"])
    options = TranslateOptions(
        model="translator", num_beams=beams, max_new_tokens=8, token_logprobs=True, attention=attention
    )
    found, plain = await asyncio.gather(
        client.translate_many(TEXTS, **options, interventions=interventions),
        client.translate_many(TEXTS, **options),
    )
    events = [event async for event in client.stream_translate(TEXTS[0], **options, interventions=interventions)]

    assert [delta.token_id for delta in events[:-1]] == [token.token_id for token in found[0].tokens]
    model = transformers.MarianMTModel.from_pretrained(intervenable.translator).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(intervenable.translator)
    for text, answer, other in zip(TEXTS, found, plain, strict=True):
        read = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
        size, written = read["input_ids"].shape[1], torch.tensor([[token.token_id for token in answer.tokens]])
        before = torch.cat([torch.tensor([[model.config.decoder_start_token_id]]), written[:, :-1]], 1)
        places = torch.arange(size)
        ban, bias = torch.zeros(written.shape[1], size), torch.zeros(written.shape[1], size)
        ban[:, text[:5].count(" ")], bias[:, 0] = -torch.inf, -2.0
        added = {
            "model.encoder.layers.1.self_attn": of_heads(window((places[:, None] - places).abs(), 1), [0, 1]),
            "model.decoder.layers.0.encoder_attn": of_heads(ban, [0, 1]),
            "model.decoder.layers.1.encoder_attn": of_heads(ban, [0, 1]) + bias,
        }
        out = {
            "model.encoder.layers.0.self_attn.out_proj": [2],
            "model.decoder.layers.1.encoder_attn.out_proj": [3],
            "model.decoder.layers.0.self_attn.out_proj": [0],
        }
        with changed(model, added, out):
            expected = model(**read, decoder_input_ids=before, output_attentions=True)
        scores = expected.logits[0].log_softmax(-1)
        free = [at for at, token in enumerate(answer.tokens) if token.log_probability < 0]
        assert len(free) >= len(answer.tokens) - 1
        for at in free:
            theirs = float(scores[at, answer.tokens[at].token_id])
            assert answer.tokens[at].log_probability == pytest.approx(theirs, abs=1e-4)
        maps = (*expected.encoder_attentions, *expected.decoder_attentions, *expected.cross_attentions)
        for ours, theirs in zip(answer.attention.maps, maps, strict=True):
            np.testing.assert_allclose(ours.weights, theirs[0].numpy(), atol=1e-4)
        assert not np.allclose(other.attention.maps[1].weights, answer.attention.maps[1].weights, atol=1e-2)


async def test_models_tell_that_they_take_interventions(client: AsyncClient) -> None:
    """Whoever lists them sees it before they ask."""
    assert {model.takes_interventions for model in await client.models()} == {True}


async def test_plain_requests_answer_as_if_nobody_intervened(client: AsyncClient) -> None:
    """Requests of both kinds, sent at once, leave the plain ones as they are alone, to 1e-6, and change the others."""
    out = KnockOut(layers=[1])

    async def figures(text: str, *interventions: Intervention) -> list[Any]:
        answer = await client.classify(text, model="sorter", attention=EVERYTHING, interventions=interventions)
        assert answer.attention is not None
        probabilities = {one.index: one.probability for one in answer.classes}
        return [[probabilities[index] for index in sorted(probabilities)], *(m.weights for m in answer.attention.maps)]

    alone = [await figures(text) for text in TEXTS]
    changed_alone = [await figures(text, out) for text in TEXTS]
    mixed = await asyncio.gather(*(figures(text, *one) for text in TEXTS for one in ((), (out,), (out,))))

    for ours, theirs in zip(mixed[::3], alone, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
    for (ours, *_), (theirs, *_) in zip(changed_alone, alone, strict=True):
        assert not np.allclose(ours, theirs, atol=1e-3)


async def test_a_package_that_was_replaced_answers_no_interventions(intervenable: Intervenable, tmp_path: Path) -> None:
    """Whatever lies in its place by then is not what was loaded; plain requests are answered as before."""
    package = shutil.copytree(intervenable.models / "sorter" / "1", tmp_path / "models" / "sorter" / "1")
    async with serving(tmp_path / "models") as address, AsyncClient(address) as client:
        before = (await client.classify(TEXTS[0])).classes
        other = shutil.copytree(package, tmp_path / "other")
        weights = other / "classifier.onnx.data"
        weights.write_bytes((np.fromfile(weights, np.float32) / 2).tobytes())
        manifest = json.loads((other / "manifest.json").read_text())
        manifest["files"][weights.name] = sha256_of(weights)
        (other / "manifest.json").write_text(json.dumps(manifest))
        package.rename(tmp_path / "old")
        load_package(other.rename(package))

        with pytest.raises(RequestFailed, match="no longer the one that was loaded; restart the server") as refusal:
            await client.classify(TEXTS[0], interventions=[KnockOut(layers=[1])])
        assert refusal.value.code_name == "UNAVAILABLE"
        assert (await client.classify(TEXTS[0])).classes == before


REFUSED: list[tuple[str, Intervention, str]] = [
    ("sorter", KnockOut(heads=[4]), "interventions[0].heads: there is no head 4"),
    ("sorter", KnockOut(layers=[2]), "interventions[0].layers: there is no layer 2"),
    ("sorter", KnockOut(kinds=["cross"]), "interventions[0].kinds: the model gives no cross attention"),
    ("sorter", Ban(keys=Places()), "interventions[0].ban.keys: names nothing"),
    ("sorter", Ban(keys=Places(spans=[(3, 3)])), "interventions[0].ban.keys.spans[0]: 3 to 3 is empty"),
    ("sorter", Ban(keys=Places(spans=[(0, 99)])), "ends at 99; it has 12 code points"),
    ("sorter", Ban(keys=Places(spans=[(2, 3)])), "is 2 to 3; it has no token there"),
    ("sorter", Ban(keys=Places(spans=[(0, 2, 1)])), "is in part 1; it has one text"),
    ("sorter", Ban(keys=Places(patches=[(0, 0)])), "is part of an image; it has no patches"),
    ("sorter", Ban(keys=Places(positions=[9])), "positions[0] is 9; it has 5 positions"),
    ("sorter", Ban(keys=Places(positions=range(5))), "would leave position 0 of the source no key"),
    ("sorter", Bias(value=1e4, keys=Places(positions=[0])), "interventions[0].bias.value: 10000.0 is not from"),
    ("sorter", Bias(value=float("nan"), keys=Places(positions=[0])), "interventions[0].bias.value: nan is not"),
    ("translator", LocalWindow(radius=2), "two positions are near; choose kinds and stacks of self-attention"),
    ("translator", LocalWindow(kinds=["self"], radius=2), "heads can be knocked out, and nothing else"),
    (
        "translator",
        Ban(keys=Places(positions=[0]), queries=Places(positions=[0])),
        "interventions[0].ban.queries: in the decoder's cross attention the queries are the output's",
    ),
    ("translator", Ban(keys=Places(positions=range(5))), "would leave the output's tokens no key"),
]


async def test_what_can_not_be_changed_is_refused_by_its_name(client: AsyncClient) -> None:
    """Each refusal names the field or the input, and what there is."""
    text = "w5 w6 w7 w88"
    for model, intervention, problem in REFUSED:
        with pytest.raises(RequestFailed) as refusal:
            if model == "sorter":
                await client.classify(text, model=model, interventions=[intervention])
            else:
                await client.translate(text, model=model, interventions=[intervention])
        assert problem in str(refusal.value)
        assert refusal.value.code_name == "INVALID_ARGUMENT"
