"""`regard classify --image` on a real server, beside Transformers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import transformers
from PIL import Image
from structlog.testing import capture_logs
from typer.testing import CliRunner

from regard.cli.app import app

from ..conftest import Intervenable  # noqa: TID252 - tests are no package of sys.path
from ..serving import serving_in_thread  # noqa: TID252 - tests are no package of sys.path


def test_images_get_the_classes_of_transformers(intervenable: Intervenable, tmp_path: Path) -> None:
    """Each image that is one has the pipeline's classes with its probabilities; what is none is told of by its name."""
    images = [Image.effect_noise((width, 20), 90).convert("RGB") for width in (24, 31)]
    files = [tmp_path / name for name in ("one.png", "two.png", "notes.txt")]
    for image, file in zip(images, files, strict=False):
        image.save(file)
    files[2].write_text("no image")
    classify = transformers.pipeline("image-classification", str(intervenable.looker), use_fast=False)
    flags = [word for file in files for word in ("--image", str(file))]

    with serving_in_thread(intervenable.models) as address, capture_logs():
        told = CliRunner().invoke(app, ["classify", *flags, "--json", "--model", "looker", "--server", address])
        drawn = CliRunner().invoke(
            app, ["classify", *flags[:2], "--attention", "--model", "looker", "--server", address]
        )

    *records, failed = map(json.loads, told.stdout.splitlines())
    for record, image in zip(records, images, strict=True):
        expected = {one["label"]: one["score"] for one in classify(image)}
        assert {one["label"]: one["probability"] for one in record["classes"]} == pytest.approx(expected, abs=1e-5)
    assert told.exit_code == 1
    assert f"{files[2]}: the image is not an image that can be read; send a JPEG" in told.stderr
    assert failed["failure"]["field"] == "inputs[2].image"
    assert "where [CLS] looked" in drawn.stdout
