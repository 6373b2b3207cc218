"""The engine on whole units: bounded, with one failure channel, and it always closes."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeSource, Lab, noise, one_pass, pass_of, several_passes

from saccade.pipeline.errors import DeviceFull, SourceError, StorageFull
from saccade.pipeline.geometry import Box
from saccade.pipeline.plan import Unit, single_unit
from saccade.pipeline.recipe import Recipe
from saccade.pipeline.store import ImageStore
from saccade.workers.answer import Answer
from saccade.workers.context import ImageContext, WorkerContext
from saccade.workers.device import Predictor
from saccade.workers.engine import Engine, read_budget
from saccade.workers.lanes import LaneClosed
from saccade.workers.local import outcome_of
from saccade.workers.pending import Pending
from saccade.workers.sweep import SweepJob
from saccade.workers.tasks import ImageEntry, Task, WorkerSpec

LIMIT_SECONDS = 60
"""A test that waits longer hangs; nothing here takes a second."""
FOUR_UNITS = {"tile": 16, "chunk": 64}
"""Of an image of 97 x 89."""


class Bench:
    """One engine with one prepared image, to which single units are given."""

    def __init__(self, engine: Engine, entry: ImageEntry) -> None:
        self.engine, self.entry = engine, entry
        self.done(self.submit(single_unit(entry.name, "prepare", 0)))
        folder = engine.context.folder
        layout = folder.read_image_plan(entry.name).passes[0]
        self.units = folder.read_units(entry.name, layout)

    def submit(self, unit: Unit, entry: ImageEntry | None = None) -> Future[dict[str, Any]]:
        return self.engine.submit(Task(unit, 1, entry or self.entry))

    def done(self, answer: Future[dict[str, Any]]) -> dict[str, Any]:
        return answer.result(LIMIT_SECONDS)

    def sweep(self) -> list[Future[dict[str, Any]]]:
        return [self.submit(unit) for unit in self.units]


@contextmanager
def bench(
    lab: Lab, recipe: dict[str, Any], image: np.ndarray | FakeSource, **spec: Any
) -> Iterator[Bench]:
    tree = Recipe.model_validate(recipe)
    engine = Engine(WorkerSpec(lab.folder, tree.canonical_json(), lab.models, **spec))
    try:
        yield Bench(engine, lab.entry("one", image))
    finally:
        engine.close()


def broken_image(error: Exception | None = None) -> FakeSource:
    """The last of four units can't be read."""
    return FakeSource(noise(97, 89), broken=(Box(70, 70, 71, 71),), error=error)


def test_a_receipt_says_what_was_written_and_read(lab: Lab) -> None:
    with bench(lab, one_pass("constant", **FOUR_UNITS), noise(97, 89)) as b:
        receipts = [b.done(answer) for answer in b.sweep()]
    assert [r["unit"] for r in receipts] == [unit.id for unit in b.units]
    assert sum(r["tiles"]["done"] for r in receipts) == 7 * 6
    assert sum(r["pixels"] for r in receipts) >= 97 * 89
    folder = lab.folder / "results" / "one.ome.zarr"
    for receipt in receipts:
        assert receipt["attempt"] == 1
        assert receipt["nbytes"] > 0
        assert receipt["peak_memory_nbytes"] > 0
        assert set(receipt["seconds"]) == {"read", "device", "write"}
        for key, checksum in receipt["keys"].items():
            assert (folder / key).exists() == bool(checksum)


def test_running_a_unit_twice_writes_the_same_bytes(lab: Lab) -> None:
    with bench(lab, one_pass("ConvNet", **FOUR_UNITS), noise(97, 89)) as b:
        first, second = (b.done(b.submit(b.units[1])) for _ in range(2))
    assert first["keys"] == second["keys"]
    assert any(first["keys"].values())


def test_a_reader_that_raises_fails_its_unit_with_the_cause_and_no_other(lab: Lab) -> None:
    cause = SourceError("the file was replaced")
    with bench(lab, one_pass("echo", **FOUR_UNITS), broken_image(cause)) as b:
        *others, last = b.sweep()
        assert last.exception(LIMIT_SECONDS) is cause
        assert all(b.done(answer)["tiles"]["failed"] == 0 for answer in others)


def test_a_model_that_raises_fails_its_unit_with_the_cause_and_no_other(lab: Lab) -> None:
    image = np.minimum(noise(97, 89), 200)
    image[80, 80] = 255
    with bench(lab, one_pass("failing", **FOUR_UNITS), image) as b:
        *others, last = b.sweep()
        error = last.exception(LIMIT_SECONDS)
        assert isinstance(error, ArithmeticError)
        assert str(error) == "the model is broken"
        for answer in others:
            b.done(answer)


def test_a_writer_that_raises_fails_its_unit_with_the_cause_and_no_other(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    cause = StorageFull("no space is left")
    writing = ImageStore.writing

    def full(self: ImageStore, array: str, box: Box) -> Any:
        if array == "labels/classes/0" and box.y0 == box.x0 == 64:
            raise cause
        return writing(self, array, box)

    monkeypatch.setattr(ImageStore, "writing", full)
    with bench(lab, one_pass("echo", **FOUR_UNITS), noise(97, 89)) as b:
        *others, last = b.sweep()
        assert last.exception(LIMIT_SECONDS) is cause
        assert outcome_of(last).stops_run == "StorageFull"
        for answer in others:
            b.done(answer)


def test_an_image_that_does_not_open_fails_its_units(lab: Lab) -> None:
    with bench(lab, one_pass("echo", **FOUR_UNITS), noise(97, 89)) as b:
        unknown = ImageEntry("two", "nowhere.tif")
        answer = b.submit(replace(b.units[0], image="two"), unknown)
        assert isinstance(answer.exception(LIMIT_SECONDS), OSError)
        b.done(b.submit(b.units[0]))


def test_out_of_memory_is_survived_and_the_receipt_says_so(lab: Lab) -> None:
    image = noise(97, 89)
    details = {**FOUR_UNITS, "window": 16, "batch": 5}
    with bench(lab, one_pass("hungry", options={"fits": 2}, **details), image) as b:
        receipts = [b.done(answer) for answer in b.sweep()]
    assert [r["splits"] > 0 for r in receipts] == [True] * len(b.units)
    assert {r["batch"] for r in receipts} == {5}
    scores = ImageStore.open(lab.folder / "results" / "one.ome.zarr").read("0", Box(0, 0, 97, 89))
    np.testing.assert_array_equal(scores[0], image[..., 0] / np.float32(255))


def test_a_window_too_large_for_the_device_is_named_and_may_fit_at_another_time(lab: Lab) -> None:
    recipe = one_pass("hungry", options={"fits": 0}, tile=16)
    with bench(lab, recipe, noise(97, 89)) as b:
        answer = b.submit(b.units[0])
        assert isinstance(answer.exception(LIMIT_SECONDS), DeviceFull)
        assert outcome_of(answer).retryable


def test_no_more_pixels_wait_for_a_slow_device_than_its_budget_allows(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    window_nbytes = 16 * 16 * 3
    budget = 3 * window_nbytes
    lock = threading.Lock()
    alive, most = 0, 0
    full = threading.Event()
    read, compute = ImageContext.read, Predictor.launch

    def counted(self: ImageContext, unit: Unit, window: Any) -> Any:
        nonlocal alive, most
        with lock:
            alive += 1
            most = max(most, alive)
            if alive * window_nbytes >= budget:
                full.set()
        return read(self, unit, window)

    def slow(self: Predictor, windows: Any) -> Any:
        nonlocal alive
        # The device lingers until the readers are as far ahead as they may be.
        assert full.wait(LIMIT_SECONDS)
        answer = compute(self, windows)
        with lock:
            alive -= len(windows)
        return answer

    monkeypatch.setattr(ImageContext, "read", counted)
    monkeypatch.setattr(Predictor, "launch", slow)
    recipe = one_pass("echo", tile=16, window=16, batch=1)
    with bench(lab, recipe, noise(96, 80), read_nbytes=budget, read_threads=4) as b:
        for answer in b.sweep():
            b.done(answer)
        assert b.engine._read_budget.peak_nbytes <= budget
        assert b.engine._read_budget.held_nbytes == 0
    assert most == 3


def test_units_that_are_read_ahead_hold_no_arrays_and_those_stored_let_them_go(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three units in flight would else hold three shards of every array, whatever they wait for."""
    units: set[str] = set()
    jobs: list[weakref.ref[SweepJob]] = []
    all_read = threading.Event()
    read, compute, make = ImageContext.read, Predictor.launch, SweepJob.__post_init__

    def seen(self: ImageContext, unit: Unit, window: Any) -> Any:
        units.add(unit.id)
        if len(units) == 4:
            all_read.set()
        return read(self, unit, window)

    def slow(self: Predictor, windows: Any) -> Any:
        assert all_read.wait(LIMIT_SECONDS)
        if len(jobs) == 1:
            held.append(sum(flight.job is not None for flight in b.engine._flights))
        return compute(self, windows)

    def made(self: SweepJob) -> None:
        jobs.append(weakref.ref(self))
        make(self)

    held: list[int] = []
    monkeypatch.setattr(ImageContext, "read", seen)
    monkeypatch.setattr(Predictor, "launch", slow)
    monkeypatch.setattr(SweepJob, "__post_init__", made)
    with bench(lab, one_pass("echo", **FOUR_UNITS), noise(97, 89)) as b:
        for answer in b.sweep():
            b.done(answer)
    assert held
    assert set(held) == {1}
    assert len(jobs) == 4
    gc.collect()
    assert not any(job() for job in jobs)


@pytest.mark.parametrize(("device", "most"), [("cpu", 32 * 2**20), ("cuda", 256 * 2**20)])
def test_processors_read_less_ahead_than_their_budget_allows(device: str, most: int) -> None:
    spec = WorkerSpec(Path("run"), "{}", Path(), device=device, read_nbytes=256 * 2**20)
    budget = read_budget(spec)
    for number in range(256):
        if not budget._admits(number, 2**20):
            break
        budget.acquire(2**20)
    assert budget.held_nbytes == most


def test_close_answers_for_every_unit_whatever_it_was_doing(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    computing, go_on = threading.Event(), threading.Event()
    compute = Predictor.launch

    def held(self: Predictor, windows: Any) -> Any:
        computing.set()
        go_on.wait(LIMIT_SECONDS)
        return compute(self, windows)

    recipe = one_pass("echo", tile=16, window=16, batch=1)
    with bench(lab, recipe, noise(97, 89), read_nbytes=3 * 16 * 16 * 3) as b:
        monkeypatch.setattr(Predictor, "launch", held)
        answers = b.sweep()
        assert computing.wait(LIMIT_SECONDS)
        closing = threading.Thread(target=b.engine.close, daemon=True)
        closing.start()
        while not b.engine._closed:
            pass
        go_on.set()
        closing.join(LIMIT_SECONDS)
        assert not closing.is_alive()
        for answer in answers:
            assert isinstance(answer.exception(LIMIT_SECONDS), LaneClosed)
            assert outcome_of(answer).retryable
        with pytest.raises(LaneClosed):
            b.submit(b.units[0])


def test_close_returns_when_nothing_was_asked(lab: Lab) -> None:
    tree = Recipe.model_validate(one_pass("echo"))
    engine = Engine(WorkerSpec(Path(lab.folder), tree.canonical_json(), lab.models))
    engine.close()
    engine.close()


def test_files_are_forced_to_disk_when_the_run_asks_for_it(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr("saccade.pipeline.store_shelf.os.fsync", synced.append)
    with bench(lab, one_pass("echo", **FOUR_UNITS), noise(97, 89), fsync=True) as b:
        before = len(synced)
        receipt = b.done(b.submit(b.units[0]))
    stored = [key for key, checksum in receipt["keys"].items() if checksum]
    assert len(synced) - before == 2 * len(stored)


# ------------------------------------------------------------------------------- who goes first


def after_glance(b: Bench) -> tuple[Unit, ...]:
    """The units of the second pass, once the glance was swept."""
    name, folder = b.entry.name, b.engine.context.folder
    for answer in b.sweep():
        b.done(answer)
    last = folder.read_image_plan(name).last
    b.done(b.submit(single_unit(name, "select", 1, last)))
    return folder.read_units(name, last)


def test_a_glance_is_computed_before_sweeps_that_were_given_earlier(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    select = {"by": "foreground", "above": 0.0}
    finer = pass_of("fine", "echo", 1, tile=16, batch=1, window=16, select=select)
    recipe = several_passes([pass_of("glance", "echo", 4, tile=16), finer])
    held, begun, order = threading.Event(), threading.Event(), list[str]()
    launch = Predictor.launch

    def slow(self: Predictor, windows: Any) -> Any:
        order.append(self.layout.name)
        begun.set()
        assert held.wait(LIMIT_SECONDS)
        return launch(self, windows)

    with bench(lab, recipe, noise(97, 89)) as b:
        sweeps = after_glance(b)
        monkeypatch.setattr(Predictor, "launch", slow)
        answers = [b.submit(unit) for unit in sweeps]
        assert begun.wait(LIMIT_SECONDS)
        answers += b.sweep()
        waiting = b.engine._to_compute._waiting.queue
        computed = sum(len(unit.batches) for unit in b.units)
        while sum(not rank for rank, *_ in waiting) < computed + len(
            b.units
        ):  # and the end of each
            threading.Event().wait(0.001)
        held.set()
        for answer in answers:
            b.done(answer)
    assert order[0] == "fine"
    assert set(order[1 : 1 + computed]) == {"glance"}
    assert "fine" in order[1 + computed :]


def test_an_image_is_opened_while_the_one_before_it_is_still_read(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, opened = threading.Event(), threading.Event()
    read, open_image = ImageContext.read, WorkerContext.image

    def slow(self: ImageContext, unit: Unit, window: Any) -> Any:
        assert held.wait(LIMIT_SECONDS)
        return read(self, unit, window)

    def watched(self: WorkerContext, entry: ImageEntry) -> ImageContext:
        image = open_image(self, entry)
        if entry.name == "two":
            opened.set()
        return image

    # the first image's windows fill the budget: nothing of the second can be read before
    budget = 16 * 16 * 3
    with bench(
        lab, one_pass("echo", window=16, **FOUR_UNITS), noise(97, 89), read_nbytes=budget
    ) as b:
        two = lab.entry("two", noise(89, 97))
        b.done(b.submit(single_unit("two", "prepare", 0), two))
        layout = b.engine.context.folder.read_image_plan("two").last
        other = b.engine.context.folder.read_units("two", layout)[0]
        monkeypatch.setattr(ImageContext, "read", slow)
        monkeypatch.setattr(WorkerContext, "image", watched)
        answers = [*b.sweep(), b.submit(other, two)]
        assert opened.wait(LIMIT_SECONDS)
        held.set()
        assert all(b.done(answer)["tiles"]["failed"] == 0 for answer in answers)


# --------------------------------------------------------------------- a device that answers late


class LateDevice:
    """Computes at once, but shows nothing of it until it is waited for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.finished, self.most = 0, 0, 0
        self.order: list[int] = []
        self._launch = Predictor.launch
        monkeypatch.setattr(Predictor, "launch", lambda one, windows: self.launch(one, windows))

    def launch(self, predictor: Predictor, windows: Any) -> Pending[Answer]:
        answer = self._launch(predictor, windows).result()
        number, self.begun = self.begun, self.begun + 1
        self.most = max(self.most, self.begun - self.finished)
        place = replace(answer, scores=np.full_like(answer.scores, np.nan))

        def wait() -> None:
            self.finished += 1
            self.order.append(number)
            place.scores[...] = answer.scores

        return Pending(place, wait)


def stored(lab: Lab) -> np.ndarray:
    return ImageStore.open(lab.folder / "results" / "one.ome.zarr").read("0", Box(0, 0, 97, 89))


def test_a_device_that_answers_late_is_given_one_batch_ahead_and_the_bytes_are_the_same(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = one_pass("ConvNet", window=16, batch=2, **FOUR_UNITS)
    with bench(lab, recipe, noise(97, 89)) as b:
        at_once = [b.done(answer)["keys"] for answer in b.sweep()]
        late = LateDevice(monkeypatch)
        receipts = [b.done(answer) for answer in b.sweep()]
        assert [receipt["keys"] for receipt in receipts] == at_once
        assert late.order == list(range(late.begun))
        assert late.most <= 2
        assert b.engine._read_budget.held_nbytes == 0


def test_a_late_device_is_waited_for_when_the_budget_holds_a_single_batch(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = LateDevice(monkeypatch)
    recipe = one_pass("echo", tile=16, window=16, batch=1)
    image = noise(97, 89)
    with bench(lab, recipe, image, read_nbytes=1) as b:
        for answer in b.sweep():
            b.done(answer)
        assert late.most == 1
    np.testing.assert_array_equal(stored(lab)[0], image[..., 0] / np.float32(255))


def test_a_failure_of_a_late_device_is_its_own_unit_s_and_no_other_s(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    cause = RuntimeError("an illegal memory access was encountered")
    late = LateDevice(monkeypatch)
    launch = late.launch

    def failing_first(predictor: Predictor, windows: Any) -> Pending[Answer]:
        begun = launch(predictor, windows)

        def wait() -> None:
            raise cause

        return Pending(begun.place, wait) if late.begun == 1 else begun

    monkeypatch.setattr(late, "launch", failing_first)
    with bench(lab, one_pass("echo", **FOUR_UNITS), noise(97, 89)) as b:
        first, *others = b.sweep()
        assert first.exception(LIMIT_SECONDS) is cause
        for answer in others:
            b.done(answer)
        assert b.engine._read_budget.held_nbytes == 0


def test_out_of_memory_with_a_batch_on_its_way_splits_the_next_and_loses_nothing(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = noise(97, 89)
    details = {**FOUR_UNITS, "window": 16, "batch": 5}
    with bench(lab, one_pass("hungry", options={"fits": 2}, **details), image) as b:
        LateDevice(monkeypatch)
        receipts = [b.done(answer) for answer in b.sweep()]
        assert b.engine._read_budget.held_nbytes == 0
    assert all(receipt["splits"] > 0 for receipt in receipts)
    np.testing.assert_array_equal(stored(lab)[0], image[..., 0] / np.float32(255))


def test_close_waits_for_what_a_late_device_was_given(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = LateDevice(monkeypatch)
    with bench(lab, one_pass("echo", tile=16, window=16, batch=1), noise(97, 89)) as b:
        answers = b.sweep()
        b.engine.close()
        assert late.begun == late.finished
        assert all(answer.done() for answer in answers)
