"""Measure how much memory an export takes: `make bench-export-memory`, or `--half` for half of the layers.

The checkpoint has the shape of NLLB-200-distilled-600M (Costa-jussà et al. 2022,
https://arxiv.org/abs/2207.04672) as its config.json has it: 12 + 12 layers of 1,024, 16 heads, 4,096
within the feed-forward networks, 256,206 words, 1,024 positions. Its weights are random, in fp32. The
export runs in a process of its own, whose peak is what the kernel says of it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from load_tests.peers.results import Figure, table_of, write

WORKSPACE = Path("build/bench-export")
LANGUAGES = ("eng_Latn", "fra_Latn")
MOST_TIMES_THE_CHECKPOINT = 2.5
GIB = 1 << 30

console = Console(width=None if sys.stdout.isatty() else 120)


def main() -> None:
    """Write the checkpoint, export it, print the table and write `build/results/bench-export-memory.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", action="store_true", help="6 + 6 layers and 128,103 words")
    parser.add_argument("--precision", choices=["fp32", "int8"], default="fp32")
    parser.add_argument("--write", type=Path, metavar="DIRECTORY", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write:
        save_nllb(arguments.write, half=arguments.half)
        return
    name = "nllb-600m-half" if arguments.half else "nllb-600m"
    directory = WORKSPACE / name
    shutil.rmtree(directory, ignore_errors=True)
    console.print(f"{name}: writing the checkpoint")
    flags = ["--half"] if arguments.half else []
    command = [sys.executable, "-m", "load_tests.export.memory", "--write", str(directory / name), *flags]
    subprocess.run(command, check=True)
    size = sum(file.stat().st_size for file in (directory / name).glob("*.safetensors"))
    console.print(f"{name}: exporting it, {size / GIB:.2f} GiB of weights")
    started = time.monotonic()
    export = ["regard_export.cli", str(directory / name), "--output", str(directory / "models")]
    options = ["--precision", arguments.precision, "--target-language", LANGUAGES[1]]
    peak = peak_of([sys.executable, "-m", *export, *options])
    title = f"{name}, {arguments.precision}"
    figures = [
        Figure(f"{title}: checkpoint", "GiB", [size / GIB]),
        Figure(f"{title}: peak memory of the export", "GiB", [peak / GIB]),
        Figure(f"{title}: peak / checkpoint", "ratio", [peak / size], MOST_TIMES_THE_CHECKPOINT, limits=True),
        Figure(f"{title}: time of the export", "s", [time.monotonic() - started]),
    ]
    shutil.rmtree(directory)
    console.print(table_of(figures, "memory of an export"))
    console.print(f"written to {write('bench-export-memory', figures)}")


def peak_of(command: list[str]) -> int:
    """Run a command and return the most bytes that it had in memory at once; raise `ChildProcessError` if it fails."""
    _, status, usage = os.wait4(os.posix_spawn(command[0], command, os.environ), 0)
    if status:
        raise ChildProcessError(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss * 1024


def save_nllb(directory: Path, *, half: bool) -> None:
    """Write the checkpoint, with a tokenizer of as many words."""
    from transformers import GenerationConfig, M2M100Config, M2M100ForConditionalGeneration, NllbTokenizer

    layers, words = (6, 128_103) if half else (12, 256_206)
    special = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    ordinary = {f"▁word{number}": number for number in range(len(special), words - len(LANGUAGES) - 1)}
    tokenizer = NllbTokenizer(vocab=special | ordinary, merges=[], extra_special_tokens=list(LANGUAGES))
    assert len(tokenizer) == words, "<mask> is one more"
    ends: dict[str, Any] = {"pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    config = M2M100Config(
        vocab_size=words,
        d_model=1024,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=16,
        decoder_attention_heads=16,
        encoder_ffn_dim=4096,
        decoder_ffn_dim=4096,
        max_position_embeddings=1024,
        scale_embedding=True,
        **ends,
    )
    model = M2M100ForConditionalGeneration(config)
    model.generation_config = GenerationConfig(**ends, max_length=200)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


if __name__ == "__main__":
    main()
