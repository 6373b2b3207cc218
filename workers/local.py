"""Workers inside this process: the same interface as the actors, without Ray."""

from __future__ import annotations

import queue
from concurrent.futures import Future
from typing import Any

from saccade.workers.engine import Engine
from saccade.workers.events import Event, WorkerJoined
from saccade.workers.outcome import Outcome
from saccade.workers.tasks import Task, WorkerSpec

SLOTS = 3
"""Units in flight per worker: one read, one computed, one written."""


class LocalWorkers:
    """Engines of this process, each with its own lanes."""

    def __init__(self, spec: WorkerSpec, count: int = 1) -> None:
        self._spec = spec
        self._count = count
        self._engines: dict[str, Engine] = {}
        self._ended: queue.Queue[tuple[str, Task, Outcome]] = queue.Queue()

    def start(self) -> list[Event]:
        """Start the engines."""
        self._engines = {f"local-{i}": Engine(self._spec) for i in range(self._count)}
        return [WorkerJoined(name, SLOTS) for name in self._engines]

    def assign(self, worker: str, task: Task) -> None:
        """Give a unit to an engine; returns at once."""
        answer = self._engines[worker].submit(task)
        answer.add_done_callback(lambda done: self._ended.put((worker, task, outcome_of(done))))

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
        """A thread can't be ended from outside: it keeps its slots until it answers."""
        del worker
        return []

    def close(self) -> None:
        """End the engines."""
        for engine in self._engines.values():
            engine.close()
        self._engines.clear()


def outcome_of(answer: Future[dict[str, Any]]) -> Outcome:
    """A finished future as an outcome."""
    try:
        return Outcome(receipt=answer.result())
    except BaseException as error:
        return Outcome.of_error(error)
