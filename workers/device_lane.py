"""The lane between reading and writing: batches through the model, one after the other.

A GPU is given a batch before the answer to the one before it is waited for. Batches that another
worker has claimed are not computed: their answers are taken from where it put them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from functools import partial

from saccade.pipeline.plan import Batch
from saccade.workers.answer import Answer
from saccade.workers.context import WorkerContext
from saccade.workers.device import Predictor, set_threads
from saccade.workers.flight import Flight, ReadBatch
from saccade.workers.lanes import ByteBudget, PassingQueue
from saccade.workers.pending import OneBehind, Pending
from saccade.workers.reading import WindowPixels
from saccade.workers.shared_answers import AnsweredBatch
from saccade.workers.sharing import Owner
from saccade.workers.telling import UnitLog

Reads = tuple[Future[WindowPixels], ...]
Windows = tuple[WindowPixels, ...]


class DeviceLane:
    """One device's work, done by one thread.

    Args:
        context: models and images.
        told: hears what units meet.
        budget: of what was read; every batch gives back what it held.
        read: begins to read windows that nobody has read.
        placed: answers of a flight's batch were placed.
        through: a flight's last batch is through.
        give: an answer is another worker's.
    """

    def __init__(
        self,
        context: WorkerContext,
        told: UnitLog,
        budget: ByteBudget,
        read: Callable[[Flight, Batch], Reads],
        placed: Callable[[Flight], None],
        through: Callable[[Flight], None],
        give: Callable[[Flight, int, AnsweredBatch], None],
    ) -> None:
        self._context = context
        self._told = told
        self._budget = budget
        self._read = read
        self._placed = placed
        self._through = through
        self._give = give
        self._on_device = OneBehind()

    def run(self, waiting: PassingQueue[ReadBatch]) -> None:
        """One batch after the other, as they came but glances first, until None."""
        # Some kernels look at the calling thread's own setting.
        set_threads(self._context.spec.torch_threads)
        while (ready := self._next(waiting)) is not None:
            try:
                if ready.batch:
                    with self._told.working_for(ready.flight.task):
                        self._compute(ready)
                else:
                    self._on_device.finish()
                    self._through(ready.flight)
            except BaseException as error:
                ready.flight.failure.report(error)
                if ready.batch:
                    self._budget.release(ready.nbytes)

    def _next(self, waiting: PassingQueue[ReadBatch]) -> ReadBatch | None:
        """What comes next; while nothing does, what is on the device is waited for."""
        # readers that wait for its share of the budget would otherwise never give it a successor
        if waiting.empty():
            self._on_device.finish()
        ready = waiting.get()
        if ready is None:
            self._on_device.finish()
        return ready

    def _compute(self, ready: ReadBatch) -> None:
        """Give the device a batch, then finish the one before it; on a CPU, the batch itself."""
        windows = self._windows(ready)
        if windows is None:
            self._budget.release(ready.nbytes)
            return
        flight = ready.flight
        job = flight.gathering()
        pairs = list(zip(ready.batch, windows, strict=True))
        wanted = [i for i, (window, read) in enumerate(pairs) if job.wants(window, read)]
        if not wanted:
            self._take(ready, AnsweredBatch(windows, {}))
            self._budget.release(ready.nbytes)
            return
        since = time.perf_counter()
        begun = self._predictor(flight).launch([windows[i] for i in wanted])
        flight.spend("device", since)
        self._on_device.follow(partial(self._finish_for, ready, windows, wanted, begun))
        if begun.settled:
            self._on_device.finish()

    def _windows(self, ready: ReadBatch) -> Windows | None:
        """The pixels of a batch that is to be computed here; None where nothing is left to do."""
        flight = ready.flight
        windows = _read_by(ready.reads)
        if flight.failure or not self._falls_to_us(ready):
            return None
        if not ready.reads:  # beyond the budget: the batches behind it hold that, and wait for it
            windows = _read_by(self._read(flight, ready.batch))
        return None if flight.failure else windows

    def _falls_to_us(self, ready: ReadBatch) -> bool:
        """Whether nobody else computes a batch; what somebody else said of it is taken."""
        flight = ready.flight
        assert flight.side is not None
        if flight.task.helps:
            self._predictor(flight)  # a model is loaded before anybody waits for its answer
        if flight.side.claim(ready.index):
            return True
        if not isinstance(flight.side, Owner):
            return False
        self._on_device.finish()  # answers are placed in order
        gone, patience = flight.failure.__bool__, flight.patience_seconds
        answered = flight.side.answer(ready.index, patience, gone)
        if answered is not None:
            self._take(ready, answered)
            flight.helped += 1
        return answered is None

    def _predictor(self, flight: Flight) -> Predictor:
        assert flight.image is not None
        return self._context.predictor(flight.task.entry, flight.image, flight.task.unit)

    def _finish_for(
        self, ready: ReadBatch, windows: Windows, wanted: list[int], begun: Pending[Answer]
    ) -> None:
        with self._told.working_for(ready.flight.task):
            self._finish(ready, windows, wanted, begun)

    def _finish(
        self, ready: ReadBatch, windows: Windows, wanted: list[int], begun: Pending[Answer]
    ) -> None:
        since = time.perf_counter()
        try:
            answer = begun.result()
            ready.flight.spend("device", since)
            ready.flight.computed += 1
            said = {i: answer.of(place) for place, i in enumerate(wanted)}
            self._take(ready, AnsweredBatch(windows, said, answer.splits))
        except BaseException as error:
            ready.flight.failure.report(error)
        finally:
            self._budget.release(ready.nbytes)

    def _take(self, ready: ReadBatch, answered: AnsweredBatch) -> None:
        """Place a batch's answers in its unit; where this worker only helps, give them away."""
        flight = ready.flight
        if flight.task.helps:
            self._give(flight, ready.index, answered)
            return
        job = flight.gathering()
        job.splits += answered.splits
        for i, (window, read) in enumerate(zip(ready.batch, answered.windows, strict=True)):
            job.place(window, read, answered.said.get(i))
        self._placed(flight)


def _read_by(reads: Iterable[Future[WindowPixels]]) -> Windows:
    """Windows once every read has ended, one way or another."""
    # All of them, also when one fails: what is being read still counts against the budget; and
    # concurrent.futures.wait() never returns when a pool that is shut down cancels one of them.
    reads = tuple(reads)
    for read in reads:
        with suppress(CancelledError):
            read.exception()
    return tuple(read.result() for read in reads)
