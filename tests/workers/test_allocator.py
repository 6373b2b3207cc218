"""Freed memory is given back now and then, whatever the C library."""

from __future__ import annotations

import ctypes

import pytest

from saccade.workers.allocator import TRIM_NBYTES, FreedMemory, trim_arenas


def test_memory_is_given_back_each_time_that_enough_was_freed() -> None:
    trims: list[str] = []
    freed = FreedMemory(lambda: trims.append("trim"))
    for _ in range(7):
        freed.add(TRIM_NBYTES // 2)
    assert len(trims) == 3


def test_small_units_together_count_like_a_large_one() -> None:
    trims: list[str] = []
    freed = FreedMemory(lambda: trims.append("trim"))
    freed.add(TRIM_NBYTES - 1)
    assert not trims
    freed.add(1)
    assert trims


def test_a_c_library_that_can_not_give_back_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    trim_arenas()
