"""The latest numbers of a kind: their medians are those of the standard library."""

from __future__ import annotations

from statistics import median, median_high

from hypothesis import given
from hypothesis import strategies as st

from saccade.workers.recent import Recent


@given(st.lists(st.floats(0, 1e9), max_size=40), st.integers(1, 12), st.integers(1, 12))
def test_both_medians_are_of_the_latest_and_of_enough(
    numbers: list[float], remembered: int, fewest: int
) -> None:
    recent = Recent(remembered, fewest)
    for number in numbers:
        recent.add(number)
    latest = numbers[-remembered:]
    enough = len(latest) >= fewest
    assert recent.median == (median(latest) if enough else None)
    assert recent.median_high == (median_high(latest) if enough else None)
