"""The driver of a run: instructions out to workers, events in, receipts down to the journal.

Decides nothing about units (the dispatcher does) and nothing about pixels (workers do). It opens
the run folder, keeps a bounded number of images in flight, makes receipts durable before it calls a
unit done, and leaves the folder in a state from which the same command goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saccade.jobs.folders import OpenRun, open_run
from saccade.jobs.in_flight import Attempt, InFlight
from saccade.jobs.journals.journal import Record
from saccade.jobs.manifests.areas import sealed_recipe
from saccade.jobs.manifests.catalogue import Catalogue, gather
from saccade.jobs.manifests.listing import record_skipped
from saccade.jobs.monitoring.metrics_export import metrics_told
from saccade.jobs.monitoring.tally import Tally
from saccade.jobs.options import RunOptions
from saccade.jobs.quarantine import quarantine_record
from saccade.jobs.stages import last_stage, stage_work
from saccade.jobs.stopping import StopSignal
from saccade.jobs.taking_up import Beside, LargestFirst, images_in_flight
from saccade.jobs.timeouts import UnitTimes
from saccade.pipeline.errors import Interrupted, RunError, WorkerLost
from saccade.pipeline.plan import Unit
from saccade.pipeline.recipe import Recipe
from saccade.pipeline.recipe_file import load_recipe
from saccade.pipeline.store import sweep_partials
from saccade.workers import events
from saccade.workers.dispatch import Dispatcher
from saccade.workers.outcome import Workers
from saccade.workers.shared_answers import clear_scratch, drop_claims
from saccade.workers.sharing import OWNER
from saccade.workers.tasks import ImageEntry, Task

POLL_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class RunSummary:
    """How a run ended."""

    folder: Path
    """Where it is."""
    asked: Catalogue
    """The images that were asked for."""
    quarantined: dict[str, str]
    """Images set aside, and why."""
    seconds: float
    """Wall-clock time of this call."""
    tally: Tally
    """All that is known of the images."""

    @property
    def complete(self) -> tuple[str, ...]:
        """Images with a whole result; their names are read from disk, all of them, at each call.

        Their number alone is ``tally.count("complete")``.
        """
        return tuple(n for n in self.asked.listed() if self.tally.state(n) == "complete")


def timed(record: Record) -> Record:
    """A record with the moment it was written: for people who look back, never for a result."""
    return {**record, "at": round(time.time(), 3)}


Observer = Callable[[Tally, bool], None]
"""Told what is done so far, and whether the run is over."""


def run(
    recipe: Recipe | Path | str,
    images: Iterable[str | Path | ImageEntry],
    output: Path | str,
    options: RunOptions | None = None,
    *,
    model_folder: Path | None = None,
    observe: Observer | None = None,
    stop: StopSignal | None = None,
) -> RunSummary:
    """Run a recipe over images; where the folder holds an earlier try of the same, go on from it.

    Args:
        recipe: a recipe, or the path of its file.
        images: files, folders, globs, URLs, manifests, or entries; taken one by one and not held.
        output: the run's folder.
        options: how to run.
        model_folder: what relative paths of models are relative to; by default the recipe's folder.
        observe: called after every change worth showing.
        stop: asks the run to stop in order when set.

    Raises:
        UsageError: the recipe, the images or the folder do not fit; nothing was started.
        Interrupted: it was asked to stop; the same call resumes it.
        SaccadeError: something stops the whole run; the same call resumes it.
    """
    options = options or RunOptions()
    base = model_folder or (Path.cwd() if isinstance(recipe, Recipe) else Path(recipe).parent)
    tree = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    tree = sealed_recipe(tree, base.absolute())
    asked = gather(images, tree, Path(output), skip=options.skip_missing)
    with (
        open_run(Path(output), tree, base.absolute(), asked, options) as opened,
        metrics_told(opened, options),
    ):
        record_skipped(opened.folder, asked.listing)
        loop = RunLoop(opened, options, observe or _nobody, stop or StopSignal())
        return loop.drive()


def _nobody(tally: Tally, over: bool) -> None:
    del tally, over


@dataclass
class ImageInFlight:
    """One image between its first unit and its last."""

    entry: ImageEntry
    """Which."""
    units: dict[str, Unit]
    """Of the stage that is open, by id."""


class RunLoop:
    """One driver's life."""

    def __init__(
        self, opened: OpenRun, options: RunOptions, observe: Observer, stop: StopSignal
    ) -> None:
        self._opened = opened
        self._options = options
        self._observe = observe
        self._stop = stop
        self._dispatcher = Dispatcher(options.max_failures)
        self._workers: Workers = opened.workers
        self._waiting = LargestFirst(opened.unfinished)
        self._beside = Beside()
        self._flying: dict[str, ImageInFlight] = {}
        self._commits: list[events.Commit] = []
        self._in_flight = InFlight(UnitTimes(options.unit_timeout_seconds))
        self._hosts: dict[str, str] = {}
        self._joined = 0
        self._drained = False

    def drive(self) -> RunSummary:
        """Run until every image is complete or set aside, or until asked to stop."""
        since = time.monotonic()
        tally = self._opened.tally
        self._observe(tally, False)
        if self._waiting:
            self._handle_all(self._workers.start())
            while self._flying or self._waiting:
                self._turn()
        self._observe(tally, True)
        return self._summary(time.monotonic() - since)

    def _turn(self) -> None:
        self._take_up_images()
        happened = self._workers.poll(POLL_SECONDS)
        self._handle(events.Tick(time.monotonic()))
        self._handle_all(happened)
        self._end_overdue()
        self._heed_stop()
        self._observe(self._opened.tally, False)

    def _summary(self, seconds: float) -> RunSummary:
        told = self._opened.tally.images.values()
        return RunSummary(
            folder=self._opened.folder.root,
            asked=self._opened.asked,
            quarantined={i.name: i.reason for i in told if i.state == "quarantined"},
            seconds=seconds,
            tally=self._opened.tally,
        )

    # ---------------------------------------------------------------------------------- images

    def _take_up_images(self) -> None:
        """Keep enough images in flight that no device waits at an image's border."""
        each = self._beside.images_each
        limit = self._options.images_open or images_in_flight(self._joined, each)
        while self._waiting and len(self._flying) < limit and not self._stop.requested:
            entry = self._waiting.take()
            # here and not for all images at first: an archive's results are hundreds of thousands
            # of folders
            sweep_partials(self._opened.folder.result(entry.name))
            clear_scratch(self._opened.folder.scratch(entry.name))
            self._open_stage(entry, 0)

    def _open_stage(self, entry: ImageEntry, number: int) -> None:
        work = stage_work(self._opened.folder, entry.name, number)
        units = {unit.id: unit for unit in work.units}
        self._flying[entry.name] = ImageInFlight(entry, units)
        replay = self._opened.replay
        self._handle(
            events.StageReady(
                image=entry.name,
                stage=number,
                units=work.refs(),
                already_done=replay.done & units.keys(),
                failures={u: n for u in units if (n := replay.failures.get(u, 0))},
                reasons={u: why for u in units if (why := replay.reasons.get(u))},
                errors={u: name for u in units if (name := replay.errors.get(u))},
                suspects=replay.suspects & units.keys(),
            )
        )

    def _next_stage(self, name: str, number: int) -> None:
        flying = self._flying[name]
        passes = len(self._opened.recipe.overridden(dict(flying.entry.overrides)).passes)
        if number < last_stage(passes):
            self._open_stage(flying.entry, number + 1)
            return
        del self._flying[name]
        clear_scratch(self._opened.folder.scratch(name))
        self._beside.ended(name, complete=True)
        self._record({"kind": "image", "image": name})
        self._handle(events.ImageDone(name))

    def _set_aside(self, quarantine: events.Quarantine) -> None:
        self._flying.pop(quarantine.image, None)
        clear_scratch(self._opened.folder.scratch(quarantine.image))
        self._beside.ended(quarantine.image, complete=False)
        tried = self._opened.replay.tried.get(quarantine.image, ())
        self._record(quarantine_record(quarantine, tried))
        self._refuse_too_many(quarantine)

    def _refuse_too_many(self, last: events.Quarantine) -> None:
        limit, tally = self._options.max_quarantined, self._opened.tally
        aside, complete = tally.count("quarantined"), tally.count("complete")
        if limit is not None and limit.exceeded(aside, aside + complete, tally.total):
            raise RunError(
                f"{aside} of the {aside + complete} images that ended were set aside, more than "
                f"the {limit} allowed; the last was {last.image}: {last.reason}. Mend what is "
                "wrong with them and say saccade retry, or allow more with --max-quarantined"
            )

    # ------------------------------------------------------------------------ events, and after

    def _handle_all(self, happened: Sequence[events.Event]) -> None:
        """Take in everything that happened, then make all receipts durable with one fsync."""
        for event in happened:
            if isinstance(event, events.WorkerJoined):
                self._joined += 1
                self._hosts[event.worker] = event.host
            self._joined -= isinstance(event, events.WorkerLost | events.WorkerLeft)
            self._handle(event)
        self._commit()

    def _commit(self) -> None:
        while self._commits:
            commits, self._commits = self._commits, []
            records = [timed({"kind": "receipt", **c.receipt, "worker": c.worker}) for c in commits]
            self._opened.journal.append(records)
            for record in records:
                self._opened.tally.add(record)
                self._beside.hear(record)
            for commit in commits:
                self._handle(events.Committed(commit.unit))

    def _handle(self, event: events.Event) -> None:
        self._in_flight.hear(event, time.monotonic())
        for instruction in self._dispatcher.handle(event):
            self._obey(instruction, getattr(event, "worker", ""))

    def _obey(self, instruction: events.Instruction, worker: str) -> None:
        match instruction:
            case events.Assign():
                self._assign(instruction)
            case events.Help():
                self._help(instruction)
            case events.StopHelping(helper, unit):
                self._workers.stop_helping(helper, unit)
            case events.Commit():
                self._commits.append(instruction)
            case events.StageComplete(image, stage):
                self._next_stage(image, stage)
            case events.RecordFailure():
                self._record_failure(instruction, worker)
            case events.Quarantine():
                self._set_aside(instruction)
            case events.Cancel():
                self._handle_all(self._workers.cancel(instruction.worker))
            case events.Drained():
                self._drained = True

    def _record_failure(self, failure: events.RecordFailure, worker: str) -> None:
        self._record(
            {
                "kind": "failure",
                "image": failure.image,
                "unit": failure.unit,
                "attempt": failure.attempt,
                "reason": failure.reason,
                "error": failure.error,
                "worker": worker,
                "host": self._hosts.get(worker, ""),
            }
        )

    def _record(self, record: Record) -> None:
        record = timed(record)
        self._opened.journal.append(record)
        self._opened.tally.add(record)
        self._opened.replay.fold(record)

    def _assign(self, assign: events.Assign) -> None:
        flying = self._flying_with(assign.unit)
        unit = flying.units[assign.unit]
        timing = self._timing(flying) if unit.kind == "finalise" else {}
        self._in_flight.give(assign, unit, time.monotonic())
        started = {"kind": "started", "image": unit.image, "unit": unit.id, "worker": assign.worker}
        self._opened.journal.note(timed(started))
        if assign.attempt > 1 and not assign.backup:
            # those who help stop at what its owner has begun: this one begins again
            drop_claims(self._opened.folder.scratch(unit.image, unit.id), OWNER)
        self._workers.assign(assign.worker, Task(unit, assign.attempt, flying.entry, timing))

    def _help(self, told: events.Help) -> None:
        flying = self._flying_with(told.unit)
        unit, entry = flying.units[told.unit], flying.entry
        with suppress(OSError):  # the help then finds no folder, and is over
            self._opened.folder.scratch(entry.name, unit.id).mkdir(parents=True, exist_ok=True)
        self._workers.assign(told.worker, Task(unit, told.attempt, entry, helps=True))

    def _flying_with(self, unit: str) -> ImageInFlight:
        return next(flying for flying in self._flying.values() if unit in flying.units)

    def _timing(self, flying: ImageInFlight) -> dict[str, Any]:
        """Seconds and dates: the only part of a result that differs between runs."""
        return {
            "seconds": self._opened.tally.images[flying.entry.name].seconds,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }

    # -------------------------------------------------------------------------------- stopping

    def _end_overdue(self) -> None:
        for late in self._in_flight.overdue(time.monotonic()):
            assign = late.assign
            self._handle(events.UnitTimedOut(assign.worker, assign.unit, assign.attempt))
            self._refuse_to_hang(late)

    def _refuse_to_hang(self, late: Attempt) -> None:
        if not self._workers.replaceable:
            raise WorkerLost(
                f"unit {late.assign.unit} did not end within {late.seconds:g} s, and nothing can "
                "end it in this process; the same command tries it again, and with "
                "--workers ray the run goes on without it"
            )

    def _heed_stop(self) -> None:
        """Stop dispatching, drain within the grace period, leave the journal durable."""
        if not self._stop.requested:
            return
        self._handle(events.DrainRequested())
        deadline = time.monotonic() + self._options.grace_seconds
        while not self._drained and time.monotonic() < deadline:
            self._handle_all(self._workers.poll(POLL_SECONDS))
        raise Interrupted(
            f"stopped on request; the same command resumes {self._opened.folder.root}"
        )
