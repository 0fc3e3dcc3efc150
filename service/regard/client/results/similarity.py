"""Comparisons of images with texts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from regard.answers import ComparedImage, ComparedText, ModelVersion, TextScore
from regard.client.failures import Failure
from regard.client.results.attention import read_attention
from regard.client.results.outcome import read_failure, read_model_version, read_timing
from regard.v1 import similarity_pb2


@dataclass(frozen=True, slots=True)
class Comparison:
    """Images beside texts; an input that failed has its failure in its place."""

    images: tuple[ComparedImage | Failure, ...]
    texts: tuple[ComparedText | Failure, ...]
    model: ModelVersion

    @property
    def logits(self) -> npt.NDArray[np.float64]:
        """How alike each image is to each text, [images, texts]; NaN where either failed."""
        return self._matrix("logit")

    @property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """The probabilities [images, texts]; NaN where either failed."""
        return self._matrix("probability")

    def _matrix(self, name: str) -> npt.NDArray[np.float64]:
        matrix = np.full((len(self.images), len(self.texts)), np.nan)
        for row, image in zip(matrix, self.images, strict=True):
            for score in image.scores if isinstance(image, ComparedImage) else ():
                row[score.text_index] = getattr(score, name)
        return matrix


def read_comparison(response: similarity_pb2.CompareResponse) -> Comparison:
    """Read the results of a comparison."""
    return Comparison(
        images=tuple(
            read_failure(result.failure, "images", 0) if result.HasField("failure") else _read_image(result.image)
            for result in response.images
        ),
        texts=tuple(
            read_failure(result.failure, "texts", 0) if result.HasField("failure") else _read_text(result.text)
            for result in response.texts
        ),
        model=read_model_version(response.model),
    )


def _read_image(image: similarity_pb2.ComparedImage) -> ComparedImage:
    return ComparedImage(
        scores=tuple(TextScore(one.text_index, one.logit, one.probability) for one in image.scores),
        embedding=tuple(image.embedding),
        attention=read_attention(image.attention) if image.HasField("attention") else None,
        timing=read_timing(image.timing),
    )


def _read_text(text: similarity_pb2.ComparedText) -> ComparedText:
    return ComparedText(
        source_tokens=text.source_tokens,
        truncated=text.truncated,
        embedding=tuple(text.embedding),
        attention=read_attention(text.attention) if text.HasField("attention") else None,
        timing=read_timing(text.timing),
    )
