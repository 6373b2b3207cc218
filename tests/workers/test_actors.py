"""Ray actors that do not start, and clusters that grow: by a Ray that only keeps account."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import RayActorError

from saccade.pipeline.errors import WorkerLost
from saccade.workers import actor
from saccade.workers.actor import START_FAILURES, RayWorkers
from saccade.workers.events import WorkerLost as Lost
from saccade.workers.room import RayPlace
from saccade.workers.tasks import WorkerSpec

SPEC = WorkerSpec(Path("/nowhere"), "{}", Path())


class FakeRay:
    """Calls that are answered when the test says so."""

    def __init__(self) -> None:
        self.answers: dict[Any, object] = {}
        self.killed: list[Any] = []

    def wait(self, refs: list[Any], **options: object) -> tuple[list[Any], list[Any]]:
        return [ref for ref in refs if ref in self.answers], []

    def get(self, ref: Any) -> object:
        answer = self.answers.pop(ref)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def kill(self, one: Any) -> None:
        self.killed.append(one)


class FakeMethod:
    """A method of an actor, called once."""

    def __init__(self) -> None:
        self.called: tuple[object, ...] | None = None

    def remote(self, *arguments: object) -> FakeMethod:
        self.called = arguments
        return self


class FakeActor:
    """An actor that is on its way."""

    def __init__(self) -> None:
        self.begin, self.live, self.run = FakeMethod(), FakeMethod(), FakeMethod()


class FakeEmpty:
    """Empty actors of a cluster that carries as many as the test says."""

    def __init__(self, count: int) -> None:
        self.place = RayPlace("10.0.0.1:6379")
        self.carries = count
        self.made: list[FakeActor] = []

    def first(self) -> list[FakeActor]:
        return [self.another() for _ in range(self.carries)]

    def another(self) -> FakeActor:
        self.made.append(FakeActor())
        return self.made[-1]

    def missing(self, have: int) -> int:
        return max(0, self.carries - have)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    for name in ("wait", "get", "kill"):
        monkeypatch.setattr(actor.ray, name, getattr(fake, name))
    monkeypatch.setattr(actor, "LOOK_SECONDS", 0.0)
    return fake


def workers_on(empty: FakeEmpty) -> RayWorkers:
    workers = RayWorkers(SPEC, empty)  # type: ignore[arg-type]
    workers.start()
    return workers


def test_workers_begin_as_the_cluster_grows_and_stay_where_it_shrinks(ray: FakeRay) -> None:
    empty = FakeEmpty(2)
    workers = workers_on(empty)
    assert all(one.begin.called for one in empty.made)
    for carries, made in ((5, 5), (3, 5), (7, 7)):
        empty.carries = carries
        workers.poll(0)
        assert len(empty.made) == made


def test_one_that_dies_is_replaced_by_one_that_waits_for_room(ray: FakeRay) -> None:
    empty = FakeEmpty(1)
    workers = workers_on(empty)
    ray.answers[empty.made[0].begin] = "there"
    name = f"actor-{actor.os.getpid()}-0"
    assert workers.poll(0) == [actor.joined(name, "there")]
    empty.carries = 0
    ray.answers[empty.made[0].live] = RayActorError()
    (lost,) = workers.poll(0)
    assert isinstance(lost, Lost)
    assert len(empty.made) == 2


def test_a_node_lost_with_many_that_were_starting_does_not_end_the_run(ray: FakeRay) -> None:
    empty = FakeEmpty(START_FAILURES + 4)
    workers = workers_on(empty)
    ray.answers = {one.begin: RayActorError() for one in empty.made}
    assert workers.poll(0) == []
    assert len(empty.made) == 2 * (START_FAILURES + 4)


def test_workers_that_never_start_end_the_run(ray: FakeRay) -> None:
    empty = FakeEmpty(2)
    workers = workers_on(empty)
    for _ in range(START_FAILURES - 1):
        ray.answers = {one.begin: RayActorError() for one in empty.made}
        workers.poll(0)
    ray.answers = {one.begin: RayActorError() for one in empty.made}
    with pytest.raises(WorkerLost, match="workers do not start"):
        workers.poll(0)
    assert len(empty.made) == 2 * START_FAILURES


def test_a_place_that_fails_again_and_again_leaves_the_others_at_work(ray: FakeRay) -> None:
    empty = FakeEmpty(2)
    workers = workers_on(empty)
    empty.carries = 0
    ray.answers[empty.made[0].begin] = 1
    workers.poll(0)
    for _ in range(START_FAILURES):
        ray.answers[empty.made[-1].begin] = RayActorError()
        workers.poll(0)
    assert len(empty.made) == 1 + START_FAILURES
