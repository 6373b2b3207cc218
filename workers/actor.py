"""Workers as Ray actors: coordinates in, receipts out; pixels never travel.

An actor is one engine in a process of its own. Actors are not restarted by Ray and calls are not
retried by it: the dispatcher decides where a unit goes next, and this module replaces an actor that
died by a new one under a new name. An actor's process takes seconds to import what it needs: it is
made before it is known what it will do, and told so once that is settled. On a cluster, actors for
which there is no room wait for nodes to come; nodes that come unasked are given actors too.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from socket import gethostname
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from saccade.pipeline.errors import WorkerLost
from saccade.workers import events, ray_start
from saccade.workers.allocator import keep_large_blocks
from saccade.workers.crash_log import crash_told, log_crashes, log_error
from saccade.workers.engine import Engine
from saccade.workers.events import Event
from saccade.workers.folder import RunFolder
from saccade.workers.local import joined, outcome_of
from saccade.workers.outcome import Outcome
from saccade.workers.ray_start import first_line
from saccade.workers.room import Node, RayPlace, missing, spec_on, spec_within
from saccade.workers.tasks import Task, WorkerSpec
from saccade.workers.unit_log import WorkerLog

START_FAILURES = 3
"""Actors that may die before their first answer, one in the place of the other, until that place is
given up, and with the last place the run."""
CALLS = sum(joined("", "").room.values()) + 4
"""Calls that an actor answers at once: a unit in every slot, its beginning, its life, help, and the
end of that."""
LOOK_SECONDS = 3.0
"""How often a cluster is asked whether it carries more workers by now."""


def crash_log(spec: WorkerSpec, worker: str) -> Path:
    """Where an actor's stack goes if it crashes."""
    return RunFolder(spec.folder).logs / f"crash-{worker}.txt"


class UnitActor:
    """One engine in a process of its own."""

    def __init__(self) -> None:
        keep_large_blocks()

    def begin(self, spec: WorkerSpec, name: str, place: RayPlace) -> str:
        """Set the engine up; called once, before any ``run``. Returns the machine's name."""
        spec = spec_within(_own_node(), place, spec)
        self._crash_log = log_crashes(crash_log(spec, name))
        self._logs = RunFolder(spec.folder).logs
        self._engine = Engine(spec, WorkerLog(self._logs, name))
        return gethostname()

    def live(self) -> None:
        """Never returns: whoever waits for it learns of this actor's death at once."""
        threading.Event().wait()

    def run(self, task: Task) -> Outcome:
        """Do one unit; several calls at once share the engine's lanes."""
        outcome = outcome_of(self._engine.submit(task))
        log_error(self._logs, task.unit.id, outcome.details)
        return outcome

    def stop_helping(self, unit: str) -> None:
        """Help with a unit no more."""
        self._engine.stop_helping(unit)


class EmptyActors:
    """Actors that are being made, in the background, and wait to be told what to do."""

    def __init__(self, count: int | None = None, place: RayPlace | None = None) -> None:
        self.place = place or RayPlace()
        self._count = count
        self._made: Future[list[Any]] = ray_start.begin(self.place.address).then(self._make)

    def _make(self) -> list[Any]:
        if self.place.address is not None:
            self.place = self.place.settled(_nodes())
        return [self.another() for _ in range(missing(_nodes(), self.place, self._count, 0))]

    def first(self) -> list[Any]:
        """As many as were asked for, or as the cluster carries; they may still be importing.

        Raises:
            RunError: there is no Ray.
        """
        return self._made.result()

    def another(self) -> Any:
        """One more; Ray stands already."""
        remote = ray.remote(UnitActor).options(
            num_cpus=self.place.cpus,
            num_gpus=self.place.gpus,
            memory=self.place.memory_nbytes or None,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=CALLS,
        )
        return remote.remote()

    def missing(self, have: int) -> int:
        """Workers that a cluster carries by now, or that were asked for, beside those there are."""
        if self.place.address is None:
            return 0
        return missing(_nodes(), self.place, self._count, have)


class RayWorkers:
    """Actors on a Ray cluster; of those that are on their way, at most so many."""

    def __init__(
        self, spec: WorkerSpec, actors: EmptyActors | None = None, most: int | None = None
    ) -> None:
        self._spec = spec
        self._empty = actors or EmptyActors()
        self._most = most
        self._numbers = itertools.count()
        self._actors: dict[str, Any] = {}
        self._starting: dict[Any, str] = {}
        self._living: dict[Any, str] = {}
        self._running: dict[Any, tuple[str, Task]] = {}
        self._tries: dict[str, int] = {}
        self._looked = 0.0

    @property
    def replaceable(self) -> bool:
        """An actor is a process: it can be ended."""
        return True

    def start(self) -> list[Event]:
        """Tell the actors what to do; each joins through ``poll`` once it stands."""
        actors = self._empty.first()
        self._spec = spec_on(self._empty.place, self._spec)
        self._looked = time.monotonic()
        for actor in actors[: self._most]:
            self._begin(actor)
        for actor in actors[len(self._actors) :]:
            ray.kill(actor)
        return []

    def assign(self, worker: str, task: Task) -> None:
        """Give a unit to an actor; returns at once."""
        # one that died is not here any more: the same poll that noticed says so to the dispatcher
        if worker in self._actors:
            self._running[self._actors[worker].run.remote(task)] = (worker, task)

    def stop_helping(self, worker: str, unit: str) -> None:
        """Tell an actor; returns at once."""
        if worker in self._actors:
            self._actors[worker].stop_helping.remote(unit)

    def poll(self, timeout_seconds: float) -> list[Event]:
        """What ended, joined or died since the last call."""
        self._grow()
        waiting = [*self._running, *self._starting, *self._living]
        if not waiting:
            return []
        ready, _ = ray.wait(waiting, num_returns=1, timeout=timeout_seconds)
        if ready:
            more, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0)
            ready = more or ready
        return [event for ref in ready for event in self._answered(ref)]

    def _grow(self) -> None:
        """Begin more actors where a cluster has grown."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        for _ in range(self._empty.missing(len(self._actors))):
            self._begin(self._empty.another())

    def _ended_life(self, ref: Any) -> list[Event]:
        """A life ends only with its actor, which may have been idle: then no unit is at fault."""
        worker = self._living.pop(ref)
        try:
            ray.get(ref)
        except RayActorError as error:
            return self._died(worker, error)
        raise AssertionError(f"the life of {worker} ended before its actor did")

    def _answered(self, ref: Any) -> list[Event]:
        if ref in self._starting:
            return self._joined(ref)
        if ref in self._living:
            return self._ended_life(ref)
        if ref not in self._running:
            return []
        worker, task = self._running.pop(ref)
        try:
            outcome: Outcome = ray.get(ref)
        except RayActorError as error:
            return self._died(worker, error)
        except RayError as error:
            outcome = Outcome.of_error(error)
        return [outcome.event(worker, task)]

    def _joined(self, ref: Any) -> list[Event]:
        worker = self._starting.pop(ref)
        tries = self._tries.pop(worker)
        try:
            host = ray.get(ref)
        except RayError as error:
            self._actors.pop(worker, None)
            self._try_again(tries + 1, error)
            return []
        self._living[self._actors[worker].live.remote()] = worker
        return [joined(worker, host)]

    def _try_again(self, tries: int, error: RayError) -> None:
        """Another actor in the place of one that died while it started, within reason."""
        if tries < START_FAILURES:
            self._begin(self._empty.another(), tries)
        elif not (self._living or self._starting):
            raise WorkerLost(f"workers do not start: {first_line(error)}") from error

    def _died(self, worker: str, error: RayActorError) -> list[Event]:
        """One death, however many of its units were in flight; a new actor takes the place."""
        actor = self._forget(worker)
        if actor is None:
            return []
        # it may only be out of reach, and would go on holding its share of the machine
        ray.kill(actor)
        self._begin(self._empty.another())
        if error.preempted:  # announced: no unit is at fault
            return [events.WorkerLeft(worker)]
        reason = crash_told(crash_log(self._spec, worker)) or first_line(error)
        return [events.WorkerLost(worker, f"the worker process ended: {reason}")]

    def cancel(self, worker: str) -> list[Event]:
        """End an actor that hangs; another takes its place."""
        actor = self._forget(worker)
        if actor is None:
            return []
        ray.kill(actor)
        self._begin(self._empty.another())
        return [events.WorkerLeft(worker)]

    def _forget(self, worker: str) -> Any | None:
        """Wait for nothing more from an actor; returns it, or None where that was done before."""
        self._running = {r: (w, t) for r, (w, t) in self._running.items() if w != worker}
        self._living = {r: w for r, w in self._living.items() if w != worker}
        return self._actors.pop(worker, None)

    def _begin(self, actor: Any, tries: int = 0) -> None:
        name = f"actor-{os.getpid()}-{next(self._numbers)}"
        self._actors[name] = actor
        self._tries[name] = tries
        self._starting[actor.begin.remote(self._spec, name, self._empty.place)] = name

    def close(self) -> None:
        """End the actors, and the Ray that was started for them."""
        for name, actor in self._actors.items():
            ray.kill(actor)
            crash_told(crash_log(self._spec, name))
        self._actors.clear()
        self._running.clear()
        self._starting.clear()
        self._living.clear()
        ray_start.end()


def _nodes() -> list[Node]:
    """The machines of the cluster that are up."""
    return [Node.of_resources(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def _own_node() -> Node:
    """The machine that this actor runs on."""
    own = ray.get_runtime_context().get_node_id()
    return next(Node.of_resources(n["Resources"]) for n in ray.nodes() if n["NodeID"] == own)
