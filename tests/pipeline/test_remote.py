from __future__ import annotations

import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.pipeline import remote
from saccade.pipeline.errors import UsageError
from saccade.pipeline.remote_stores import file_name, join, key_of, store_for

RANGES = st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 700)), max_size=30)


@given(RANGES, st.integers(0, 300), st.integers(1, 2000))
def test_every_range_lies_wholly_in_one_span(
    ranges: list[tuple[int, int]], gap: int, largest: int
) -> None:
    spans = remote.coalesced(ranges, gap, largest)
    for start, length in ranges:
        assert any(a <= start and start + length <= a + n for a, n in spans)


@given(RANGES, st.integers(0, 300), st.integers(1, 2000))
def test_spans_are_as_large_as_allowed_or_as_one_range(
    ranges: list[tuple[int, int]], gap: int, largest: int
) -> None:
    spans = remote.coalesced(ranges, gap, largest)
    longest = max((length for _, length in ranges), default=0)
    assert all(length <= max(largest, longest) for _, length in spans)
    assert all(a[0] <= b[0] and sum(a) <= sum(b) for a, b in pairwise(spans))


@given(RANGES)
def test_neighbours_are_asked_for_at_once(ranges: list[tuple[int, int]]) -> None:
    spans = remote.coalesced(ranges, gap_nbytes=0, largest_nbytes=1 << 30)
    assert all(sum(a) < b[0] for a, b in pairwise(spans))


@given(RANGES)
def test_ranges_come_back_in_the_order_given(ranges: list[tuple[int, int]]) -> None:
    whole = bytes(n % 251 for n in range(6000))

    def from_memory(uri: str, start: int, length: int, *, etag: str | None = None) -> bytes:
        return whole[start : start + length]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "read_range", from_memory)
        patch.setattr(remote, "at_once", lambda do, things: [do(one) for one in things])
        assert remote.read_ranges("s3://b/k", ranges) == [whole[a : a + n] for a, n in ranges]


@pytest.mark.parametrize(
    ("uri", "key", "name"),
    [
        ("s3://bucket/a/b.tif", "a/b.tif", "b.tif"),
        ("gs://bucket/a%20b.tif", "a%20b.tif", "a%20b.tif"),
        ("https://host:8080/a%20b/c.tif?signature=x/y", "a b/c.tif", "c.tif"),
        ("s3://bucket", "", ""),
    ],
)
def test_a_uri_is_a_store_and_a_key(uri: str, key: str, name: str) -> None:
    assert remote.is_remote(uri)
    assert (key_of(uri), file_name(uri)) == (key, name)


def test_paths_are_not_remote() -> None:
    assert not any(map(remote.is_remote, ("/a/b.tif", "a.tif", "s3:/bucket", "C:\\s3", "s3")))


def test_a_place_below_another_keeps_its_query() -> None:
    assert join("s3://b/a/", "x", "/y") == "s3://b/a/x/y"
    assert join("https://h/a?sig=1", "x") == "https://h/a/x?sig=1"


@pytest.mark.parametrize("uri", ["s3://", "http://example.org/a.tif", "ftp://host/a.tif"])
def test_a_uri_that_names_no_store_is_refused(uri: str) -> None:
    pytest.importorskip("obstore")
    with pytest.raises(UsageError, match="expected"):
        store_for(uri)


@pytest.fixture
def without_obstore(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "obstore"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "obstore", None)


@pytest.mark.usefixtures("without_obstore")
def test_without_the_extra_a_message_says_what_to_install() -> None:
    with pytest.raises(UsageError, match=r"pip install 'saccade\[cloud\]'"):
        remote.head("s3://another-bucket-than-any/key")


def test_a_wrong_limit_of_time_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("obstore")
    monkeypatch.setenv("SACCADE_RETRY_SECONDS", "soon")
    with pytest.raises(UsageError, match="SACCADE_RETRY_SECONDS: seconds expected"):
        store_for("s3://bucket/key")
