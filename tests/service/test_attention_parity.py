"""Every map through gRPC, against eager Transformers: all kinds, layers and heads, alone and among other requests."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import transformers
from PIL import Image
from tests.export.checkpoints import save_completer, save_image_classifier
from tests.serving import serving_in_thread

from regard.client import AsyncClient, Attention, AttentionMap, AttentionOptions, Client, RequestFailed, patch_weights
from regard.manifest import load_package
from regard_export.package import Options, export
from scene_judge import held_out

ROOT = Path(__file__).parents[2]
CHECKPOINTS = ROOT / "export" / "checkpoints"
TOLERANCE = 1e-4
BEAMS = 3
WRITES = {"max_new_tokens": 12}
TEXTS = (
    "Yes.",
    "They grow oranges in California.",
    "Where is the old station that your brother told me about yesterday?",
    "I am here. " * 9,
)
INTENTS = ("hi", "book me a flight to paris", "what is the weather like in the north of the country tomorrow " * 2)
PROMPTS = ("w5", "w7 w11 w90 w3", "w8 " * 30)

Array = npt.NDArray[np.float32]
Place = tuple[str, str, int]
"""Which stack, which kind and which layer; the stack is `prompt` where a decoder reads its source."""
Weights = Mapping[Place, Array]
Given = Any


def images() -> list[bytes]:
    """Return image files of several shapes."""
    files = []
    for scene, size in zip(held_out(3), [(64, 64), (90, 50), (31, 70)], strict=True):
        file = io.BytesIO()
        scene.image.resize(size).save(file, "PNG")
        files.append(file.getvalue())
    return files


def sides(stack: str, kind: str, layers: Sequence[torch.Tensor]) -> dict[Place, Array]:
    """Return the layers of one stack and kind, [heads, queries, keys]."""
    return {(stack, kind, layer): weights[0].numpy() for layer, weights in enumerate(layers)}


@dataclass(frozen=True)
class Family:
    """A model: its inputs, how a client asks it, and what the eager model attends to."""

    inputs: Sequence[Given]
    ask: Callable[[Any, Given, dict[str, Any]], Any]
    """What a client's method returns, for an input and options."""
    attend: Callable[[Given, list[int]], Weights]
    """The eager model's weights for an input and the tokens of an output."""
    kinds: tuple[str, ...]
    writes: bool = True
    prompt: bool = False

    @property
    def options(self) -> AttentionOptions:
        """What asks for everything that the model has."""
        return AttentionOptions(kinds=self.kinds, prompt=self.prompt)  # type: ignore[arg-type]

    def found(self, answer: Any) -> list[Attention]:
        """Return the attention of an answer, or of each of its sequences."""
        return [answer.attention, *(one.attention for one in getattr(answer, "further_sequences", ()))]


def translator(model: Any, checkpoint: Path) -> Family:
    """Return Marian."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)

    def attend(text: str, token_ids: list[int]) -> Weights:
        read = torch.tensor([[model.generation_config.decoder_start_token_id, *token_ids[:-1]]])
        output = model(**tokenizer(text, return_tensors="pt"), decoder_input_ids=read, output_attentions=True)
        return both_stacks(output)

    return Family(TEXTS, lambda client, text, o: client.translate(text, **o, **WRITES), attend, ("self", "cross"))


def captioner(model: Any, checkpoint: Path) -> Family:
    """Return ViT and GPT-2."""
    processor = transformers.AutoImageProcessor.from_pretrained(checkpoint, backend="pil")

    def attend(file: bytes, token_ids: list[int]) -> Weights:
        read = torch.tensor([[model.generation_config.decoder_start_token_id, *token_ids[:-1]]])
        pixels = processor(Image.open(io.BytesIO(file)).convert("RGB"), return_tensors="pt")
        return both_stacks(model(**pixels, decoder_input_ids=read, output_attentions=True))

    return Family(images(), lambda client, file, o: client.caption(file, **o, **WRITES), attend, ("self", "cross"))


def both_stacks(output: Any) -> Weights:
    """Return what an encoder and a decoder attend to."""
    return {
        **sides("encoder", "self", output.encoder_attentions),
        **sides("decoder", "self", output.decoder_attentions),
        **sides("decoder", "cross", output.cross_attentions),
    }


def classifier(model: Any, checkpoint: Path) -> Family:
    """Return BERT."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)

    def attend(text: str, _: list[int]) -> Weights:
        return sides(
            "encoder", "self", model(**tokenizer(text, return_tensors="pt"), output_attentions=True).attentions
        )

    return Family(
        INTENTS,
        lambda client, text, o: client.classify(text, model="demo-intent", **o),
        attend,
        ("self",),
        writes=False,
    )


def image_classifier(model: Any, checkpoint: Path) -> Family:
    """Return ViT."""
    processor = transformers.AutoImageProcessor.from_pretrained(checkpoint, backend="pil")

    def attend(file: bytes, _: list[int]) -> Weights:
        pixels = processor(Image.open(io.BytesIO(file)).convert("RGB"), return_tensors="pt")
        return sides("encoder", "self", model(**pixels, output_attentions=True).attentions)

    def ask(client: Any, file: bytes, options: dict[str, Any]) -> Any:
        return client.classify(file, model="vit", **options)

    return Family(images(), ask, attend, ("self",), writes=False)


def completer(model: Any, checkpoint: Path) -> Family:
    """Return GPT-2, whose prompt and output are one sequence."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)

    def attend(prompt: str, token_ids: list[int]) -> Weights:
        read = tokenizer(prompt).input_ids
        layers = model(torch.tensor([[*read, *token_ids[:-1]]]), output_attentions=True).attentions
        return {
            **sides("prompt", "self", [weights[..., : len(read), : len(read)] for weights in layers]),
            **sides("decoder", "self", [weights[..., len(read) - 1 :, :] for weights in layers]),
        }

    return Family(
        PROMPTS, lambda client, prompt, o: client.complete(prompt, **o, **WRITES), attend, ("self",), prompt=True
    )


FAMILIES: dict[str, tuple[Callable[[Any, Path], Family], str]] = {
    "Marian": (translator, "demo-en-fr"),
    "BERT": (classifier, "demo-intent"),
    "ViT and GPT-2": (captioner, "demo-scenes"),
    "ViT": (image_classifier, "vit"),
    "GPT-2": (completer, "gpt2"),
}


@pytest.fixture(scope="module")
def models(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory of all packages, beside one of the checkpoints that are random."""
    at = tmp_path_factory.mktemp("parity")
    save_image_classifier(at / "checkpoints" / "vit")
    save_completer(at / "checkpoints" / "gpt2")
    for name in ("vit", "gpt2"):
        export(at / "checkpoints" / name, at / "models", Options(name=name))
    for name in ("demo-en-fr", "demo-intent", "demo-scenes"):
        (at / "models" / name).symlink_to(packages / name)
    return at / "models"


@pytest.fixture(scope="module")
def address(models: Path) -> Iterator[str]:
    """Yield where a server of all of them listens."""
    with serving_in_thread(models) as address:
        yield address


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, models: Path) -> Family:
    """Return a family, with its eager model."""
    make, name = FAMILIES[request.param]
    checkpoint = CHECKPOINTS / name if name.startswith("demo") else models.parent / "checkpoints" / name
    kind = getattr(transformers, load_package(models / name / "1").manifest.source.architecture)
    model = kind.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager").eval()
    made = make(model, checkpoint)
    return replace(made, attend=torch.no_grad()(made.attend))


def place_of(one: AttentionMap) -> Place:
    """Return which weights a map has."""
    stack = "prompt" if one.stack == "decoder" and one.query_axis == "source" else one.stack
    return stack, one.kind, one.layer


def token_ids_of(attention: Attention) -> list[int]:
    """Return the tokens of an output, by the labels of its maps."""
    for one in attention.maps:
        if one.query_axis == "target":
            return [int(query.token_id or 0) for query in one.queries]
    return []


def check(family: Family, given: Given, attention: Attention) -> None:
    """Every map that the eager model has, and no other: equal weights of every head, rows of 1, and labels that fit."""
    expected = family.attend(given, token_ids_of(attention))
    assert {place_of(one) for one in attention.maps} == expected.keys()
    for one in attention.maps:
        assert one.weights.shape == expected[place_of(one)].shape == (len(one.heads), len(one.queries), len(one.keys))
        assert np.abs(one.weights - expected[place_of(one)]).max() < TOLERANCE
        assert np.abs(one.weights.sum(axis=-1, dtype=np.float64) - 1).max() < 1e-5


async def test_every_map_equals_the_eager_models(family: Family, address: str) -> None:
    """Each input alone, and then all at once, greedy and by beams, between requests that ask for no attention."""
    beams = {"num_beams": BEAMS, "num_return_sequences": BEAMS} if family.writes else {}
    asked = [(given, how) for given in family.inputs for how in ([{}, beams] if family.writes else [{}])]
    async with AsyncClient(address) as client:

        def ask(given: Given, how: dict[str, Any], attention: AttentionOptions | None = family.options) -> Any:
            return family.ask(client, given, {"attention": attention} | how)

        alone = [await ask(*one) for one in asked]
        calls = [call for one in asked for call in (ask(*one), ask(*one, attention=None))]
        together = (await asyncio.gather(*calls))[::2]

    for (given, how), *answers in zip(asked, alone, together, strict=True):
        for answer in answers:
            found = family.found(answer)
            assert len(found) == (BEAMS if how else 1)
            for attention in found:
                check(family, given, attention)


def rolled_slowly(weights: Weights) -> dict[tuple[str, str], Array]:
    """Return the rollout of each stack's last layer, by matrices over all positions of both sides at once."""
    means = {place: one.mean(axis=0).astype(np.float64) for place, one in weights.items()}
    stacks = {
        kind: max(layer for stack, own, layer in means if (stack, own) == kind) + 1 for kind in {p[:2] for p in means}
    }
    found: dict[tuple[str, str], Array] = {}

    def step(flow: Array, block: tuple[slice, slice], mean: Array) -> Array:
        """Let half of the rows of a block come from its columns."""
        mixed = np.eye(len(flow))
        mixed[block[0], block[0]] *= 0.5
        mixed[block] += 0.5 * mean
        return (mixed / mixed.sum(axis=1, keepdims=True)) @ flow

    if ("prompt", "self") in stacks:
        read, written = means["prompt", "self", 0].shape[0], means["decoder", "self", 0].shape[0]
        size = means["decoder", "self", 0].shape[1]
        flow = np.eye(size)
        for layer in range(stacks["decoder", "self"]):
            whole = np.zeros((size, size))
            whole[:read, :read] = means["prompt", "self", layer]
            whole[-written:] = means["decoder", "self", layer]
            flow = step(flow, (slice(size), slice(size)), whole)
        return {("decoder", "self"): flow[-written:], ("prompt", "self"): flow[:read, :read]}
    source = means["encoder", "self", 0].shape[0]
    target = means["decoder", "self", 0].shape[0] if ("decoder", "self") in stacks else 0
    first, second = slice(source), slice(source, source + target)
    flow, own = np.eye(source + target), np.eye(source + target)
    for layer in range(stacks["encoder", "self"]):
        flow = step(flow, (first, first), means["encoder", "self", layer])
    found["encoder", "self"] = flow[first, first]
    for layer in range(stacks.get(("decoder", "self"), 0)):
        own = step(own, (second, second), means["decoder", "self", layer])
        flow = step(flow, (second, second), means["decoder", "self", layer])
        flow = step(flow, (second, first), means["decoder", "cross", layer])
    if target:
        found["decoder", "self"] = own[second, second]
        found["decoder", "cross"] = flow[second, first] / flow[second, first].sum(axis=1, keepdims=True)
    return found


def test_a_rollout_equals_that_of_the_eager_models_weights(family: Family, address: str) -> None:
    """Of the last layer of every stack, and across from output to input, with rows that sum to 1."""
    with Client(address) as client:
        for given in family.inputs:
            plain = family.ask(client, given, {"attention": family.options}).attention
            options = replace(family.options, reduction="rollout")
            attention = family.ask(client, given, {"attention": options}).attention

            expected = rolled_slowly(family.attend(given, token_ids_of(plain)))
            assert {place_of(one)[:2] for one in attention.maps} == expected.keys()
            for one in attention.maps:
                weights = expected[place_of(one)[:2]]
                assert one.weights.shape == (1, *weights.shape)
                assert np.abs(one.weights[0] - weights).max() < TOLERANCE
                assert np.abs(one.weights.sum(axis=-1, dtype=np.float64) - 1).max() < 1e-5


@pytest.mark.parametrize("encoding", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("top_k", [None, 4])
async def test_however_weights_travel_both_clients_read_them(
    family: Family, address: str, encoding: Any, top_k: int | None
) -> None:
    """Within the declared error of the eager model's, each at its key; what was left out is among the smallest."""
    given = family.inputs[-1]
    options = {"attention": replace(family.options, encoding=encoding, top_k=top_k)}
    async with AsyncClient(address) as client:
        found = (await family.ask(client, given, options)).attention
    with Client(address) as client:
        again = family.ask(client, given, options).attention

    expected = family.attend(given, token_ids_of(found))
    for one, other in zip(found.maps, again.maps, strict=True):
        assert np.allclose(one.weights, other.weights, atol=1e-5 + one.max_error + other.max_error)
        weights = expected[place_of(one)]
        kept = np.sort(weights, axis=-1)[..., ::-1][..., : one.weights.shape[-1]]
        assert one.weights.shape[-1] == min(top_k or len(one.keys), len(one.keys))
        if one.key_indices is None:
            assert np.abs(one.weights - weights).max() < TOLERANCE + one.max_error
            continue
        assert np.abs(one.weights - kept).max() < TOLERANCE + one.max_error
        at_their_keys = np.take_along_axis(weights, one.key_indices.astype(np.intp), axis=-1)
        assert np.abs(one.weights - at_their_keys).max() < TOLERANCE + one.max_error


def test_patches_are_the_models_own_weights(family: Family, address: str) -> None:
    """Of an image its patches alone, as heavy as they are beside [CLS]; models that look at none refuse by name."""
    options = {granularity: replace(family.options, granularity=granularity) for granularity in ("word", "patch")}  # type: ignore[arg-type]
    given = family.inputs[0]
    with Client(address) as client:
        if not isinstance(given, bytes):
            with pytest.raises(RequestFailed, match=r"attention\.granularity: model .* looks at no image"):
                family.ask(client, given, {"attention": options["patch"]})
            return
        words, patches = (family.ask(client, given, {"attention": one}).attention for one in options.values())

    over_image = [(whole, one) for whole, one in zip(words.maps, patches.maps, strict=True) if whole.key_grid]
    assert {one.kind for _, one in over_image} == {"self", "cross"} if family.writes else {"self"}
    for whole, one in over_image:
        assert (one.key_axis, one.key_grid, one.queries) == ("patches", whole.key_grid, whole.queries)
        assert one.keys == whole.keys[1:]
        assert np.array_equal(one.weights, whole.weights[..., 1:])
        assert np.array_equal(patch_weights(one, 0), patch_weights(whole, 0))
