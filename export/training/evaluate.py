"""Measure checkpoints with Transformers, and the packages exported from them through the service, side by side.

    python export/training/evaluate.py --data fra-eng.zip data_full.json [--models models/] [CHECKPOINT ...]

A checkpoint's class says which task it does: a translator is measured on the held-out test
sentences of Tatoeba (fra-eng.zip), a classifier on the test utterances of CLINC150
(data_full.json), a captioner on scenes that are drawn for it. Its packages are NAME and NAME-int8 of
the models directory, served over gRPC by a server that is started for it. Each prints a table and
writes `build/results/evaluate-NAME.json`; and the figures of every package are written into it, where
`regard-export inspect` shows them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import transformers
from rich.console import Console
from transformers import AutoConfig

from evaluation import captioning, intents, translation
from evaluation.measures import Evaluation, quality_of, show, write
from evaluation.serving import packages_of, served
from regard.client import Client, Model
from regard.manifest import load_package
from regard_export.sealing import reseal

CHECKPOINTS = Path("export/checkpoints")
Evaluate = Callable[[Path, Any, Mapping[str, Model], Client], Evaluation]
EVALUATIONS: dict[str, tuple[str | None, Evaluate]] = {
    "MarianMTModel": ("fra-eng.zip", translation.evaluate),
    "BertForSequenceClassification": ("data_full.json", intents.evaluate),
    "VisionEncoderDecoderModel": (None, captioning.evaluate),
}
"""For each class of model, the data that it is measured on (None is drawn), and how."""


def main() -> None:
    """Evaluate every checkpoint whose data is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="*", type=Path, help="default: those of export/checkpoints")
    parser.add_argument("--data", nargs="*", type=Path, default=[], help="fra-eng.zip, data_full.json, or both")
    parser.add_argument("--models", type=Path, default=Path("models"), help="where their packages are")
    parser.add_argument("--results", type=Path, default=Path("build/results"), help="where the figures are written")
    options = parser.parse_args()

    transformers.utils.logging.disable_progress_bar()
    console = Console()
    data = {file.name: file for file in options.data}
    with served(options.models) as client:
        models = client.models()
        for checkpoint in options.checkpoints or sorted(path.parent for path in CHECKPOINTS.glob("*/config.json")):
            name = checkpoint.resolve().name
            architecture = AutoConfig.from_pretrained(checkpoint, local_files_only=True).architectures[0]
            needs, evaluate = EVALUATIONS[architecture]
            if needs is not None and needs not in data:
                console.print(f"{name}: left out, --data has no {needs}")
                continue
            packages = packages_of(name, models)
            evaluation = evaluate(checkpoint, data[needs] if needs else None, packages, client)
            show(name, evaluation, console)
            write(f"evaluate-{name}", evaluation, options.results)
            for kind, model in packages.items():
                package = load_package(options.models / model.name / model.version)
                reseal(package.directory, package.manifest, quality=quality_of(evaluation, kind))


if __name__ == "__main__":
    main()
