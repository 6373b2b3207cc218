"""Ray's start in the background: one per process, its failure told to all who wait for it."""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Iterator

import pytest

from saccade.pipeline.errors import RunError
from saccade.workers import ray_start


class FakeRay:
    """What is asked of Ray, and in which thread."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.error: Exception | None = None
        self.may_connect = threading.Event()
        self.may_connect.set()

    def init(self, **settings: object) -> None:
        assert self.may_connect.wait(60)
        self.calls.append(("init", threading.current_thread().name))
        if self.error:
            raise self.error

    def shutdown(self) -> None:
        self.calls.append(("shutdown", threading.current_thread().name))


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRay]:
    fake = FakeRay()
    monkeypatch.setattr(ray_start, "ray", fake)
    yield fake
    ray_start.end()


def test_what_is_begun_twice_is_begun_once_and_ended_once(ray: FakeRay) -> None:
    assert ray_start.begin(None) is ray_start.begin(None)
    ray_start.end()
    ray_start.end()
    assert [call for call, _ in ray.calls] == ["init", "shutdown"]


def test_after_its_end_it_can_be_begun_again(ray: FakeRay) -> None:
    for _ in range(2):
        ray_start.begin(None)
        ray_start.end()
    assert [call for call, _ in ray.calls] == ["init", "shutdown"] * 2


def test_whoever_begins_does_not_wait_and_what_follows_waits_for_ray(ray: FakeRay) -> None:
    ray.may_connect.clear()
    made = ray_start.begin(None).then(lambda: len(ray.calls))
    assert not made.done()
    ray.may_connect.set()
    assert made.result() == 1


def test_ray_lives_and_ends_in_one_thread_which_is_not_the_caller_s(ray: FakeRay) -> None:
    ray_start.begin(None)
    ray_start.end()
    (thread,) = {thread for _, thread in ray.calls}
    assert thread != threading.current_thread().name


def test_everything_that_waits_for_a_ray_that_is_not_there_says_so(ray: FakeRay) -> None:
    ray.error = ConnectionError("\n nobody answers \n more")
    begun = ray_start.begin("host:1")
    for _ in range(2):
        with pytest.raises(RunError, match="no Ray at host:1: nobody answers; check --address"):
            begun.then(list).result()


def test_handlers_of_signals_are_what_they_were_before_ray(ray: FakeRay) -> None:
    def kept() -> bytes:
        action = ctypes.create_string_buffer(1024)
        ctypes.CDLL(None).sigaction(signal.SIGTERM, None, action)
        return action.raw[:16]  # the handler, and the signals that exist of its mask

    before = kept()

    def init(**settings: object) -> None:
        ctypes.CDLL(None).signal(signal.SIGTERM, ctypes.c_void_p(1))  # ignored, as C code would
        assert kept() != before

    ray.init = init  # type: ignore[method-assign]
    ray_start.begin(None).then(list).result()
    assert kept() == before
