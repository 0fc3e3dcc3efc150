"""The options by which a command changes what the model looks at."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

from regard.cli.flags import Flag, Group
from regard.cli.screen import refuse

if TYPE_CHECKING:
    from regard.client import Intervention

KNOCK_OUT = Flag(
    list[str],
    ("--knock-out",),
    "Take a head, or all heads of a layer, out of the model, such as 3.1 or encoder.self.3.1; may be repeated. "
    "Default layers: across, if any.",
    "[STACK.KIND.]LAYER[.HEAD]",
)
FLAGS: dict[str, Flag] = {
    "knock_out": KNOCK_OUT,
    "ban": Flag(list[str], ("--ban",), "Words of the text that no layer looks at; may be repeated.", "WORDS"),
    "window": Flag(int, ("--window",), "Let each token of the text look at so many before and after it only.", "N"),
}
_HEAD = re.compile(r"(?:(?P<stack>\w+)\.(?P<kind>\w+)\.)?(?P<layer>\d{1,9})(?:\.(?P<head>\d{1,9}))?")


def _interventions(given: Mapping[str, Any], *, across: bool) -> list[Intervention]:
    """Return what the options change; `across` is whether a decoder looks at the text, too."""
    from regard.client import Ban, LocalWindow, Places

    found: list[Intervention] = [_knock_out(head) for head in given["knock_out"] or ()]
    if given.get("window") is not None:
        if given["window"] < 0:
            refuse(f"--window {given['window']}: a token sees at least itself, with 0")
        found.append(LocalWindow(kinds=["self"], stacks=["encoder"], radius=given["window"]))
    if given.get("ban"):
        texts = [text for text in (given["text"], given.get("pair")) if text is not None]
        keys = Places(spans=[span for words in given["ban"] for span in _spans(words, texts)])
        found.append(Ban(kinds=["self"], stacks=["encoder"], keys=keys))
        if across:
            found.append(Ban(kinds=["cross"], keys=keys))
    return found


def _knock_out(text: str) -> Intervention:
    from regard.client import KnockOut
    from regard.client.requests.attention import Kind, Stack

    match = _HEAD.fullmatch(text)
    if match is None:
        refuse(f"--knock-out {text}: name a layer and a head, such as 3.1 or encoder.self.3.1")
    stacks = [stack for stack in get_args(Stack) if stack == match["stack"]]
    kinds = [kind for kind in get_args(Kind) if kind == match["kind"]]
    if match["stack"] and not (stacks and kinds):
        refuse(f"--knock-out {text}: stacks are {', '.join(get_args(Stack))}; kinds are {', '.join(get_args(Kind))}")
    heads = [int(match["head"])] if match["head"] else []
    return KnockOut(stacks=stacks, kinds=kinds, layers=[int(match["layer"])], heads=heads)


def _spans(words: str, texts: list[str]) -> list[tuple[int, int, int]]:
    """Return where the words stand: start, end and which of two texts."""
    if not texts:
        refuse("--ban names words of one text: give it as the argument")
    found = [
        (match.start(), match.end(), part)
        for part, text in enumerate(texts)
        for match in re.finditer(re.escape(words), text)
        if words
    ]
    if not found:
        refuse(f"--ban {words!r}: the text has no such words")
    return found


_PANEL = "What if (needs a package exported with --interventions)"
CHANGES = Group("interventions", _PANEL, FLAGS, partial(_interventions, across=False))
"""What is changed in a model that reads a text, as a list of `Intervention`s."""
CHANGES_ACROSS = Group("interventions", _PANEL, FLAGS, partial(_interventions, across=True))
"""The same in a model whose decoder looks at the text as well."""
KNOCK_OUTS = Group("interventions", _PANEL, {"knock_out": KNOCK_OUT}, partial(_interventions, across=False))
"""The heads that are knocked out of a model that looks at images."""
