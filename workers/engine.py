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
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from saccade.pipeline.plan import Batch, Unit, Window
from saccade.workers.allocator import FreedMemory
from saccade.workers.context import WorkerContext
from saccade.workers.device import peak_memory_nbytes, set_threads
from saccade.workers.device_lane import DeviceLane
from saccade.workers.flight import Flight, ReadBatch, Receipt
from saccade.workers.lanes import ByteBudget, LaneClosed, PassingQueue
from saccade.workers.reading import WindowPixels
from saccade.workers.shared_answers import AnsweredBatch
from saccade.workers.sharing import Helper, HelpOver, Owner, Side
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
        self._read_budget = read_budget(spec)
        self._write_budget = ByteBudget(spec.write_nbytes)
        self._freed = FreedMemory()
        # an image is opened while those before it are still read
        self._openers = ThreadPoolExecutor(1, "open")
        self._readers = ThreadPoolExecutor(spec.read_threads, "read")
        self._writers = ThreadPoolExecutor(spec.write_threads, "write")
        # Models are loaded, and measured, in this lane, too.
        self._steps = ThreadPoolExecutor(1, "step", set_threads, (spec.torch_threads,))
        computing = DeviceLane(
            self.context,
            self._told,
            self._read_budget,
            self._reads,
            self._pass_on,
            self._hand_over,
            self._give,
        )
        self._lanes = [
            threading.Thread(target=self._feed, args=(flights,), name="feed", daemon=True)
            for flights in (self._glances, self._to_read)
        ]
        self._lanes += [
            threading.Thread(
                target=computing.run, args=(self._to_compute,), name="device", daemon=True
            ),
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

    def stop_helping(self, unit: str) -> None:
        """Leave off helping with a unit, after the batch that is on the device; no error."""
        for flight in tuple(self._flights):
            if flight.task.helps and flight.task.unit.id == unit:
                flight.failure.report(HelpOver("it was told to stop"))

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
        """Hand windows to the readers in order, as far ahead as the budget allows."""
        while (flight := flights.get()) is not None:
            try:
                assert flight.opened is not None
                side = flight.opened.result()
                for index in side.order():
                    if flight.failure:
                        break
                    self._to_compute.put(self._read_ahead(flight, side, index), flight.passes)
            except BaseException as error:
                flight.failure.report(error)
            self._to_compute.put(ReadBatch(flight), flight.passes)

    def _open(self, flight: Flight) -> Side:
        task = flight.task
        with self._told.working_for(task):
            self._told.begun(task)
            flight.image = self.context.image(task.entry)
            shared, batches = self.context.shared(flight.image, task.unit), len(task.unit.batches)
        flight.side = (Helper if task.helps else Owner)(shared, batches)
        return flight.side

    def _read_ahead(self, flight: Flight, side: Side, index: int) -> ReadBatch:
        assert flight.image is not None
        unit = flight.task.unit
        batch = unit.batches[index]
        read = () if side.is_elsewhere(index) else batch
        nbytes = sum(flight.image.window_nbytes(unit, window) for window in read)
        self._read_budget.acquire(nbytes)
        return ReadBatch(flight, batch, index, self._reads(flight, read), nbytes)

    def _reads(self, flight: Flight, windows: Batch) -> tuple[Future[WindowPixels], ...]:
        return tuple(self._readers.submit(self._read, flight, window) for window in windows)

    def _read(self, flight: Flight, window: Window) -> WindowPixels:
        since = time.perf_counter()
        image = flight.image
        assert image is not None
        try:
            with self._told.working_for(flight.task):
                return image.read(flight.task.unit, window)
        finally:
            flight.spend("read", since)

    # ------------------------------------------------------------------- behind the device lane

    def _give(self, flight: Flight, index: int, answered: AnsweredBatch) -> None:
        """Store an answer for the unit's owner, beside what is computed next."""
        self._write_budget.acquire(answered.nbytes)
        self._writers.submit(self._give_now, flight, index, answered)

    def _give_now(self, flight: Flight, index: int, answered: AnsweredBatch) -> None:
        try:
            if isinstance(flight.side, Helper):
                flight.side.put(index, answered)
        except BaseException as error:
            flight.failure.report(error)
        finally:
            self._write_budget.release(answered.nbytes)

    def _pass_on(self, flight: Flight) -> None:
        """Give what became ready to the write lane, as soon as that has room."""
        for strip in flight.gathering().ready():
            self._write_budget.acquire(strip.nbytes)
            self._to_write(flight, strip)

    def _hand_over(self, flight: Flight) -> None:
        """Every window is placed, or something went wrong: the write lane ends the unit."""
        try:
            if not (flight.failure or flight.task.helps):
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
                receipt = help_receipt(flight) if flight.task.helps else self._put(flight)
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
        receipt["helped"] = flight.helped
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
        if isinstance(flight.side, Owner) and receipt is not None:
            flight.side.clear()
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


def help_receipt(flight: Flight) -> Receipt:
    """What the log keeps of help; the journal keeps nothing."""
    return {"unit": flight.task.unit.id, "batches": flight.computed}
