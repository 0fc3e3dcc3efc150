"""When a token may be shown although more of the source is to come: the policy AlignAtt.

Papi, Turchi and Negri 2023, AlignAtt: Using Attention-based Audio-Translation Alignments as a Guide for
Simultaneous Speech Translation, section 3: a token is aligned with the position that it attends to
most, and one that is aligned with any of the last f positions waits for more of the source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from regard.attention.heads import FloatArray, tap_name
from regard.attention.selection import Selection
from regard.text.segment import Segment


@dataclass(frozen=True)
class AlignAtt:
    """The policy with the f of `frames`, on the mean of `heads`, which are heads by the name of their tap."""

    frames: int
    heads: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, frames: int, selection: Selection) -> AlignAtt | None:
        """Return the policy on what `selection` holds of cross-attention; None if there is nothing.

        Of alignment heads, those that tell at the step that makes the token.
        """
        if selection.alignment is not None:
            spec = selection.alignment
            heads = [(tap_name(head), head.head) for head in spec.heads if head.position == "output"]
        else:
            crossing = [tap for tap in selection.taps if tap.kind == "cross"]
            heads = [(tap.name, head) for tap in crossing for head in selection.heads_of(tap)]
        return cls(frames, tuple(heads)) if heads else None

    def is_safe(self, step: Mapping[str, FloatArray], source: Sequence[Segment]) -> bool:
        """Return whether the token of a step, [heads, S] by the tap's name, may be shown; `source` has S segments.

        Special tokens, to which attention goes that has nowhere else to go, don't count.
        """
        places = [place for place, segment in enumerate(source) if not segment.special]
        if not places:
            return False
        weights = np.mean([step[name][head] for name, head in self.heads], axis=0)
        return int(weights[places].argmax()) < len(places) - self.frames
