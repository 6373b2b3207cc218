"""What devices did between images, from a run's journal. Pure: records in, seconds out.

A gap lies between two of a worker's device spans that belong to different images. What the device
waited for is told by what became, meanwhile, of the unit that ended the gap: its windows were read,
or its worker had it and had not begun to read, or its image was still at an earlier stage, or the
driver had not given it away. A gap counts as *idle cores* only as far as the processors had nothing
to do: where a processor is the device, it does not wait while it decodes, chooses or writes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

Receipt = dict[str, Any]
Span = tuple[float, float]

LABELS = ("read", "open", "prepare", "select", "finalise", "steps' line", "other pass", "write")
"""What a device may have waited for, the nearest cause first; *driver* is what is left."""
CAUSES = (*LABELS, "driver")


@dataclass(frozen=True, slots=True)
class Gap:
    """A device without work between two images."""

    start: float
    """When the unit before it ended."""
    stop: float
    """When the unit after it began."""
    following: Receipt
    """Of the unit after it."""

    @property
    def seconds(self) -> float:
        """How long."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Waits:
    """What one worker's device did between its first unit and its last."""

    worker: str
    """Its name."""
    seconds: float
    """From the first span's start to the last one's end."""
    busy: float
    """Seconds of work in the device lane."""
    borders: int
    """Pairs of neighbouring units of different images."""
    gaps: tuple[Gap, ...]
    """Between those, where there were any."""

    @property
    def at_borders(self) -> float:
        """Seconds of all gaps."""
        return sum(gap.seconds for gap in self.gaps)

    @property
    def longest(self) -> float:
        """Seconds of the longest."""
        return max((gap.seconds for gap in self.gaps), default=0.0)


def waits(worker: str, receipts: Iterable[Receipt]) -> Waits:
    """How long a worker's device waited between images."""
    units = sorted(receipts, key=lambda r: (*r["spans"]["device"], r["image"]))
    reached, gaps, borders = units[0]["spans"]["device"][1], [], 0
    for before, after in pairwise(units):
        start, stop = after["spans"]["device"]
        if before["image"] != after["image"]:
            borders += 1
            gaps += [Gap(reached, start, after)] if start > reached else []
        reached = max(reached, stop)
    seconds = reached - units[0]["spans"]["device"][0]
    busy = sum(unit["seconds"]["device"] for unit in units)
    return Waits(worker, seconds, busy, borders, tuple(gaps))


class History:
    """What became of every image of a run, and when.

    Args:
        records: of its journal.
        sleeping: whether its device computes without a processor.
    """

    def __init__(self, records: Iterable[Mapping[str, Any]], *, sleeping: bool) -> None:
        self.receipts: list[Receipt] = []
        self._given: dict[tuple[str, str], float] = {}
        self._of: dict[str, list[Receipt]] = defaultdict(list)
        for record in records:
            if record["kind"] == "started":
                self._given.setdefault((record["unit"], record["worker"]), record["at"])
            elif record["kind"] == "receipt":
                self.receipts.append(dict(record))
                self._of[record["image"]].append(self.receipts[-1])
        self._work = [one for r in self.receipts for one in lanes_at_work(r, sleeping=sleeping)]

    def causes(self, gap: Gap) -> dict[str, float]:
        """Seconds of a gap by what was waited for."""
        known = [(label, spans) for label in LABELS if (spans := self._spans(gap, label))]
        edges = {at for _, spans in known for span in spans for at in span}
        cuts = sorted({gap.start, gap.stop, *(e for e in edges if gap.start < e < gap.stop)})
        told: dict[str, float] = defaultdict(float)
        for start, stop in pairwise(cuts):
            label = next((label for label, spans in known if covered(start, stop, spans)), "driver")
            told[label] += stop - start
        return told

    def _spans(self, gap: Gap, label: str) -> list[Span]:
        unit = gap.following
        if label in ("read", "open"):
            begun = unit["spans"].get("read", unit["spans"]["device"])[0]
            given = self._given.get((unit["unit"], unit["worker"]), begun)
            return [(begun, gap.stop)] if label == "read" else [(given, begun)]
        others = [r for r in self._of[unit["image"]] if r["unit"] != unit["unit"]]
        return [span for other in others for span in self._of_other(other, label)]

    def _of_other(self, receipt: Receipt, label: str) -> list[Span]:
        spans = receipt.get("spans", {})
        if "step" in receipt:
            begun, ended = spans["step"]
            given = self._given.get((receipt["unit"], receipt["worker"]), begun)
            return {"steps' line": [(given, begun)], receipt["step"]: [(begun, ended)]}.get(
                label, []
            )
        if label == "other pass":
            return [spans[lane] for lane in ("read", "device") if lane in spans]
        return [spans["write"]] if label == "write" and "write" in spans else []

    def idle_seconds(self, gap: Gap, cores: int) -> float:
        """Of a gap, the time in which a processor had nothing to do."""
        work = [w for w in self._work if w[0] < gap.stop and w[1] > gap.start]
        edges = {at for start, stop, _ in work for at in (start, stop)}
        cuts = sorted({gap.start, gap.stop, *(e for e in edges if gap.start < e < gap.stop)})
        idle = 0.0
        for start, stop in pairwise(cuts):
            at_work = sum(w for begun, ended, w in work if begun <= start and stop <= ended)
            idle += (stop - start) * min(1.0, max(0.0, cores - at_work))
        return idle


def covered(start: float, stop: float, spans: Sequence[Span]) -> bool:
    """Whether one of the spans holds all of a stretch."""
    return any(begun <= start and stop <= ended for begun, ended in spans)


def lanes_at_work(receipt: Receipt, *, sleeping: bool) -> list[tuple[float, float, float]]:
    """From when to when a unit's lanes were at work, and how many processors each took then."""
    at_work = []
    for lane, (start, stop) in receipt.get("spans", {}).items():
        if stop > start and not (sleeping and lane == "device"):
            at_work.append((start, stop, receipt["seconds"].get(lane, 0.0) / (stop - start)))
    return at_work


def begun(receipts: list[Receipt], last: str) -> list[Receipt]:
    """What a worker computed from its first unit of the last pass on."""
    firsts = [r["spans"]["device"][0] for r in receipts if r.get("pass") == last]
    return [r for r in receipts if firsts and r["spans"]["device"][0] >= min(firsts)]


def by_worker(receipts: Iterable[Receipt], last: str | None = None) -> list[Waits]:
    """Every worker that computed anything, by name; from the first unit of a pass on, if named."""
    held: dict[str, list[Receipt]] = defaultdict(list)
    for receipt in receipts:
        if "device" in receipt.get("spans", {}):
            held[receipt["worker"]].append(receipt)
    counted = {w: begun(held[w], last) if last else held[w] for w in sorted(held)}
    return [waits(worker, units) for worker, units in counted.items() if units]
