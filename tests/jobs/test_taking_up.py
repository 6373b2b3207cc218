"""Which image is begun next."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from saccade.jobs.taking_up import PX_PER_BYTE, LargestFirst, estimated_px, images_in_flight
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


def test_images_in_flight_grow_with_workers_and_with_nothing_else() -> None:
    assert [images_in_flight(n) for n in (0, 1, 2, 64)] == [1, 4, 7, 193]
