"""What a run counts, told to the outside every few seconds: to a file, and to Ray's metrics.

A thread of its own follows this driver's journal, so that the driver's loop never waits for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from saccade.jobs.folders import OpenRun
from saccade.jobs.hardware import WorkerChoice
from saccade.jobs.journals.replay import Reading
from saccade.jobs.monitoring.metrics import SECONDS, Gauges, Sample, samples_of
from saccade.jobs.monitoring.metrics_text import Totals, as_text
from saccade.jobs.options import RunOptions
from saccade.jobs.starting import ray_address
from saccade.pipeline.store_shelf import LocalShelf

if TYPE_CHECKING:
    from saccade.workers.ray_metrics import RayMetrics

TELL_SECONDS = 5.0


class MetricsExport:
    """Follows a journal and tells what it counts.

    Args:
        journal: folder of the journal.
        epoch: of this driver; Ray's counters hold what it did itself.
        images: that the run has.
        run: labels that tell it from others.
        file: to keep up to date; None where there is none.
        to_ray: Ray's metrics; None where there are none.
    """

    def __init__(
        self,
        journal: Path,
        epoch: int,
        images: int,
        run: dict[str, str],
        file: Path | None = None,
        to_ray: RayMetrics | None = None,
    ) -> None:
        self._reading = Reading(journal)
        self._epoch, self._images, self._run = epoch, images, run
        self._file, self._ray = file, to_ray
        self._totals, self._gauges = Totals(), Gauges()

    def tell(self) -> None:
        """Take in what was written since the last time, and tell it.

        Raises:
            StoreError: the file can't be written.
        """
        for record in self._reading.records():
            for sample in (*samples_of(record), *self._gauges.add(record)):
                self._totals.add(sample)
                if record["epoch"] == self._epoch:
                    self._to_ray(sample)
        gauges = list(self._gauges.samples(self._images, time.time()))
        for sample in gauges:
            self._to_ray(sample)
        if self._file is not None:
            text = as_text(self._totals, gauges, self._run)
            LocalShelf(self._file.parent).put(self._file.name, text.encode())

    def _to_ray(self, sample: Sample) -> None:
        if self._ray is not None:
            self._ray.tell(sample.metric, sample.value, sample.labels)


@contextmanager
def metrics_told(opened: OpenRun, options: RunOptions) -> Iterator[None]:
    """Tell what a run counts for the length of a block, where somebody may listen.

    Raises:
        StoreError: the file of metrics can't be written.
    """
    clustered = WorkerChoice.parse(options.workers).kind == "ray" and ray_address(options)
    if options.metrics_file is None and not clustered:
        yield
        return
    journal = opened.journal
    run = {"run": opened.folder.root.name}
    if journal.folder != opened.folder.journal:
        run["run"] += f"/{journal.folder.name}"
    to_ray = _ray_metrics(run) if clustered else None
    images = opened.tally.total
    export = MetricsExport(journal.folder, journal.epoch, images, run, options.metrics_file, to_ray)
    if options.metrics_file is not None:
        export.tell()
    with _telling(export):
        yield


@contextmanager
def _telling(export: MetricsExport) -> Iterator[None]:
    """Now and then in a thread, and once at the end: monitoring never stops a run."""
    over = threading.Event()

    def follow() -> None:
        while not over.wait(TELL_SECONDS):
            _tell_if_possible(export)

    thread = threading.Thread(target=follow, name="metrics", daemon=True)
    with ExitStack() as stack:
        stack.callback(_tell_if_possible, export)
        stack.callback(thread.join)
        stack.callback(over.set)
        thread.start()
        yield


def _tell_if_possible(export: MetricsExport) -> None:
    # a full disk, a Ray that is ending: the run itself meets what matters of it
    with suppress(Exception):
        export.tell()


def _ray_metrics(run: dict[str, str]) -> RayMetrics:
    from saccade.workers.ray_metrics import RayMetrics

    return RayMetrics(run, SECONDS)
