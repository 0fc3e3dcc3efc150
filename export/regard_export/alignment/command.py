"""`regard-export calibrate`: choose a package's alignment heads, and write them into it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from regard_export.commands import ERR, OUT, load, refuse


def calibrate(
    package: Annotated[
        Path, typer.Argument(help="The directory of the package: NAME/VERSION below a models directory.")
    ],
    bitext: Annotated[
        Path,
        typer.Option(
            help="Sentence pairs to choose by, one a line: 'source<TAB>target', or 'tokens ||| tokens'. A few thousand "
            "that the model was not trained on will do."
        ),
    ],
    gold: Annotated[
        Path | None,
        typer.Option(
            help="Links that people made, to measure on: '0-0 1-2 2p3', a line for each pair of --gold-bitext."
        ),
    ] = None,
    gold_bitext: Annotated[
        Path | None, typer.Option(help="The pairs that --gold is for. Default: those of --bitext.")
    ] = None,
    gold_one_index: Annotated[
        bool, typer.Option("--gold-one-index", help="The links of --gold count words from 1, not from 0.")
    ] = False,
) -> None:
    """Choose the heads that tell which word translates which, and write them into the package.

    Each head of the decoder's cross-attention is scored, at the step that makes a token and at the step that
    it is fed to, by its agreement with a statistical aligner that is trained on the bitext. The best are put
    together. Links that people made are measured on, never chosen by.

    [bold]Example[/bold]
    [cyan]regard-export calibrate models/opus-mt-en-fr/1 --bitext newstest.tsv[/cyan]
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    loaded = load(package)
    with ERR.status("loading ONNX Runtime") as status:
        from regard_export.alignment.bitext import read_bitext, read_gold
        from regard_export.alignment.calibration import calibrate as choose
        from regard_export.alignment.calibration import measure
        from regard_export.alignment.forcing import Forcer
        from regard_export.alignment.tables import heads_table, methods_table
        from regard_export.errors import ExportError
        from regard_export.sealing import reseal

        try:
            pairs = read_bitext(bitext)
            forcer = Forcer(loaded.directory, loaded.manifest)
            calibration = choose(forcer, pairs, status.update)
            spec = calibration.spec
            if gold is not None:
                status.update("measuring on gold links")
                measured = measure(
                    forcer,
                    spec,
                    read_bitext(gold_bitext) if gold_bitext else pairs,
                    read_gold(gold, one_indexed=gold_one_index),
                )
                spec = spec.model_copy(update={"aer": round(measured, 4)})
            reseal(loaded.directory, loaded.manifest, alignment=spec)
        except ExportError as error:
            refuse(str(error))
    OUT.print(heads_table(calibration))
    OUT.print(methods_table(calibration))
    measured_too = "" if spec.aer is None else f"; on gold links {spec.aer:.1%}"
    OUT.print(f"alignment error rate against the aligner's links {spec.silver_aer:.1%}{measured_too}")
