"""What a run counts, for monitoring: every metric's name and meaning, and its value. Pure.

Values follow from the journal's records alone, so that they are the run's, whichever driver or
worker did the work: a driver that goes on after another counts on where that one ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from saccade.jobs.monitoring.pace import Recent
from saccade.jobs.monitoring.passes import MEMORY

SECONDS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""Upper bounds of the bins of a unit's time."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One thing that is counted."""

    name: str
    """As Prometheus knows it; Ray puts ``ray_`` before it."""
    kind: str
    """'counter', 'gauge' or 'histogram'."""
    labels: tuple[str, ...]
    """What its values are told apart by, besides the run."""
    help: str
    """What it means, with its unit."""


UNITS = Metric(
    "saccade_units_total", "counter", ("kind", "pass"),
    "Units done, by kind: prepare, sweep, select, finalise.",
)  # fmt: skip
TILES = Metric(
    "saccade_tiles_total", "counter", ("pass", "outcome"),
    "Tiles visited, by outcome: done, degraded (surroundings incomplete), failed (not readable).",
)  # fmt: skip
PIXELS = Metric(
    "saccade_pixels_total", "counter", ("pass",), "Pixels through models, halos included."
)
READ = Metric("saccade_read_bytes_total", "counter", ("pass",), "Bytes of pixels read, as decoded.")
WRITTEN = Metric(
    "saccade_written_bytes_total", "counter", ("pass",), "Bytes of shards written, as stored."
)
LANES = Metric(
    "saccade_lane_seconds_total", "counter", ("pass", "lane"),
    "Seconds in which a lane was busy: read, device, write; step: prepare, select, finalise.",
)  # fmt: skip
SPLITS = Metric(
    "saccade_splits_total", "counter", ("pass",),
    "Batches that were halved because a device ran out of memory.",
)  # fmt: skip
FAILURES = Metric("saccade_failures_total", "counter", (), "Attempts at a unit that failed.")
UNIT_SECONDS = Metric(
    "saccade_unit_seconds", "histogram", ("kind", "pass"),
    "Seconds from giving a unit to a worker until its receipt was durable.",
)  # fmt: skip
IMAGES = Metric(
    "saccade_images", "gauge", ("state",),
    "Images by state: waiting, running, complete, quarantined.",
)  # fmt: skip
BUSY = Metric(
    "saccade_device_busy_share", "gauge", (),
    "Share of the last minutes in which a worker's device computed, 0 to 1.",
)  # fmt: skip
QUEUED = Metric(
    "saccade_queue_bytes", "gauge", ("lane",),
    "Bytes that wait behind the readers (read) and behind the devices (write), all workers.",
)  # fmt: skip
WORKERS = Metric(
    "saccade_workers", "gauge", (), "Workers that ended a unit within the last minutes."
)
MEMORY_BYTES = Metric(
    "saccade_memory_bytes", "gauge", ("pass", "account"),
    "Memory of a pass per worker: allowed, reserved, projected, measured; the most of any image.",
)  # fmt: skip
LAST = Metric(
    "saccade_last_record_timestamp_seconds", "gauge", (),
    "When the journal was last written to, in seconds since 1970: a run that hangs stands still.",
)  # fmt: skip

REGISTRY = (
    UNITS, TILES, PIXELS, READ, WRITTEN, LANES, SPLITS, FAILURES, UNIT_SECONDS,
    IMAGES, BUSY, QUEUED, WORKERS, MEMORY_BYTES, LAST,
)  # fmt: skip
"""All of them, in the order in which they are told."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A value of a metric: what to add to a counter, to set a gauge to, or a histogram saw."""

    metric: Metric
    """Of which."""
    value: float
    """In the metric's unit."""
    labels: tuple[str, ...] = ()
    """One value per label of the metric."""


def samples_of(record: Mapping[str, Any]) -> Iterator[Sample]:
    """What one record adds to the counters."""
    if record["kind"] == "failure":
        yield Sample(FAILURES, 1)
    elif record["kind"] == "receipt":
        yield from _of_step(record) if "step" in record else _of_sweep(record)


def _of_step(record: Mapping[str, Any]) -> Iterator[Sample]:
    name = str(record.get("plans", ""))
    yield Sample(UNITS, 1, (record["step"], name))
    yield Sample(LANES, record["seconds"].get("step", 0.0), (name, "step"))


def _of_sweep(record: Mapping[str, Any]) -> Iterator[Sample]:
    name = record["pass"]
    yield Sample(UNITS, 1, ("sweep", name))
    yield Sample(PIXELS, record["pixels"], (name,))
    yield Sample(READ, record.get("read_nbytes", 0), (name,))
    yield Sample(WRITTEN, record.get("nbytes", 0), (name,))
    yield Sample(SPLITS, record.get("splits", 0), (name,))
    for outcome, count in record["tiles"].items():
        yield Sample(TILES, count, (name, outcome))
    for lane, seconds in record["seconds"].items():
        yield Sample(LANES, seconds, (name, lane))


@dataclass
class Gauges:
    """What goes up and down, fed record by record."""

    recent: Recent = field(default_factory=Recent)
    """The last few minutes."""
    states: dict[str, str] = field(default_factory=dict)
    """By image, of those that are running or set aside."""
    complete: set[int] = field(default_factory=set)
    """Hashes of the names of complete images, of which there may be a million."""
    memory: dict[tuple[str, str], int] = field(default_factory=dict)
    """By pass and account: the most of any image."""
    started: dict[str, float] = field(default_factory=dict)
    """By unit in flight, when it was given to a worker."""
    queued: dict[str, Mapping[str, int]] = field(default_factory=dict)
    """By worker, as it last said."""

    def add(self, record: Mapping[str, Any]) -> Iterator[Sample]:
        """Take a record of the journal in; gives how long its unit took, if it ends one."""
        self.recent.add(record)
        match record["kind"]:
            case "opened":
                self.started, self.queued = {}, {}
            case "started":
                self.started[record["unit"]] = record.get("at", 0.0)
            case "receipt":
                self._receipt(record)
                yield from self._took(record)
            case "quarantine":
                self.states[record["image"]] = "quarantined"
            case "image":
                self.states.pop(record["image"], None)
                self.complete.add(hash(record["image"]))
            case "restart":
                self.states.pop(record["image"], None)
                self.complete.discard(hash(record["image"]))

    def samples(self, images: int, at: float) -> Iterator[Sample]:
        """The values at a moment.

        Args:
            images: that the run has.
            at: seconds since 1970.
        """
        for state, count in self._counts(images).items():
            yield Sample(IMAGES, count, (state,))
        pace = self.recent.pace(at)
        yield Sample(BUSY, pace.device_busy_share or 0.0)
        yield Sample(WORKERS, len(pace.workers))
        for lane in ("read", "write"):
            told = (self.queued.get(worker, {}) for worker in pace.workers)
            yield Sample(QUEUED, sum(one.get(lane, 0) for one in told), (lane,))
        yield from (Sample(MEMORY_BYTES, n, labels) for labels, n in self.memory.items())
        yield Sample(LAST, self.recent.last_at or 0.0)

    def _counts(self, images: int) -> dict[str, int]:
        known = Counter(self.states.values())
        return {
            "waiting": max(0, images - len(self.states) - len(self.complete)),
            "running": known["running"],
            "complete": len(self.complete),
            "quarantined": known["quarantined"],
        }

    def _receipt(self, record: Mapping[str, Any]) -> None:
        self.states.setdefault(record["image"], "running")
        if "queued_nbytes" in record:
            self.queued[str(record.get("worker", ""))] = record["queued_nbytes"]
        told = record.get("memory", {})
        accounts = {record["pass"]: told} if "pass" in record else told
        for name, account in accounts.items():
            for word in MEMORY:
                key = (name, word.removesuffix("_nbytes"))
                if nbytes := account.get(word):
                    self.memory[key] = max(nbytes, self.memory.get(key, 0))

    def _took(self, record: Mapping[str, Any]) -> Iterator[Sample]:
        since = self.started.pop(record["unit"], 0.0)
        if since and "at" in record:
            kind = record.get("step", "sweep")
            name = record.get("pass", record.get("plans", ""))
            yield Sample(UNIT_SECONDS, max(0.0, record["at"] - since), (kind, name))
