"""A package as a readable card: what it does, what it takes, what it can show, and how well it was proven."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from regard.manifest import MANIFEST_FILE, GraphSpec, Manifest, Package

PARITY_FILE = "parity.json"
_DOMAIN = "com.microsoft::"
_FUSED = {"Attention", "RMSNormalization"}
"""ONNX' own fused operators; those of the other domain are all fused."""
_LABELS = 8
"""How many classes a card names."""
_SCALES = {
    "tensor": "activations by one scale a batch",
    "token": "activations by a scale for each token",
    "mixed": "activations by a scale for each token where a matrix narrows, and by one a batch elsewhere",
}


def card(package: Package) -> RenderableType:
    """Return the card of a package, to be printed by rich."""
    manifest = package.manifest
    return Group(
        _facts(package),
        _graphs(manifest),
        _parity(package),
        _files(package),
    )


def _facts(package: Package) -> Table:
    manifest = package.manifest
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), title_justify="left")
    table.title = f"[bold]{manifest.name}/{manifest.version}[/bold]"
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, fact in _lines(manifest):
        table.add_row(name, escape(fact))
    table.add_row("package", f"sha256 {package.sha256}")
    return table


def _lines(manifest: Manifest) -> Iterator[tuple[str, str]]:
    source = manifest.source
    yield "task", manifest.task.value
    yield "source", f"{source.architecture} ({source.model_type}), weights sha256 {source.weights_sha256[:12]}…"
    scale = f", {_SCALES[manifest.activation_scale]}" if manifest.activation_scale else ""
    yield "target", f"{manifest.target}, {manifest.precision}{scale}"
    yield "input", "; ".join(_inputs(manifest))
    if manifest.generation is not None:
        generation = manifest.generation
        yield "output", f"at most {generation.max_target_tokens} tokens of {generation.vocabulary_size:,}"
    if manifest.classification is not None:
        labels = manifest.classification.labels
        rest = f" and {len(labels) - _LABELS} more" if len(labels) > _LABELS else ""
        yield "classes", f"{len(labels)}: {', '.join(labels[:_LABELS])}{rest}"
    if manifest.similarity is not None:
        compared = manifest.similarity
        yield (
            "output",
            f"embeddings of {compared.embedding_size}; logits times {compared.logit_scale:.4g} plus "
            f"{compared.logit_bias:.4g}, their {compared.probabilities}",
        )
    for number, taps in enumerate(_taps(manifest)):
        yield "attention" if number == 0 else "", taps
    if not manifest.taps:
        yield "attention", "none: exported without taps"
    if manifest.alignment is not None:
        spec = manifest.alignment
        measured = "" if spec.aer is None else f", {spec.aer:.1%} against people's links"
        heads = ", ".join(f"{head.layer}.{head.head} ({head.position})" for head in spec.heads)
        yield (
            "alignment",
            f"heads {heads}; {spec.method}; error rate {spec.silver_aer:.1%} against an aligner's{measured}",
        )
    for number, found in enumerate(manifest.quality):
        figures = f"{found.measure}: {found.value:.2f} {found.unit}, its checkpoint {found.checkpoint:.2f}"
        yield "quality" if number == 0 else "", figures
    if manifest.state:
        first = manifest.state[0]
        shape = f"{first.heads} heads of {first.head_size}, {first.dtype}"
        yield "state", f"{len(manifest.state)} {first.kind} tensors a row, {shape}"
    yield "made with", ", ".join(f"{name} {version}" for name, version in manifest.exported_with.items())


def _inputs(manifest: Manifest) -> Iterator[str]:
    text, image = manifest.text, manifest.image
    if text is not None and text.max_source_tokens is not None:
        yield f"text of at most {text.max_source_tokens} tokens"
    if image is not None:
        yield (
            f"an image, {image.height} by {image.width} pixels in {image.patch_rows} by {image.patch_columns} patches"
        )
    audio, transcription = manifest.audio, manifest.transcription
    if audio is not None and transcription is not None:
        languages = f" in {len(transcription.languages)} languages" if transcription.languages else ""
        yield (
            f"speech{languages}, {audio.window_s} s at a time, of {audio.sampling_rate:,} Hz in {audio.mel_bins} mel "
            f"bins and {audio.positions} positions"
        )


def _taps(manifest: Manifest) -> Iterator[str]:
    heads: dict[tuple[str, str], list[int]] = {}
    for tap in manifest.taps:
        heads.setdefault((tap.stack, tap.kind), []).append(tap.heads)
    for (stack, kind), each in heads.items():
        counts = str(each[0]) if len(set(each)) == 1 else ", ".join(map(str, each))
        yield f"{stack} {kind}: {len(each)} layers of {counts} heads"
    if manifest.norm_taps:
        yield "each times the norms of its values as well"


def _graphs(manifest: Manifest) -> Table:
    table = Table("graph", "runs on", "operator", "exported", "optimised", box=box.SIMPLE_HEAD)
    for column in table.columns[3:]:
        column.justify = "right"
    for name, graph in manifest.graphs.items():
        first = (name, ", ".join(graph.providers))
        for operator, exported, optimized in _operators(graph):
            table.add_row(*first, operator, exported, optimized)
            first = ("", "")
    return table


def _operators(graph: GraphSpec) -> Iterator[tuple[str, str, str]]:
    """Yield the fused operators and the most frequent of the others, counted as exported and as optimised."""
    known = sorted({*graph.operators, *graph.optimized_operators})
    fused = [name for name in known if name.startswith(_DOMAIN) or name in _FUSED]
    plain = sorted((name for name in known if name not in fused), key=lambda name: -graph.operators.get(name, 0))
    for name in [*fused, *plain[:3]]:
        yield _counted(name.removeprefix(_DOMAIN), graph, [name])
    if plain[3:]:
        yield _counted(f"{len(plain[3:])} others", graph, plain[3:])


def _counted(label: str, graph: GraphSpec, names: list[str]) -> tuple[str, str, str]:
    exported = sum(graph.operators.get(name, 0) for name in names)
    optimized = sum(graph.optimized_operators.get(name, 0) for name in names)
    return label, str(exported or "-"), str(optimized or "-")


def _parity(package: Package) -> RenderableType:
    report = parity_of(package)
    if report is None:
        return "no parity report"
    return parity_table(report)


def parity_of(package: Package) -> dict[str, Any] | None:
    """Return the report that the package was exported with, if it holds one."""
    if PARITY_FILE not in package.manifest.files:
        return None
    report: dict[str, Any] = json.loads(package.path(PARITY_FILE).read_text("utf-8"))
    return report


def parity_table(report: dict[str, Any], now: dict[str, Any] | None = None) -> Table:
    """Return a report's largest differences beside the tolerance, and beside those measured `now`."""
    tolerance = report["tolerance"]
    limit = "reported only" if tolerance is None else f"at most {tolerance:.0e}"
    table = Table(f"difference from eager ({limit})", "as exported", box=box.SIMPLE_HEAD)
    if now is not None:
        table.add_column("now")
    eager = report.get("eager_max_abs_difference")
    if eager:
        table.add_column("eager in fp16")
    for column in table.columns[1:]:
        column.justify = "right"
    reports = [report] if now is None else [report, now]
    for name in sorted({name for each in reports for name in each["max_abs_difference"]}):
        figures = [each["max_abs_difference"].get(name) for each in reports]
        table.add_row(name, *map(_figure, [*figures, eager.get(name)] if eager else figures))
    if any(each["greedy_tokens_compared"] for each in reports):
        table.add_row(
            "greedy tokens that differ",
            *(f"{each['greedy_tokens_different']} of {each['greedy_tokens_compared']}" for each in reports),
        )
    return table


def _figure(difference: float | None) -> str:
    return "-" if difference is None else f"{difference:.1e}"


def _files(package: Package) -> Table:
    table = Table("file", "size", "sha256", box=box.SIMPLE_HEAD)
    table.columns[1].justify = "right"
    sizes = {name: package.path(name).stat().st_size for name in package.manifest.files}
    for name, digest in package.manifest.files.items():
        table.add_row(name, _size(sizes[name]), f"{digest[:12]}…")
    manifest = package.path(MANIFEST_FILE).stat().st_size
    table.add_row(MANIFEST_FILE, _size(manifest), f"{package.sha256[:12]}…")
    table.add_row("[bold]together[/bold]", _size(sum(sizes.values()) + manifest), "")
    return table


def _size(count: int) -> str:
    """Return a number of bytes in the unit that leaves it below a thousand."""
    amount, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while amount >= 1000 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    return f"{amount:.0f} {units[0]}" if units[0] == "B" else f"{amount:.1f} {units[0]}"
