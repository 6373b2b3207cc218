from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.pipeline.errors import UsageError
from saccade.workers.memory_size import MemoryLimit, format_nbytes


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("7", 7),
        ("7B", 7),
        ("7kB", 7000),
        ("7 KiB", 7168),
        ("7k", 7168),
        ("1.5GiB", 3 * 2**29),
        ("1.5 gb", 1_500_000_000),
        ("3G", 3 * 2**30),
        ("3Gi", 3 * 2**30),
        (" 2TiB ", 2**41),
        ("2 TB", 2 * 10**12),
        ("5MB", 5_000_000),
        ("5m", 5 * 2**20),
    ],
)
def test_amounts_are_read_as_people_write_them(text: str, nbytes: int) -> None:
    assert MemoryLimit.parse(text) == MemoryLimit(nbytes=nbytes)


@pytest.mark.parametrize(
    "text",
    ["", "GiB", "-3GiB", "3 XB", "3iB", "0", "0%", "101%", "1e9", "70 % of it", "3%B", "0.1B"],
)
def test_anything_else_is_refused_with_what_was_found(text: str) -> None:
    with pytest.raises(UsageError, match=r"memory: .* expected; found"):
        MemoryLimit.parse(text)


def test_a_share_is_one_of_all_there_is() -> None:
    assert MemoryLimit.parse("70%") == MemoryLimit(share=0.7)
    assert MemoryLimit.parse("30%").of(1009) == 302
    assert MemoryLimit.parse("100%").of(1009) == 1009


def test_a_limit_is_never_more_than_there_is() -> None:
    assert MemoryLimit(nbytes=1013).of(1009) == 1009
    assert MemoryLimit(nbytes=997).of(1009) == 997


@given(st.integers(1, 2**50))
def test_bytes_are_read_as_they_were_written(nbytes: int) -> None:
    limit = MemoryLimit(nbytes=nbytes)
    assert MemoryLimit.parse(str(limit)) == limit


@given(st.integers(1, 10_000))
def test_shares_are_read_as_they_were_written(hundredths: int) -> None:
    read = MemoryLimit.parse(str(MemoryLimit(share=hundredths / 10_000))).share
    assert read == pytest.approx(hundredths / 10_000)


@given(st.integers(1, 2**50))
def test_what_is_shown_differs_by_less_than_half_a_per_cent(nbytes: int) -> None:
    shown = MemoryLimit.parse(format_nbytes(nbytes)).nbytes
    assert shown is not None
    assert abs(shown - nbytes) <= 0.005 * nbytes


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (3 * 2**29, "1.50 GiB"),
        (13 * 2**20, "13.0 MiB"),
        (131 * 2**40, "131 TiB"),
        (3 * 2**50, "3072 TiB"),
    ],
)
def test_amounts_are_shown_with_three_digits(nbytes: int, text: str) -> None:
    assert format_nbytes(nbytes) == text


@pytest.mark.parametrize("fields", [{}, {"nbytes": 3, "share": 0.5}, {"nbytes": 0}, {"share": 1.1}])
def test_a_limit_is_either_bytes_or_a_share(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="found"):
        MemoryLimit(**fields)  # type: ignore[arg-type]
