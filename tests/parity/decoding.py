"""`make parity-decoding`: every kind of search, in mixed batches of the engine, against `generate()`.

Each option set is asked for by as many requests of every model; they run in shuffled batches, all
requests of one at once, so that searches of every width and length come and go side by side.
Whatever is random is drawn afresh from a seed, which is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import secrets
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import structlog
from rich.console import Console
from rich.progress import track
from rich.table import Table
from tests.export.checkpoints import save_captioner, save_completer, save_git, save_t5, save_translator

from load_tests.peers.results import Figure, write
from regard_export.package import Options, export

from .family import Family, served
from .option_sets import OPTION_SETS
from .rounding import MULTIPLIED, distances
from .verdicts import TOLERANCE, Verdicts

DEMONSTRATION = Path(__file__).parents[2] / "export" / "checkpoints" / "demo-en-fr"
FAMILIES: dict[str, Callable[[Path], Path]] = {
    "MarianMT": save_translator,
    "T5": save_t5,
    "ViT and GPT-2": save_captioner,
    "GPT-2": save_completer,
    "OPT": lambda at: save_completer(at, "OPT"),
    "GIT": save_git,
    "demo-en-fr": lambda _: DEMONSTRATION,
}
BATCH = 24
DRAWS = 10_000
DRAWS_OF_A_REQUEST = 25
FARTHEST = 6.0
"""Standard deviations that no share of the draws is away from what is expected."""

Apart = Mapping[tuple[str, str], list[float]]
"""How far the scores of a model are apart, by whose they are."""

console = Console(width=None if sys.stdout.isatty() else 120)


async def compare(family: Family, requests: int, random: np.random.Generator) -> Verdicts:
    """Put `requests` of every option set to the engine, in batches that mix them, and judge the answers.

    Samples are asked for once more, alone: a seed's text is the same whatever else is in the batch.
    """
    asks = [family.ask(name, random) for name in OPTION_SETS for _ in range(requests)]
    order = random.permutation(len(asks))
    verdicts = Verdicts()
    for start in track(range(0, len(asks), BATCH), "    batches", console=console, transient=True):
        batch = [asks[at] for at in order[start : start + BATCH]]
        answers = await asyncio.gather(*(family.answer(ask.source, ask.options) for ask in batch))
        for ask, answer in zip(batch, answers, strict=True):
            verdicts.judge(ask, answer, family)
            if ask.options.do_sample:
                verdicts.judge_again(ask, answer, await family.answer(ask.source, ask.options), family)
    return verdicts


async def deviation(family: Family, random: np.random.Generator) -> float:
    """Draw a first token 10,000 times; return the greatest deviation of any token's share.

    It is counted in standard deviations of what Transformers' warpers make of the eager scores, of a
    token that is expected once at least; a token that they leave out must not come.
    """
    given = {"do_sample": True, "temperature": 1.3, "top_k": 30, "top_p": 0.95, "max_new_tokens": 2}
    ask = family.ask_with("frequencies", given | {"num_return_sequences": DRAWS_OF_A_REQUEST}, random)
    drawn = np.zeros(family.spec.vocabulary_size)
    for _ in range(DRAWS // DRAWS_OF_A_REQUEST):
        options = family.options(ask.given | {"seed": int(random.integers(2**63))})
        for sequence in (await family.answer(ask.source, options)).sequences:
            drawn[sequence.token_ids[0]] += 1
    probabilities = family.reference.first_distribution(ask.arguments, given)
    if drawn[probabilities == 0].any():
        return np.inf
    expected = DRAWS * probabilities
    counted = expected >= 1
    spread = np.sqrt(expected * (1 - probabilities))
    return float((np.abs(drawn - expected)[counted] / spread[counted]).max())


def main() -> int:
    """Compare all families, print one table, and return 1 if anything differs."""
    arguments = _arguments()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    warnings.filterwarnings("ignore")
    seed = secrets.randbits(32) if arguments.seed is None else arguments.seed
    console.print(f"seed {seed} (make parity-decoding PARITY='--seed {seed}' repeats it)")
    found: dict[str, Verdicts] = {}
    deviations: dict[str, float] = {}
    apart: dict[str, Apart] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for number, (name, save) in enumerate(FAMILIES.items()):
            console.print(f"==> {name}")
            started = time.perf_counter()
            random = np.random.default_rng([seed, number])
            at = Path(scratch) / str(number)
            checkpoint = save(at / "checkpoint")
            with served(checkpoint, export(checkpoint, at / "models", Options(name="model"))) as family:
                found[name] = asyncio.run(compare(family, arguments.requests, random))
                deviations[name] = asyncio.run(deviation(family, random))
                apart[name] = asyncio.run(distances(family, arguments.requests, random))
            console.print(f"    {_summary(found[name])}; {time.perf_counter() - started:.0f} s")
            for explanation in found[name].explanations:
                console.print(f"    {explanation}", markup=False)
    console.print(_table(found, deviations, seed))
    console.print(_rounding_table(apart))
    figures = [figure for name in FAMILIES for figure in _figures(name, found[name], deviations[name], apart[name])]
    console.print(f"written to {write('parity-decoding', figures)}")
    return 0 if all(figure.holds is not False for figure in figures) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="repeat the run of this seed")
    parser.add_argument("--requests", type=int, default=BATCH, help=f"requests of each option set (default {BATCH})")
    return parser.parse_args()


def _table(found: dict[str, Verdicts], deviations: dict[str, float], seed: int) -> Table:
    """Return how many requests of each option set and family are equal, are ties or differ."""
    title = f"requests equal to generate(), in mixed batches of {BATCH} (seed {seed})"
    table = Table("", *found, title=title)
    for name in OPTION_SETS:
        table.add_row(name, *(_cell(verdicts, name) for verdicts in found.values()))
    table.add_section()
    totals = (verdicts.totals for verdicts in found.values())
    table.add_row("all, and ties among them", *(f"{asked}, {ties}" for asked, ties, _ in totals))
    table.add_row("greatest difference of a score", *(f"{verdicts.worst_score:.1e}" for verdicts in found.values()))
    table.add_row(f"shares of {DRAWS:,} draws", *(f"within {value:.1f} sigma" for value in deviations.values()))
    return table


def _rounding_table(apart: Mapping[str, Apart]) -> Table:
    """Return how far scores are apart that only rounding tells apart, beside which our differences are to be read."""
    table = Table("", *apart, title=f'"{MULTIPLIED}": scores more than {TOLERANCE:g} apart, and the farthest')
    for one, other in dict.fromkeys(pair for found in apart.values() for pair in found):
        cells = (_rounding_cell(found.get((one, other), [])) for found in apart.values())
        table.add_row(f"{one}, from {other}", *cells)
    return table


def _rounding_cell(differences: Sequence[float]) -> str:
    if not differences:
        return "-"
    return f"{sum(one > TOLERANCE for one in differences)} of {len(differences)}, {max(differences):.1e}"


def _summary(verdicts: Verdicts) -> str:
    asked, ties, differences = verdicts.totals
    return f"{asked - ties - differences} of {asked} requests equal, {ties} tied, {differences} differ"


def _cell(verdicts: Verdicts, name: str) -> str:
    asked, ties, differences = verdicts.asked[name], verdicts.ties[name], verdicts.differences[name]
    parts = [f"{asked - ties - differences}"]
    parts += [f"{ties} tied"] * bool(ties)
    parts += [f"[red]{differences} differ[/red]"] * bool(differences)
    return ", ".join(parts)


def _figures(name: str, verdicts: Verdicts, deviation: float, apart: Apart) -> list[Figure]:
    asked, ties, differences = verdicts.totals
    return [
        *(Figure(f"{name}, {MULTIPLIED}: {one}, from {other}", "nats", found) for (one, other), found in apart.items()),
        Figure(f"{name}: requests that are equal or tie", "share", [(asked - differences) / asked], 1.0),
        Figure(f"{name}: requests that tie", "requests", [ties]),
        Figure(f"{name}: greatest difference of a score", "nats", [verdicts.worst_score], TOLERANCE, limits=True),
        Figure(f"{name}: farthest share of {DRAWS:,} draws", "sigma", [deviation], FARTHEST, limits=True),
    ]


if __name__ == "__main__":
    sys.exit(main())
