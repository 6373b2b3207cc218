"""The order of work on one image, as numbered stages. Pure but for reading frozen plans.

0            prepare
1            sweep of the glance
2k, 2k + 1   select for pass k, sweep of pass k
2P           finalise, where P is the number of passes
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from saccade.pipeline.layout import PassLayout
from saccade.pipeline.plan import Unit, single_unit
from saccade.workers.events import Lane, UnitRef
from saccade.workers.folder import RunFolder

PREPARE, GLANCE = 0, 1
"""Numbers of the first stages."""
URGENCY = {"select": 0, "prepare": 1, "finalise": 2}
"""Steps by how soon a device has work of them: a pass, a glance, an image that is yet to come."""


@dataclass(frozen=True, slots=True)
class StageWork:
    """What one stage consists of."""

    number: int
    """Of the stage."""
    label: str
    """For people: 'prepare', 'select refine', 'refine', 'finalise'."""
    units: tuple[Unit, ...]
    """All of them, done or not."""
    last_pass: bool = False
    """Whether it is the sweep of the last pass."""

    def refs(self) -> tuple[UnitRef, ...]:
        """As the dispatcher sees them."""
        return tuple(
            UnitRef(
                unit.id,
                unit.image,
                unit.kind,
                order=order,
                family=f"sweep {unit.pass_index}" if unit.kind == "sweep" else "",
                work=_work(unit),
                parts=len(unit.batches),
                lane=self._lane(unit),
                urgency=URGENCY.get(unit.kind, 0),
            )
            for order, unit in enumerate(interleaved(self.units))
        )

    def _lane(self, unit: Unit) -> Lane:
        """The glance has room of its own while another pass is to come, whatever is in the way."""
        if unit.kind != "sweep":
            return Lane.STEP
        return Lane.GLANCE if self.number == GLANCE and not self.last_pass else Lane.SWEEP


def interleaved(units: Sequence[Unit]) -> list[Unit]:
    """Units that have nothing to compute, evenly between those that have; both in their order.

    They lie together in an image. A worker that was given several in a row would write them while
    its device waits.
    """
    computing = [unit for unit in units if unit.batches]
    writing = [unit for unit in units if not unit.batches]
    groups = (computing, writing)
    placed = [((n + 0.5) / len(group), unit) for group in groups for n, unit in enumerate(group)]
    return [unit for _, unit in sorted(placed, key=lambda one: one[0])]


def _work(unit: Unit) -> float:
    """Pixels through the model, and those of the result that it composes."""
    return 1.0 + sum(window.read.area for window in unit.windows) + unit.region.area


def last_stage(passes: int) -> int:
    """Number of the stage that completes an image."""
    return 2 * passes


def stage_work(folder: RunFolder, image: str, number: int) -> StageWork:
    """The units of a stage; all earlier stages of the image are complete."""
    if number == PREPARE:
        return StageWork(number, "prepare", (single_unit(image, "prepare", 0),))
    plan = folder.read_image_plan(image)
    if number == last_stage(len(plan.passes)):
        unit = single_unit(image, "finalise", len(plan.passes))
        return StageWork(number, "finalise", (unit,))
    layout = plan.passes[number // 2]
    return _pass_work(folder, image, number, layout, last=layout.index == plan.last.index)


def _pass_work(
    folder: RunFolder, image: str, number: int, layout: PassLayout, *, last: bool
) -> StageWork:
    if number % 2:
        units = folder.read_units(image, layout)
        return StageWork(number, layout.name, units, last_pass=last)
    unit = single_unit(image, "select", layout.index, layout)
    return StageWork(number, f"select {layout.name}", (unit,))
