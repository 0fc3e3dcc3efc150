"""`regard-export`: from a Hugging Face checkpoint to a model package."""

from __future__ import annotations

import os
import re
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from regard_export.alignment.command import calibrate
from regard_export.commands import (
    ERR,
    ExportByDefault,
    inspect,
    list_families,
    refuse,
    refuse_interrupted,
    stoppable,
    tell,
    verify,
)
from regard_export.errors import ExportError
from regard_export.output import written
from regard_export.places import place_of, require_checkpoint

app = typer.Typer(
    cls=ExportByDefault,
    no_args_is_help=True,
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


@app.callback()
def regard_export() -> None:
    """Make model packages of checkpoints, and look at them.

    [cyan]regard-export CHECKPOINT --output MODELS[/cyan] is short for [cyan]regard-export export[/cyan]
    with the same; its options are those of [cyan]regard-export export --help[/cyan].

    [bold]Examples[/bold]
    [cyan]regard-export ./opus-mt-en-fr --output models/[/cyan]
    [cyan]regard-export ./nllb --output models/ --source-language eng_Latn --target-language fra_Latn[/cyan]
    [cyan]regard-export inspect models/opus-mt-en-fr/1[/cyan]
    [cyan]regard-export verify models/opus-mt-en-fr/1 --against ./opus-mt-en-fr[/cyan]
    """


class Target(StrEnum):
    """What the graphs are to run on."""

    CPU = "cpu"
    PORTABLE = "portable"
    CUDA = "cuda"
    TENSORRT = "tensorrt"


class Precision(StrEnum):
    """How the weights are stored and multiplied."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


class ActivationScale(StrEnum):
    """What activations are rounded together with."""

    TENSOR = "tensor"
    TOKEN = "token"
    MIXED = "mixed"


@app.command()
def export(
    checkpoint: Annotated[
        Path, typer.Argument(help="The directory of the checkpoint: config.json, model.safetensors, tokenizer files.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The models directory; the package is OUTPUT/NAME/VERSION.")
    ],
    name: Annotated[str | None, typer.Option(help="The model's name. Default: the checkpoint directory's.")] = None,
    version: Annotated[str, typer.Option(help="The model's version: a positive number.")] = "1",
    target: Annotated[
        Target,
        typer.Option(
            metavar="TARGET",
            help="What the graphs are to run on: cpu, cuda, portable, which is any runtime of ONNX' own operators, or "
            "tensorrt, which runs its decoders on CUDA.",
        ),
    ] = Target.CPU,
    precision: Annotated[
        Precision,
        typer.Option(
            help="fp32 is exact; fp16, for GPUs, and int8, for CPUs, are smaller and faster, and lose a little. What "
            "int8 answers depends a little on the requests beside it, but for --activation-scale token."
        ),
    ] = Precision.FP32,
    activation_scale: Annotated[
        ActivationScale | None,
        typer.Option(
            help="What int8 rounds activations by: one scale for all that a matrix multiplies, which is fastest; one "
            "for each token, so that an answer doesn't depend on the requests beside it; or mixed, which is nearly as "
            "exact as token and nearly as fast as tensor. Default: mixed on CPUs, tensor in portable graphs."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a package of the same name and version.")
    ] = False,
    source_language: Annotated[
        str | None,
        typer.Option(help="The language of the source, of a translator that knows many: its tokenizer's code."),
    ] = None,
    target_language: Annotated[str | None, typer.Option(help="The language to translate to.")] = None,
    interventions: Annotated[
        bool,
        typer.Option(
            "--interventions",
            help="Add graphs by which requests can change attention: knock out heads, ban or bias what they look "
            "at. They share the weights' files; a server loads them when a request first asks.",
        ),
    ] = False,
    value_norms: Annotated[
        bool,
        typer.Option(
            "--value-norms",
            help="Let requests ask for attention weights times the norms of what they weigh, which are computed for "
            "those that do.",
        ),
    ] = False,
    without_taps: Annotated[
        bool, typer.Option("--without-taps", help="Leave out the attention weights, to measure what they cost.")
    ] = False,
) -> None:
    """Export a Hugging Face checkpoint to ONNX with fused attention, and prove it.

    The package is compared with the eager model (outputs, generated tokens and every attention
    tensor) before it is put in place; over tolerance, or on any error, nothing is written.

    [bold]Examples[/bold]
    [cyan]regard-export ./opus-mt-en-fr --output models/[/cyan]
    [cyan]regard-export ./bert --output models/ --interventions[/cyan]
    [cyan]regard serve --models models/[/cyan]
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    chosen = name or checkpoint.resolve().name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", chosen):
        refuse(
            f"the name {chosen!r} must be letters, digits, '.', '_' and '-', at most 128; choose one with --name",
        )
    if not re.fullmatch(r"[1-9][0-9]{0,8}", version):
        refuse(f"the version {version!r} must be a positive whole number")
    for flag, given in (("--interventions", interventions), ("--value-norms", value_norms)):
        if given and without_taps:
            refuse(f"{flag} change what taps show: give one of {flag} and --without-taps")
    started = time.monotonic()
    try:
        place_of(output, chosen, version, overwrite=overwrite)
        require_checkpoint(checkpoint)
    except ExportError as error:
        refuse(str(error))
    try:
        with stoppable(), ERR.status("loading PyTorch and Transformers") as status:
            from regard_export.languages import Languages
            from regard_export.package import Options
            from regard_export.package import export as export_package

            def progress(stage: str) -> None:
                status.update(stage)
                ERR.print(f"[dim]{time.monotonic() - started:6.1f} s[/dim]  {stage}")

            options = Options(
                chosen,
                version,
                target.value,
                precision.value,
                taps=not without_taps,
                interventions=interventions,
                value_norms=value_norms,
                activation_scale=activation_scale.value if activation_scale is not None else None,
                overwrite=overwrite,
                languages=Languages(source_language, target_language),
            )
            try:
                package = export_package(checkpoint, output, options, progress)
            except ExportError as error:
                refuse(str(error))
    except KeyboardInterrupt as stop:
        refuse_interrupted(stop)
    ERR.print(f"[dim]{time.monotonic() - started:6.1f} s[/dim]  [bold green]exported[/bold green] {package}")


app.command()(inspect)
app.command("list")(list_families)
app.command()(verify)
app.command()(calibrate)


def main() -> None:
    """Run the command line. Output that can't be written becomes a line on stderr and exit code 1."""
    with written(tell):
        app()


if __name__ == "__main__":
    main()
