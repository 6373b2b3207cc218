"""Which image is begun next."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.jobs.taking_up import (
    FEWEST_EACH,
    MOST_EACH,
    PX_PER_BYTE,
    Beside,
    LargestFirst,
    estimated_px,
    images_in_flight,
)
from saccade.workers.tasks import ImageEntry


def entries(count: int) -> list[ImageEntry]:
    return [ImageEntry(str(n), f"/{n}") for n in range(count)]


def order(costs: list[float | None], window: int) -> list[int]:
    waiting = LargestFirst(entries(len(costs)), lambda entry: costs[int(entry.name)], window)
    taken = []
    while waiting:
        taken.append(int(waiting.take().name))
    return taken


COSTS = st.lists(st.none() | st.integers(0, 9).map(float), max_size=40)


@given(COSTS, st.integers(1, 50))
def test_every_image_is_begun_once_and_none_before_it_is_in_the_window(
    costs: list[float | None], window: int
) -> None:
    taken = order(costs, window)
    assert sorted(taken) == list(range(len(costs)))
    assert all(place < at + window for at, place in enumerate(taken))


@given(st.lists(st.integers(0, 9).map(float), max_size=40))
def test_within_one_window_the_largest_goes_first_and_ties_as_listed(costs: list[float]) -> None:
    assert order([*costs], 40) == sorted(range(len(costs)), key=lambda n: (-costs[n], n))


@given(COSTS)
def test_a_window_of_one_and_unknown_sizes_keep_the_manifests_order(
    costs: list[float | None],
) -> None:
    assert order(costs, 1) == list(range(len(costs)))
    assert order([None] * len(costs), 7) == list(range(len(costs)))


def test_a_manifest_is_read_no_further_than_the_window() -> None:
    read: list[str] = []

    def endless() -> Iterator[ImageEntry]:
        for entry in entries(10**6):
            read.append(entry.name)
            yield entry

    waiting = LargestFirst(endless(), lambda entry: 1.0, window=13)
    for _ in range(5):
        waiting.take()
    assert len(read) == 13 + 5


def test_the_size_of_an_image_is_that_of_its_file_and_unknown_for_what_is_no_file(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.tif").write_bytes(b"x" * 1009)
    assert estimated_px(ImageEntry("a", str(tmp_path / "a.tif"))) == 1009 * PX_PER_BYTE
    assert estimated_px(ImageEntry("b", str(tmp_path / "gone.tif"))) is None
    assert estimated_px(ImageEntry("c", "s3://bucket/c.tif")) is None


def test_images_in_flight_grow_with_workers() -> None:
    assert [images_in_flight(n) for n in (0, 1, 2, 64)] == [1, 4, 7, 193]
    assert [images_in_flight(n, 5.5) for n in (0, 1, 2, 64)] == [1, 6, 12, 353]


def learned(*images: tuple[float, float], complete: bool = True) -> Beside:
    """What is known after images of so many seconds on the device and beside it."""
    beside = Beside()
    for number, (on_device, others) in enumerate(images):
        name = str(number)
        beside.hear({"image": name, "seconds": {"read": others / 3, "device": on_device / 2}})
        beside.hear({"image": name, "seconds": {"step": others * 2 / 3}})
        beside.hear({"image": name, "seconds": {"read": 0.0, "device": on_device / 2}})
        beside.ended(name, complete=complete)
    return beside


def test_images_that_take_long_beside_the_device_are_in_flight_in_greater_number() -> None:
    assert learned(*[(2.0, 3.0)] * 7).images_each == pytest.approx(2 + 3 * 3 / 2)
    assert learned(*[(2.0, 3.0)] * 7, (7.0, 0.0)).images_each == pytest.approx(2 + 3 * 3 / 2)


@given(st.lists(st.tuples(st.floats(1e-3, 1e6), st.floats(0, 1e6)), max_size=20))
def test_images_in_flight_stay_within_their_bounds(images: list[tuple[float, float]]) -> None:
    assert FEWEST_EACH <= learned(*images).images_each <= MOST_EACH


def test_of_images_set_aside_or_never_on_a_device_nothing_is_learned() -> None:
    assert learned(*[(2.0, 13.0)] * 7, complete=False).images_each == FEWEST_EACH
    assert learned(*[(0.0, 13.0)] * 7).images_each == FEWEST_EACH
