"""What a run cost, in quantities that compare: tiles, pixels, whole-image passes, seconds, memory.

A share of tiles hides halos and the glance. So pixels through the models, halos included, are also
told in *whole-image passes*: how often they would cover the image at the last pass's resolution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from saccade.jobs.monitoring.tally import ImageTally
from saccade.pipeline.image_plan import ImagePlan


@dataclass(frozen=True, slots=True)
class PassCost:
    """One pass over all images that are asked about."""

    name: str
    """Of the pass."""
    tiles: int
    """That it has."""
    visited: int
    """Of them, those that it was told to visit."""
    pixels: int
    """Through its model, halos included."""
    whole_image_passes: float
    """The same, over the pixels that the images have at the last pass's resolution."""
    source_pixels: int
    """Of the images' own levels under the windows: what had to be decoded at least."""
    seconds: Mapping[str, float]
    """Busy seconds by lane, of all workers."""
    measured_nbytes: int
    """The most that computing added to a worker's memory; 0 where it was not measured."""


def pass_costs(
    tallies: Mapping[str, ImageTally], plans: Sequence[ImagePlan]
) -> tuple[PassCost, ...]:
    """What each pass cost.

    Args:
        tallies: what the journal says, by image.
        plans: of the images asked about, all of one recipe; those without a tally count as nothing.
    """
    known = [(tallies[plan.name], plan) for plan in plans if plan.name in tallies]
    if not known:
        return ()
    return tuple(_pass_cost(known, index) for index in range(len(known[0][1].passes)))


def _pass_cost(known: Sequence[tuple[ImageTally, ImagePlan]], index: int) -> PassCost:
    name = known[0][1].passes[index].name
    whole = sum(plan.last.plane.shape[0] * plan.last.plane.shape[1] for _, plan in known)
    pixels = [tally.pixels.get(name, 0) for tally, _ in known]
    factors = [plan.passes[index].plane.factor ** 2 for _, plan in known]
    return PassCost(
        name=name,
        tiles=sum(len(plan.passes[index].tiles) for _, plan in known),
        visited=sum(tally.tiles.get(name, {}).get("selected", 0) for tally, _ in known),
        pixels=sum(pixels),
        whole_image_passes=sum(pixels) / whole,
        source_pixels=round(sum(p * f for p, f in zip(pixels, factors, strict=True))),
        seconds=_lanes([tally.seconds.get(name, {}) for tally, _ in known]),
        measured_nbytes=max(_measured(tally, name) for tally, _ in known),
    )


def _measured(tally: ImageTally, name: str) -> int:
    return tally.memory.get(name, {}).get("measured_nbytes") or 0


def _lanes(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = sorted({lane for part in parts for lane in part})
    return {lane: sum(part.get(lane, 0.0) for part in parts) for lane in names}
