"""Whether the question of how much of the dense answer is kept makes sense at all. Pure.

Where a dense fine run is no better than a dense glance, a share of "what is gained" is a share of
nothing: retention is undefined, and any number for it would mislead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from saccade.pipeline.quality.intervals import Interval, paired_interval


@dataclass(frozen=True, slots=True)
class Gate:
    """What the comparison of dense fine with dense glance allows to be said."""

    gain: Interval
    """Fine minus glance, per image."""

    @property
    def open(self) -> bool:
        """Whether the fine run is better: the interval lies above 0."""
        return self.gain.above_zero

    def __str__(self) -> str:
        gain = self.gain
        if not gain.pairs:
            return "retention is undefined: no image has a value from both dense runs"
        interval = (
            f"{gain.mean:+.3f}, 95 % interval {gain.low:+.3f} to {gain.high:+.3f} over "
            f"{gain.pairs} images"
        )
        if self.open:
            return f"dense fine beats dense glance: {interval}"
        return f"retention is undefined: dense fine does not beat dense glance ({interval})"


def gate(fine: Mapping[str, float], glance: Mapping[str, float], seed: int = 0) -> Gate:
    """Compare a dense fine run with a dense glance, image by image.

    Args:
        fine: a number per image, such as average precision; higher is better.
        glance: likewise, of the glance on the same grid.
        seed: of the bootstrap.
    """
    return Gate(paired_interval(fine, glance, seed=seed))


def retained(share: float, dense: float, gate: Gate | None = None) -> float | None:
    """How much of a dense run's number is kept; None where that is undefined."""
    if dense == 0 or dense != dense or (gate is not None and not gate.open):
        return None
    return share / dense
