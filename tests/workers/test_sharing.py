"""Who answers a unit's batches, and in how many parts, changes no byte of the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeSource, Lab, noise, one_pass, pass_of, several_passes

from saccade.jobs.stages import last_stage, stage_work
from saccade.pipeline.errors import StorageFull
from saccade.pipeline.geometry import Box
from saccade.pipeline.plan import Unit
from saccade.pipeline.recipe import Recipe
from saccade.workers.engine import Engine
from saccade.workers.events import HelpEnded
from saccade.workers.folder import RunFolder
from saccade.workers.local import outcome_of
from saccade.workers.shared_answers import SharedAnswers
from saccade.workers.sharing import HELPER, OWNER, patience_seconds
from saccade.workers.tasks import ImageEntry, Task, WorkerSpec

LIMIT_SECONDS = 60
HEIGHT, WIDTH = 97, 131
SMALL = {"tile": 16, "window": 16, "batch": 3}
LAKE = np.s_[20:60, 33:80]


def of_one_pass(scores: str, **details: Any) -> dict[str, Any]:
    return one_pass("ConvNet", scores, chunk=64, **SMALL, **details)


def of_two_passes() -> dict[str, Any]:
    """Everything that is handed on: features, a selection, a fused result."""
    first = pass_of("glance", "encoder", 2, **SMALL)
    chosen = {"by": "top_fraction", "fraction": 0.6, "signal": "red", "statistic": "mean"}
    second = pass_of("fine", "echo_features", 1, **SMALL, features=True, select=chosen)
    return several_passes([first, second], "float32", shard=64) | {"max_bad_tiles": 0.5}


def without_data() -> FakeSource:
    pixels = noise(HEIGHT, WIDTH) // 2 + np.uint8(100)
    pixels[LAKE] = 7
    return FakeSource(pixels, nodata=7)


def damaged() -> FakeSource:
    return FakeSource(noise(HEIGHT, WIDTH), broken=(Box(32, 48, 48, 64),))


def whole() -> FakeSource:
    return FakeSource(noise(HEIGHT, WIDTH))


RECIPES = {
    "crop": of_one_pass("float32"),
    "hann": of_one_pass("float32", blend="hann", halo=4),
    "bytes": of_one_pass("uint8", blend="hann", halo=4),
    "planes": one_pass("with_saliency", "uint8", chunk=64, **SMALL),
    "features": of_two_passes(),
}
IMAGES: dict[str, Callable[[], FakeSource]] = {
    "whole": whole,
    "without data": without_data,
    "damaged": damaged,
}


class Site:
    """A run's folder with an owner and one who helps, each an engine; no driver, no clock."""

    def __init__(self, lab: Lab, name: str, recipe: dict[str, Any], entry: ImageEntry) -> None:
        tree = Recipe.model_validate(recipe | {"max_bad_tiles": 0.5})
        self.passes = len(tree.passes)
        self.entry = entry
        self.folder = RunFolder(lab.folder / name)
        self.spec = WorkerSpec(self.folder.root, tree.canonical_json(), lab.models)
        self.owner, self.helper = Engine(self.spec), Engine(self.spec)

    def close(self) -> None:
        self.owner.close()
        self.helper.close()

    def units(self) -> Iterator[Unit]:
        """Every unit, each when those before it are done."""
        for number in range(last_stage(self.passes) + 1):
            yield from stage_work(self.folder, self.entry.name, number).units

    def own(self, unit: Unit) -> dict[str, Any]:
        return self.owner.submit(Task(unit, 1, self.entry)).result(LIMIT_SECONDS)

    def help(self, unit: Unit) -> Any:
        self.folder.scratch(unit.image, unit.id).mkdir(parents=True, exist_ok=True)
        return self.help_where_wanted(unit)

    def help_where_wanted(self, unit: Unit) -> Any:
        task = Task(unit, 1, self.entry, helps=True)
        answer = self.helper.submit(task)
        answer.exception(LIMIT_SECONDS)
        return outcome_of(answer).event("helper", task)

    def shared(self, unit: Unit) -> SharedAnswers:
        image = self.owner.context.image(self.entry)
        self.owner.context.release(image)
        return self.owner.context.shared(image, unit)

    def claim(self, unit: Unit, side: str, batches: range) -> None:
        self.folder.scratch(unit.image, unit.id).mkdir(parents=True, exist_ok=True)
        shared = self.shared(unit)
        shared.begin()
        for index in batches:
            assert shared.claim(index, side)

    def files(self, unit: Unit) -> list[Path]:
        return sorted(self.folder.scratch(unit.image, unit.id).rglob("*.npz"))


@contextmanager
def site(lab: Lab, name: str, recipe: dict[str, Any], entry: ImageEntry) -> Iterator[Site]:
    made = Site(lab, name, recipe, entry)
    try:
        yield made
    finally:
        made.close()


Before = Callable[[Site, Unit], Any]
"""What happens before the owner of a unit begins."""


def nothing(at: Site, unit: Unit) -> None:
    pass


def all_of_it(at: Site, unit: Unit) -> None:
    at.help(unit)
    assert len(at.files(unit)) == len(unit.batches)


def some_died(at: Site, unit: Unit) -> None:
    """Of every third batch somebody promised an answer, and died."""
    at.claim(unit, HELPER, range(0, len(unit.batches), 3))
    at.help(unit)


def owner_died(at: Site, unit: Unit) -> None:
    at.claim(unit, OWNER, range(len(unit.batches) // 2))
    at.help(unit)


def torn(at: Site, unit: Unit) -> None:
    at.help(unit)
    for n, path in enumerate(at.files(unit)):
        if n % 2:
            path.write_bytes(path.read_bytes()[: (0, 100, path.stat().st_size - 30)[n % 3]])


WAYS: dict[str, Before] = {
    "all of it": all_of_it,
    "some who helped died": some_died,
    "an owner died": owner_died,
    "answers are torn": torn,
}
TOLD = ("keys", "nbytes", "tiles", "pixels", "read_nbytes", "errors", "splits")
"""What a receipt says of a result, with help or without."""


def played(
    lab: Lab, name: str, recipe: dict[str, Any], entry: ImageEntry, before: Before
) -> tuple[list[dict[str, Any]], dict[str, bytes], int]:
    """What receipts say, the result's files, and how many batches were answered by others."""
    with site(lab, name, recipe, entry) as at:
        receipts = []
        for unit in at.units():
            if unit.batches:
                before(at, unit)
            receipts.append(at.own(unit))
            assert not at.folder.scratch(unit.image, unit.id).exists(), "scratch is left behind"
        root = Path(str(at.folder.result(entry.name)))
        files = (p for p in root.rglob("*") if p.is_file() and p.name != "zarr.json")
        found = {p.relative_to(root).as_posix(): p.read_bytes() for p in files}
    told = [{word: receipt[word] for word in TOLD if word in receipt} for receipt in receipts]
    return told, found, sum(receipt.get("helped", 0) for receipt in receipts)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Owners who wait for nobody: what is promised and not there they compute at once."""
    monkeypatch.setattr("saccade.workers.flight.patience_seconds", lambda seconds: 0.0)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("recipe", RECIPES)
def test_bytes_and_receipts_with_help_are_those_without(lab: Lab, recipe: str, image: str) -> None:
    entry = lab.entry("one", IMAGES[image]())
    tree = RECIPES[recipe]
    receipts, files, helped = played(lab, "without", tree, entry, nothing)
    assert helped == 0
    assert len(files) > 3
    for way, before in WAYS.items():
        told, found, helped = played(lab, way, tree, entry, before)
        assert helped > 0
        assert told == receipts, way
        assert found == files, way


def first_sweep(at: Site) -> Unit:
    for unit in at.units():
        if unit.batches:
            return unit
        at.own(unit)
    raise AssertionError("a recipe has a sweep")


@pytest.fixture
def alone(lab: Lab) -> Iterator[Site]:
    """One unit of many batches, prepared and not begun."""
    with site(lab, "run", RECIPES["crop"], lab.entry("one", whole())) as at:
        yield at


def test_a_unit_that_nobody_helps_with_leaves_no_trace(alone: Site) -> None:
    assert alone.own(first_sweep(alone))["helped"] == 0
    assert not (alone.folder.root / "scratch").exists()


def test_an_owner_does_not_read_what_others_have_answered(lab: Lab) -> None:
    source = whole()
    with site(lab, "run", RECIPES["crop"], lab.entry("one", source)) as at:
        unit = first_sweep(at)
        at.help(unit)
        source.reads.clear()
        assert at.own(unit)["helped"] == len(unit.batches)
        assert source.reads == []


def test_who_helps_goes_from_the_last_batch_to_where_the_owner_is(alone: Site) -> None:
    unit = first_sweep(alone)
    alone.claim(unit, OWNER, range(2))
    alone.help(unit)
    names = {path.stem for path in alone.files(unit)}
    assert names == {str(n) for n in range(2, len(unit.batches))}


def test_a_unit_that_wants_no_help_any_more_ends_it_without_an_error(alone: Site) -> None:
    unit = first_sweep(alone)
    alone.own(unit)
    assert alone.help_where_wanted(unit) == HelpEnded("helper", unit.id)
    assert not (alone.folder.root / "scratch").exists()


def test_who_is_told_to_stop_ends_without_an_error(
    alone: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = first_sweep(alone)
    claim = SharedAnswers.claim

    def told_meanwhile(self: SharedAnswers, index: int, side: str) -> bool:
        alone.helper.stop_helping(unit.id)
        return claim(self, index, side)

    monkeypatch.setattr(SharedAnswers, "claim", told_meanwhile)
    assert alone.help(unit) == HelpEnded("helper", unit.id)
    assert len(alone.files(unit)) < len(unit.batches)
    monkeypatch.undo()


def test_a_full_disk_ends_the_help_and_nothing_else(
    alone: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = first_sweep(alone)
    monkeypatch.setattr("saccade.workers.shared_answers.LEAST_FREE_NBYTES", 2**80)
    monkeypatch.setattr("saccade.workers.flight.patience_seconds", lambda seconds: 0.0)
    ended = alone.help(unit)
    assert isinstance(ended, HelpEnded)
    assert "space" in ended.reason
    assert alone.files(unit) == []
    assert alone.own(unit)["helped"] == 0


def test_help_that_fails_fails_no_unit(alone: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    unit = first_sweep(alone)
    with monkeypatch.context() as patch:
        patch.setattr(
            SharedAnswers, "put", lambda *_: (_ for _ in ()).throw(StorageFull("it is full"))
        )
        assert alone.help(unit) == HelpEnded("helper", unit.id, "it is full")
    monkeypatch.setattr("saccade.workers.flight.patience_seconds", lambda seconds: 0.0)
    assert alone.own(unit)["tiles"]["done"] > 0


def test_answers_of_another_recipe_are_never_taken(lab: Lab) -> None:
    entry = lab.entry("one", whole())
    with site(lab, "run", RECIPES["crop"], entry) as at:
        unit = first_sweep(at)
        at.help(unit)
        other = site(lab, "run", of_one_pass("float32", weights=None, halo=8), entry)
        with other as changed:
            assert changed.own(unit)["helped"] == 0


def test_an_owner_waits_for_what_is_promised_as_long_as_batches_take() -> None:
    assert patience_seconds(None, otherwise=31) == 31
    assert patience_seconds(1.0, factor=3, least=5) == 5
    assert patience_seconds(7.0, factor=3, least=5) == 21
