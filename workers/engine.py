"""Read lane, device lane, write lane: a stream of units through one worker.

Threads read windows ahead of the device, one thread computes, threads write behind it. Glances pass
other sweeps by, batch for batch: they take little, and what follows them is to be there in time.
Lanes are bounded in bytes, so memory does not grow with the image. A unit's first failure is kept
as the cause and its other lanes leave quietly; other units are not touched by it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

from saccade.pipeline.plan import Batch, Unit, Window
from saccade.workers.allocator import FreedMemory
from saccade.workers.answer import Answer, Said
from saccade.workers.context import WorkerContext
from saccade.workers.device import peak_memory_nbytes, set_threads
from saccade.workers.flight import Flight, ReadBatch, Receipt
from saccade.workers.lanes import ByteBudget, LaneClosed, PassingQueue
from saccade.workers.pending import OneBehind, Pending
from saccade.workers.reading import WindowPixels
from saccade.workers.strip import Strip
from saccade.workers.sweep import receipt_of
from saccade.workers.tasks import Task, WorkerSpec
from saccade.workers.telling import UnitLog
from saccade.workers.unit_log import WorkerLog

ENOUGH_AHEAD_NBYTES = 32 * 2**20
"""Pixels read ahead of processors, which need long for them: more would lie there for nothing."""


class Engine:
    """Runs units on one device; give them with ``submit`` in the order they should be read.

    Args:
        spec: of the worker.
        log: where it tells what it meets; None where nobody wants to know. Closed with the engine.
    """

    def __init__(self, spec: WorkerSpec, log: WorkerLog | None = None) -> None:
        self.context = WorkerContext(spec)
        self._told = UnitLog(log)
        self._flights: set[Flight] = set()
        self._closed = False
        self._lock = threading.Lock()
        self._glances: queue.Queue[Flight | None] = queue.Queue()
        self._to_read: queue.Queue[Flight | None] = queue.Queue()
        self._to_compute: PassingQueue[ReadBatch] = PassingQueue()
        self._on_device = OneBehind()
        self._read_budget = read_budget(spec)
        self._write_budget = ByteBudget(spec.write_nbytes)
        self._freed = FreedMemory()
        # an image is opened while those before it are still read
        self._openers = ThreadPoolExecutor(1, "open")
        self._readers = ThreadPoolExecutor(spec.read_threads, "read")
        self._writers = ThreadPoolExecutor(spec.write_threads, "write")
        # Models are loaded, and measured, in this lane, too.
        self._steps = ThreadPoolExecutor(1, "step", set_threads, (spec.torch_threads,))
        self._lanes = [
            threading.Thread(target=self._feed, args=(flights,), name="feed", daemon=True)
            for flights in (self._glances, self._to_read)
        ]
        self._lanes += [
            threading.Thread(target=self._compute, name="device", daemon=True),
        ]
        for lane in self._lanes:
            lane.start()

    def submit(self, task: Task) -> Future[Receipt]:
        """Start a unit; its receipt, or its failure, comes through the future.

        Raises:
            LaneClosed: the engine was closed.
        """
        flight = Flight(task, Future())
        flight.answer.set_running_or_notify_cancel()
        with self._lock:
            if self._closed:
                raise LaneClosed("the worker was closed; no unit can be given to it")
            self._flights.add(flight)
            if task.unit.kind == "sweep":
                flight.opened = self._openers.submit(self._open, flight)
                (self._glances if flight.passes else self._to_read).put(flight)
            else:
                self._steps.submit(self._step, flight)
        return flight.answer

    def close(self) -> None:
        """Leave quietly: what is in flight fails with ``LaneClosed``, and nothing hangs."""
        with self._lock:
            self._closed = True
        for flight in tuple(self._flights):
            flight.failure.report(LaneClosed("the worker was closed before this unit was done"))
        self._read_budget.close()
        self._write_budget.close()
        self._glances.put(None)
        self._to_read.put(None)
        self._to_compute.put(None)
        for pool in (self._openers, self._readers, self._writers, self._steps):
            pool.shutdown(wait=True, cancel_futures=True)
        for lane in self._lanes:
            lane.join()
        for flight in tuple(self._flights):
            self._end(flight, None)
        self.context.close()
        self._told.close()

    # ------------------------------------------------------------------------------- read lane

    def _feed(self, flights: queue.Queue[Flight | None]) -> None:
        """Hand windows to the readers in plan order, as far ahead as the budget allows."""
        while (flight := flights.get()) is not None:
            try:
                assert flight.opened is not None
                flight.opened.result()
                for batch in flight.task.unit.batches:
                    if flight.failure:
                        break
                    self._to_compute.put(self._read_ahead(flight, batch), flight.passes)
            except BaseException as error:
                flight.failure.report(error)
            self._to_compute.put(ReadBatch(flight), flight.passes)

    def _open(self, flight: Flight) -> None:
        with self._told.working_for(flight.task):
            self._told.begun(flight.task)
            flight.image = self.context.image(flight.task.entry)

    def _read_ahead(self, flight: Flight, batch: Batch) -> ReadBatch:
        assert flight.image is not None
        nbytes = sum(flight.image.window_nbytes(flight.task.unit, window) for window in batch)
        self._read_budget.acquire(nbytes)
        reads = tuple(self._readers.submit(self._read, flight, window) for window in batch)
        return ReadBatch(flight, batch, reads, nbytes)

    def _read(self, flight: Flight, window: Window) -> WindowPixels:
        since = time.perf_counter()
        image = flight.image
        assert image is not None
        try:
            with self._told.working_for(flight.task):
                return image.read(flight.task.unit, window)
        finally:
            flight.spend("read", since)

    # ----------------------------------------------------------------------------- device lane

    def _compute(self) -> None:
        """One batch after the other, as they were handed to the readers, glances first."""
        # Some kernels look at the calling thread's own setting.
        set_threads(self.context.spec.torch_threads)
        while (ready := self._next()) is not None:
            try:
                if ready.batch:
                    with self._told.working_for(ready.flight.task):
                        self._compute_batch(ready)
                else:
                    self._on_device.finish()
                    self._hand_over(ready.flight)
            except BaseException as error:
                ready.flight.failure.report(error)
                if ready.batch:
                    self._read_budget.release(ready.nbytes)

    def _next(self) -> ReadBatch | None:
        """What comes next; while nothing does, what is on the device is waited for."""
        # readers that wait for its share of the budget would otherwise never give it a successor
        if self._to_compute.empty():
            self._on_device.finish()
        ready = self._to_compute.get()
        if ready is None:
            self._on_device.finish()
        return ready

    def _compute_batch(self, ready: ReadBatch) -> None:
        """Give the device a batch, then finish the one before it; on a CPU, the batch itself."""
        flight = ready.flight
        # All of them, also when one fails: what is being read still counts against the budget.
        _wait_for(ready.reads)
        windows = [read.result() for read in ready.reads]
        if flight.failure:
            self._read_budget.release(ready.nbytes)
            return
        assert flight.image is not None
        job = flight.gathering()
        pairs = list(zip(ready.batch, windows, strict=True))
        wanted = [i for i, (window, read) in enumerate(pairs) if job.wants(window, read)]
        if not wanted:
            self._place(ready, windows, {})
            self._read_budget.release(ready.nbytes)
            return
        since = time.perf_counter()
        predictor = self.context.predictor(flight.task.entry, flight.image, flight.task.unit)
        begun = predictor.launch([windows[i] for i in wanted])
        flight.spend("device", since)
        self._on_device.follow(partial(self._finish_for, ready, windows, wanted, begun))
        if begun.settled:
            self._on_device.finish()

    def _finish_for(self, ready: ReadBatch, *rest: Any) -> None:
        with self._told.working_for(ready.flight.task):
            self._finish_batch(ready, *rest)

    def _finish_batch(
        self,
        ready: ReadBatch,
        windows: list[WindowPixels],
        wanted: list[int],
        begun: Pending[Answer],
    ) -> None:
        since = time.perf_counter()
        try:
            answer = begun.result()
            ready.flight.spend("device", since)
            said = {i: answer.of(place) for place, i in enumerate(wanted)}
            ready.flight.gathering().splits += answer.splits
            self._place(ready, windows, said)
        except BaseException as error:
            ready.flight.failure.report(error)
        finally:
            self._read_budget.release(ready.nbytes)

    def _place(
        self, ready: ReadBatch, windows: list[WindowPixels], said: Mapping[int, Said]
    ) -> None:
        """Answers by window of the batch; those without data have none."""
        job = ready.flight.gathering()
        for i, (window, read) in enumerate(zip(ready.batch, windows, strict=True)):
            job.place(window, read, said.get(i))
        self._pass_on(ready.flight)

    def _pass_on(self, flight: Flight) -> None:
        """Give what became ready to the write lane, as soon as that has room."""
        for strip in flight.gathering().ready():
            self._write_budget.acquire(strip.nbytes)
            self._to_write(flight, strip)

    def _hand_over(self, flight: Flight) -> None:
        """Every window is placed, or something went wrong: the write lane ends the unit."""
        try:
            if not flight.failure:
                self._pass_on(flight)
        except BaseException as error:
            flight.failure.report(error)
        self._to_write(flight, None)

    # ------------------------------------------------------------------------------ write lane

    def _to_write(self, flight: Flight, strip: Strip | None) -> None:
        """One thread at a time writes a unit: its strips go from top to bottom."""
        with flight.lock:
            flight.to_write.append(strip)
            begins, flight.being_written = not flight.being_written, True
        if begins:
            self._writers.submit(self._write, flight)

    def _write(self, flight: Flight) -> None:
        """Write what there is of a unit, and what comes meanwhile."""
        while True:
            with flight.lock:
                if not flight.to_write:
                    flight.being_written = False
                    return
                strip = flight.to_write.popleft()
            if strip is None:
                self._complete(flight)
            else:
                self._store(flight, strip)

    def _store(self, flight: Flight, strip: Strip) -> None:
        since, nbytes = time.perf_counter(), strip.nbytes
        try:
            if not flight.failure:
                assert flight.image is not None
                with self._told.working_for(flight.task):
                    flight.gathering().store(strip, flight.image.store)
        except BaseException as error:
            flight.failure.report(error)
        finally:
            flight.spend("write", since)
            self._freed.add(nbytes)
            self._write_budget.release(nbytes)

    def _complete(self, flight: Flight) -> None:
        receipt: Receipt | None = None
        try:
            if not flight.failure:
                receipt = self._put(flight)
        except BaseException as error:
            flight.failure.report(error)
        if flight.job is not None:
            self._freed.add(flight.job.nbytes_read)
        self._end(flight, receipt)

    def _put(self, flight: Flight) -> Receipt:
        since, job = time.perf_counter(), flight.gathering()
        assert flight.image is not None
        with self._told.working_for(flight.task):
            written = job.put()
        flight.spend("write", since)
        receipt = receipt_of(job, flight.task.attempt, written, flight.seconds)
        receipt["memory"] = flight.image.memory_said(job.layout, self.context.spec.device)
        return receipt

    def _queued_nbytes(self) -> dict[str, int]:
        """Bytes that wait behind the readers and behind the device, now."""
        return {"read": self._read_budget.held_nbytes, "write": self._write_budget.held_nbytes}

    # ----------------------------------------------------------------------------------- other

    def _step(self, flight: Flight) -> None:
        """Prepare, select, finalise."""
        since = time.perf_counter()
        receipt: Receipt | None = None
        try:
            with self._told.working_for(flight.task):
                self._told.begun(flight.task)
                details = self.context.step(flight.task)
            flight.spend("step", since)
            receipt = step_receipt(flight.task.unit, flight.task.attempt, details, flight.seconds)
        except BaseException as error:
            flight.failure.report(error)
        self._end(flight, receipt)

    def _end(self, flight: Flight, receipt: Receipt | None) -> None:
        """Answer for a unit, once; every flight comes by here."""
        self._flights.discard(flight)
        self._drop(flight)
        if flight.image is not None:
            try:
                self.context.release(flight.image)
            except BaseException as error:
                flight.failure.report(error)
        self._told.ended(flight.task, receipt, flight.failure.error)
        if flight.failure.error is not None:
            flight.answer.set_exception(flight.failure.error)
        else:
            assert receipt is not None
            receipt["spans"] = flight.spans_said
            receipt["queued_nbytes"] = self._queued_nbytes()
            receipt["peak_memory_nbytes"] = peak_memory_nbytes(self.context.spec.device)
            flight.answer.set_result(receipt)

    def _drop(self, flight: Flight) -> None:
        """What a unit gathered, and what of it is stored but not in place."""
        job, flight.job = flight.job, None
        try:
            if job is not None:
                job.abandon()
        except BaseException as error:
            flight.failure.report(error)


def read_budget(spec: WorkerSpec) -> ByteBudget:
    """What may be read ahead: on processors a few windows, on a GPU all that the budget allows."""
    if spec.device != "cpu":
        return ByteBudget(spec.read_nbytes)
    return ByteBudget(spec.read_nbytes, ENOUGH_AHEAD_NBYTES, few=spec.read_threads + 2)


def _wait_for(reads: Iterable[Future[WindowPixels]]) -> None:
    """Until every read has ended, one way or another."""
    # concurrent.futures.wait() never returns when a pool that is shut down cancels one of them
    for read in reads:
        with suppress(CancelledError):
            read.exception()


def step_receipt(
    unit: Unit, attempt: int, details: dict[str, Any], seconds: dict[str, float]
) -> Receipt:
    """What the journal keeps of a unit that is not a sweep."""
    return {
        "unit": unit.id,
        "image": unit.image,
        "step": unit.kind,
        "attempt": attempt,
        "seconds": {"step": round(seconds["step"], 4)},
        **details,
    }
