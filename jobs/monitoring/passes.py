"""A run pass by pass, over all images: what is planned and done of each; the time left. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from saccade.jobs.monitoring.folded_passes import PassNumbers
from saccade.jobs.monitoring.tally import Tally

MEMORY = ("allowed_nbytes", "reserved_nbytes", "projected_nbytes", "measured_nbytes")
"""What is told of a pass's memory: the most that a worker may hold, what it holds before it
computes, what computing is expected to add, and the most that it did add."""


@dataclass
class PassTotal:
    """One pass of all images."""

    name: str
    """In the recipe."""
    images: int = 0
    """Whose units of this pass are planned."""
    units_done: int = 0
    """With a receipt."""
    units_planned: int = 0
    """Of the images above."""
    tiles: dict[str, int] = field(default_factory=dict)
    """Selected, of how many, done, degraded, failed."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Busy, by lane."""
    pixels: int = 0
    """Through the model, halos included."""
    memory: dict[str, int] = field(default_factory=dict)
    """Bytes allowed, reserved, projected and measured: the most of any image."""

    @property
    def tiles_done(self) -> int:
        """Tiles answered."""
        return self.tiles.get("done", 0) + self.tiles.get("degraded", 0)

    @property
    def share_refined(self) -> float | None:
        """Share of the tiles that the pass visits; None where none were chosen."""
        return self.tiles["selected"] / self.tiles["of"] if self.tiles.get("of") else None

    def add(self, numbers: PassNumbers, images: int | None = None) -> None:
        """Count an image in, where it knows of this pass.

        Args:
            numbers: of an image, or of many together.
            images: of how many, of which this pass is planned; None where they are of one.
        """
        done, planned = numbers.units.get(self.name, (0, 0))
        self.images += bool(planned) if images is None else images
        self.units_done += done
        self.units_planned += planned
        self.pixels += numbers.pixels.get(self.name, 0)
        _add_up(self.tiles, numbers.tiles.get(self.name, {}))
        _add_up(self.seconds, numbers.seconds.get(self.name, {}))

    def tree(self) -> dict[str, Any]:
        """For programs."""
        return {
            "name": self.name,
            "images": self.images,
            "units": {"done": self.units_done, "planned": self.units_planned},
            "tiles": self.tiles,
            "share_refined": self.share_refined,
            "seconds": {lane: round(s, 3) for lane, s in self.seconds.items()},
            "pixels": self.pixels,
            "memory": self.memory,
        }


def _add_up(sums: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        sums[key] = sums.get(key, 0) + value


def pass_totals(tally: Tally, names: Iterable[str] = ()) -> tuple[PassTotal, ...]:
    """Every pass of all images; those of the recipe first, in its order.

    Args:
        tally: what is known of the images; of those that it only counts, where it does by pass.
        names: of the recipe's passes, where they are known.
    """
    images = [image.passes for image in tally.images.values()]
    counted = tally.passes.total() if tally.passes else PassNumbers()
    most = tally.most_memory()
    found = (name for one in (*images, counted) for name in one.units)
    totals = {name: PassTotal(name) for name in (*names, *found, *most)}
    planned = tally.passes.images() if tally.passes else {}
    for total in totals.values():
        for one in images:
            total.add(one)
        total.add(counted, planned.get(total.name, 0))
        total.memory = {word: most.get(total.name, {}).get(word) or 0 for word in MEMORY}
    return tuple(totals.values())


def seconds_left(
    passes: Sequence[PassTotal], images: int, busy_per_second: float | None
) -> float | None:
    """Time until all is done; None before every pass has been seen at work.

    A pass that is not planned yet for an image is taken to be as long as it is for the others.

    Args:
        passes: of the recipe, all of them.
        images: that the run has, but for those set aside.
        busy_per_second: seconds that all lanes of all workers compute within one second.
    """
    if not busy_per_second or not all(one.units_done for one in passes):
        return None
    left = 0.0
    for one in passes:
        expected = one.units_planned / max(1, one.images) * max(images, one.images)
        left += (expected - one.units_done) * sum(one.seconds.values()) / one.units_done
    return max(0.0, left) / busy_per_second
