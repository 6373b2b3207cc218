"""Workers inside this process: the same interface as the actors, without Ray."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from dataclasses import replace
from socket import gethostname
from typing import Any

from saccade.workers.crash_log import log_error
from saccade.workers.device import gpu_count
from saccade.workers.engine import Engine
from saccade.workers.events import Event, WorkerJoined
from saccade.workers.folder import RunFolder
from saccade.workers.outcome import Outcome
from saccade.workers.placement import device_of
from saccade.workers.tasks import Task, WorkerSpec
from saccade.workers.unit_log import WorkerLog

SLOTS = 3
"""Sweeps in flight per worker: one read, one computed, one written."""
GLANCES = 3
"""Glances besides: they are queued with the sweeps, and are to be there when the device is."""
CLOSE_SECONDS = 5.0
"""How long an engine is waited for when it is closed in the midst of a unit."""


def joined(worker: str, host: str) -> WorkerJoined:
    """A worker is ready, with the room that an engine has."""
    return WorkerJoined(worker, SLOTS, host=host, glances=GLANCES)


class LocalWorkers:
    """Engines of this process, each with its own lanes."""

    def __init__(self, spec: WorkerSpec, count: int = 1) -> None:
        self._spec = spec
        self._count = count
        self._engines: dict[str, Engine] = {}
        self._ended: queue.Queue[tuple[str, Task, Outcome]] = queue.Queue()

    @property
    def replaceable(self) -> bool:
        """A thread can't be ended from outside."""
        return False

    def start(self) -> list[Event]:
        """Start the engines."""
        gpus = 0 if self._spec.device == "cpu" else gpu_count()
        for i in range(self._count):
            device = device_of(self._spec.device, i, gpus)
            name = f"local-{i}"
            log = WorkerLog(RunFolder(self._spec.folder).logs, name)
            self._engines[name] = Engine(replace(self._spec, device=device), log)
        return [joined(name, gethostname()) for name in self._engines]

    def assign(self, worker: str, task: Task) -> None:
        """Give a unit to an engine; returns at once."""

        def ended(answer: Future[dict[str, Any]]) -> None:
            outcome = outcome_of(answer)
            log_error(RunFolder(self._spec.folder).logs, task.unit.id, outcome.details)
            self._ended.put((worker, task, outcome))

        self._engines[worker].submit(task).add_done_callback(ended)

    def stop_helping(self, worker: str, unit: str) -> None:
        """Tell an engine; returns at once."""
        self._engines[worker].stop_helping(unit)

    def poll(self, timeout_seconds: float) -> list[Event]:
        """What ended since the last call."""
        try:
            ended = [self._ended.get(timeout=timeout_seconds)]
        except queue.Empty:
            return []
        while not self._ended.empty():
            ended.append(self._ended.get_nowait())
        return [outcome.event(worker, task) for worker, task, outcome in ended]

    def cancel(self, worker: str) -> list[Event]:
        """Nothing: the worker keeps its slots until it answers."""
        del worker
        return []

    def close(self) -> None:
        """End the engines; one that is busy for too long ends with this process."""
        closing = [
            threading.Thread(target=engine.close, name=f"close {name}", daemon=True)
            for name, engine in self._engines.items()
        ]
        self._engines.clear()
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join(CLOSE_SECONDS)


def outcome_of(answer: Future[dict[str, Any]]) -> Outcome:
    """A finished future as an outcome."""
    try:
        return Outcome(receipt=answer.result())
    except BaseException as error:
        return Outcome.of_error(error)
