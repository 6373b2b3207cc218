"""Merging tiles into windows: what it computes per tile that was chosen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.pipeline.geometry import Box
from saccade.pipeline.merging import computed_tiles, merge_tiles, sides_up_to

MARGIN = 48 / 256
"""The halo of a U-Net with three poolings, on tiles of 256 pixels."""


def computed(chosen: np.ndarray, longest: int, margin: float = MARGIN, shard: int = 16) -> float:
    """Tiles' worth of pixels per chosen tile, where windows don't cross shards."""
    height, width = chosen.shape
    corners = [(y, x) for y in range(0, height, shard) for x in range(0, width, shard)]
    parts = [Box(y, x, y + shard, x + shard).clip((height, width)) for y, x in corners]
    found = [box for part in parts for box in merge_tiles(chosen, part, longest, margin)]
    return sum(computed_tiles(box.shape, margin) for box in found) / int(chosen.sum())


def discs(radius: float, share: float = 0.3, side: int = 64) -> np.ndarray:
    """``(side, side)`` bool: discs at random places, until so many tiles are chosen."""
    rng = np.random.default_rng(1801)
    y, x = np.indices((side, side))
    chosen = np.zeros((side, side), bool)
    while chosen.mean() < share:
        centre = rng.uniform(0, side, 2)
        chosen |= np.hypot(y - centre[0], x - centre[1]) <= radius
    return chosen


@pytest.mark.parametrize("radius", [6, 9, 13])
def test_clusters_in_windows_of_four_compute_at_most_1_35_times_their_pixels(radius: int) -> None:
    assert computed(discs(radius), 4) <= 1.35


@pytest.mark.parametrize("radius", [2, 6, 13])
def test_larger_windows_compute_less(radius: int) -> None:
    costs = [computed(discs(radius), longest) for longest in (1, 2, 3, 4)]
    assert costs == sorted(costs, reverse=True)


@given(st.integers(0, 999), st.floats(0.05, 1), st.integers(1, 6), st.floats(0, 0.5))
def test_merging_never_computes_more_than_single_tiles(
    seed: int, share: float, longest: int, margin: float
) -> None:
    chosen = np.random.default_rng(seed).random((17, 19)) < share
    chosen[3, 5] = True
    single = computed_tiles((1, 1), margin)
    assert computed(chosen, longest, margin) <= single + 1e-9


def test_a_block_is_not_cut_by_a_strip_beside_it() -> None:
    chosen = np.zeros((5, 5), bool)
    chosen[1:5, 1:5] = True
    chosen[1, 0] = True
    found = list(merge_tiles(chosen, Box.of(chosen.shape), 4, MARGIN))
    assert found == [Box(1, 0, 2, 1), Box(1, 1, 5, 5)]


@pytest.mark.parametrize("longest", [1, 2, 3, 5, 7, 100])
def test_sides_hold_one_and_the_longest_and_few_between(longest: int) -> None:
    sides = sides_up_to(longest)
    assert {1, longest} <= set(sides)
    assert max(sides) == longest
    assert len(sides) <= 2 * longest.bit_length() + 1
