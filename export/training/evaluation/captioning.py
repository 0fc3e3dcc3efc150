"""A captioner's quality: the right objects, their sizes and relations, and whether attention points at them."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoImageProcessor, AutoTokenizer, VisionEncoderDecoderModel

import scene_judge
from evaluation.measures import Evaluation, Figure, Row
from evaluation.serving import whole
from regard.client import AttentionOptions, Caption, Client, Model, patch_weights
from scenes import Scene

SCENES = 1000
POINTING_SCENES = 500
CHOOSING_SCENES = 200
BARS = {"objects": 95.0, "relations": 90.0}
POINTING_BAR = 70.0

Hits = dict[tuple[int, int], list[bool]]
"""For each layer and head, whether it pointed right at each object."""


@dataclass(frozen=True)
class _Pointing:
    """The share of objects that a layer and head points at, and what a uniform map would hit, in percent."""

    hits: Hits
    uniform: float
    objects: int

    def of(self, place: tuple[int, int]) -> float:
        return 100 * float(np.mean(self.hits[place]))


def evaluate(checkpoint: Path, _: Path | None, packages: Mapping[str, Model], client: Client) -> Evaluation:
    """Judge captions of held-out scenes, apart those of unseen combinations, and play the pointing game."""
    seen, unseen = scene_judge.held_out(SCENES), scene_judge.held_out_combinations(SCENES)
    captions = {"checkpoint": [generate(checkpoint, scenes) for scenes in (seen, unseen)]}
    for precision, package in packages.items():
        captions[precision] = [caption(client, package, scenes) for scenes in (seen, unseen)]
    figures = [*_figures(captions, 0, seen, "", BARS), *_figures(captions, 1, unseen, ", unseen combinations", {})]
    named = {
        who: 100 * float(np.mean(list(map(scene_judge.names_unseen, texts[1], unseen))))
        for who, texts in captions.items()
    }
    figures.append(Figure("unseen combinations named", "%", named.pop("checkpoint"), named))
    context = [Row("scenes", SCENES, ""), Row("scenes of unseen combinations", SCENES, "")]
    for precision, texts in captions.items():
        if precision != "checkpoint":
            alike = np.mean([a == b for a, b in zip(texts[0], captions["checkpoint"][0], strict=True)])
            context.append(Row(f"captions alike, {precision}", 100 * float(alike), "%"))
    if "fp32" in packages:
        context += pointing_rows(client, packages["fp32"])
    return Evaluation(figures, context)


def _figures(
    captions: Mapping[str, Sequence[Sequence[str]]],
    which: int,
    scenes: Sequence[Scene],
    suffix: str,
    bars: Mapping[str, float],
) -> Iterable[Figure]:
    verdicts = {
        who: [scene_judge.judge(text, scene) for text, scene in zip(texts[which], scenes, strict=True)]
        for who, texts in captions.items()
    }
    for measure, name in (("objects", "exact objects"), ("sizes", "and sizes"), ("relations", "and relations")):
        shares = {who: 100 * float(np.mean([getattr(one, measure) for one in own])) for who, own in verdicts.items()}
        own = shares.pop("checkpoint")
        yield Figure(f"{name}{suffix}", "%", own, shares, bar=bars.get(measure), guarded=measure in bars)


@torch.inference_mode()
def generate(checkpoint: Path, scenes: Sequence[Scene]) -> list[str]:
    """Caption `scenes` with the checkpoint's `generate()`."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    processor = AutoImageProcessor.from_pretrained(checkpoint, local_files_only=True)
    model = VisionEncoderDecoderModel.from_pretrained(checkpoint, local_files_only=True, dtype=torch.float32).eval()
    texts: list[str] = []
    for start in range(0, len(scenes), 100):
        images = [scene.image for scene in scenes[start : start + 100]]
        output = model.generate(**processor(images=images, return_tensors="pt"), do_sample=False)
        texts += tokenizer.batch_decode(output, skip_special_tokens=True)
    return texts


def caption(client: Client, package: Model, scenes: Sequence[Scene]) -> list[str]:
    """Caption `scenes` with the package, greedily, through the service."""
    answers = client.caption_many(map(png, scenes), model=package.name, version=package.version)
    whole(answers)
    return [answer.text for answer in answers if isinstance(answer, Caption)]


def png(scene: Scene) -> bytes:
    """Return a scene as the bytes of a PNG file."""
    file = io.BytesIO()
    scene.image.save(file, "PNG")
    return file.getvalue()


def pointing_rows(client: Client, package: Model) -> list[Row]:
    """Choose a layer and head on some scenes and say how often they point right on others."""
    choosing = point(client, package, scene_judge.CHOOSING_SEED, CHOOSING_SCENES)
    best = max(choosing.hits, key=choosing.of)
    found = point(client, package, scene_judge.POINTING_SEED, POINTING_SCENES)
    value = found.of(best)
    name = f"pointing game, decoder layer {best[0]}, head {best[1]} (chosen on {CHOOSING_SCENES} other scenes)"
    return [
        Row(name, value, "%", POINTING_BAR, value >= POINTING_BAR),
        Row("pointing game, uniform map", found.uniform, "%"),
        Row("pointing game, objects", found.objects, ""),
    ]


def point(client: Client, package: Model, seed: int, count: int) -> _Pointing:
    """Ask where every layer and head looks as it writes the shape of each object that a caption names rightly."""
    scenes = scene_judge.some(seed, count)
    answers = client.caption_many(
        map(png, scenes),
        model=package.name,
        version=package.version,
        attention=AttentionOptions(kinds=["cross"], granularity="word"),
    )
    whole(answers)
    hits: Hits = {}
    chances: list[float] = []
    for scene, answer in zip(scenes, answers, strict=True):
        if isinstance(answer, Caption) and answer.attention is not None:
            for mention in scene_judge.mentions(answer.text):
                box = next((one.box for one in scene.objects if one.kind == mention.kind), None)
                if box is None:
                    continue
                for one in answer.attention.maps:
                    word = next(place for place, query in enumerate(one.queries) if query.start == mention.span[0])
                    weights = np.stack([patch_weights(one, word, head) for head in range(len(one.heads))])
                    for head, hit in zip(one.heads, scene_judge.hits(weights, box), strict=True):
                        hits.setdefault((one.layer, head), []).append(bool(hit))
                chances.append(scene_judge.chance(*weights.shape[1:], box))
    return _Pointing(hits, 100 * float(np.mean(chances)), len(chances))
