"""The demonstration translator's and captioner's attributions, through gRPC, against eager Transformers."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tests.serving import serving
from transformers import AutoImageProcessor, AutoModelForSeq2SeqLM, AutoTokenizer, VisionEncoderDecoderModel

from regard.client import AsyncClient
from scene_judge import held_out

CHECKPOINTS = Path(__file__).parents[2] / "export" / "checkpoints"
TOLERANCE = 1e-4
TEXTS = [
    "They grow oranges in California .",
    "Tom is old .",
    "Yes",
    "I do not know where the station is and she does not know it .",
]
"""Texts whose words, to us, are what stands between their spaces."""
GIVEN = ("Tom is old .", "Tom est vieux.")


@torch.inference_mode()
def log_probabilities(model: torch.nn.Module, token_ids: Sequence[int], **inputs: torch.Tensor) -> list[float]:
    """Return what the eager model says to each token of an output."""
    start = model.config.decoder_start_token_id
    decoder_input_ids = torch.tensor([[start, *token_ids[:-1]]])
    logits = model(**inputs, decoder_input_ids=decoder_input_ids).logits[0].double()
    return [float(row.log_softmax(-1)[token]) for row, token in zip(logits, token_ids, strict=True)]


async def test_a_translation_is_worth_what_eager_forced_decoding_loses(packages: Path) -> None:
    """Token scores, leave-one-out of every word and the deletion curve, of own translations and a given one."""
    at = CHECKPOINTS / "demo-en-fr"
    tokenizer = AutoTokenizer.from_pretrained(at, local_files_only=True)
    model = AutoModelForSeq2SeqLM.from_pretrained(at, local_files_only=True, dtype=torch.float32).eval()

    def scores(words: Sequence[str], token_ids: Sequence[int]) -> list[float]:
        pieces = [piece for word in words for piece in tokenizer(word, add_special_tokens=False)["input_ids"]]
        return log_probabilities(model, token_ids, input_ids=torch.tensor([[*pieces, tokenizer.eos_token_id]]))

    async with serving(packages) as target, AsyncClient(target) as client:
        answers = await client.attribute_translation_many([*TEXTS, GIVEN], methods=["leave_one_out"], faithfulness=True)
        plain = await client.translate_many(TEXTS, token_logprobs=True)
        scored = await client.score_translation_many([(text, one.text) for text, one in zip(TEXTS, plain, strict=True)])
    assert answers[-1].text == GIVEN[1]
    for answer, translation, score in zip(answers, plain, scored, strict=False):
        assert answer.text == translation.text
        own, found, again = (
            [(token.token_id, token.log_probability) for token in one.tokens] for one in (translation, answer, score)
        )
        np.testing.assert_allclose(found, own, atol=TOLERANCE)
        np.testing.assert_allclose(again, own, atol=TOLERANCE)
    for text, answer in zip([*TEXTS, GIVEN[0]], answers, strict=True):
        words, told = text.split(" "), answer.attributions["leave_one_out"]
        token_ids = [token.token_id for token in answer.tokens]
        whole = scores(words, token_ids)
        np.testing.assert_allclose([token.log_probability for token in answer.tokens], whole, atol=TOLERANCE)
        without = [scores(words[:place] + words[place + 1 :], token_ids) for place in range(len(words))]
        falls = np.array([np.subtract(whole, one).sum() for one in without])
        np.testing.assert_allclose(told.weights, falls, atol=TOLERANCE * len(token_ids))
        np.testing.assert_allclose(told.target_weights.sum(axis=0), told.weights, atol=1e-6)
        order = np.argsort(-told.weights, kind="stable").tolist()
        gone = [{*order[:size]} for size in range(len(words) + 1)]
        kept = [[word for place, word in enumerate(words) if place not in some] for some in gone]
        curve = [math.exp(sum(scores(some, token_ids)) / len(token_ids)) for some in kept]
        area = sum((left + right) / 2 for left, right in pairwise(curve)) / len(words)
        assert abs(told.faithfulness.deletion_auc - area) <= TOLERANCE


async def test_a_caption_is_worth_what_eager_forced_decoding_loses(packages: Path) -> None:
    """Occlusion by squares of the mean colour, for every token, is an eager difference of the same altered pixels."""
    at = CHECKPOINTS / "demo-scenes"
    model = VisionEncoderDecoderModel.from_pretrained(at, local_files_only=True, dtype=torch.float32).eval()
    processor = AutoImageProcessor.from_pretrained(at, local_files_only=True)
    (scene,) = held_out(1)
    written = io.BytesIO()
    scene.image.save(written, "PNG")
    async with serving(packages) as target, AsyncClient(target) as client:
        answer = await client.attribute_caption(
            written.getvalue(), methods=["occlusion"], granularity="token", occlusion_window=4, occlusion_stride=3
        )
    pixels = processor(Image.open(io.BytesIO(written.getvalue())).convert("RGB"), return_tensors="pt")["pixel_values"]
    token_ids = [token.token_id for token in answer.tokens]
    whole = log_probabilities(model, token_ids, pixel_values=pixels)
    falls: dict[tuple[int, int], np.ndarray] = {}
    for row in (0, 3, 4):
        for column in (0, 3, 4):
            covered = pixels.clone()
            covered[0, :, 8 * row : 8 * row + 32, 8 * column : 8 * column + 32] = pixels[0].mean(dim=(1, 2))[
                :, None, None
            ]
            without = log_probabilities(model, token_ids, pixel_values=covered)
            falls[row, column] = np.subtract(whole, without)
    expected = [
        np.mean(
            [fall for (top, left), fall in falls.items() if top <= row < top + 4 and left <= column < left + 4], axis=0
        )
        for row in range(8)
        for column in range(8)
    ]
    found = answer.attributions["occlusion"]
    assert answer.attributions.grid.rows == answer.attributions.grid.columns == 8
    np.testing.assert_allclose(found.target_weights, np.transpose(expected), atol=TOLERANCE)
