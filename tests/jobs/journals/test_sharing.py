"""Parts of a run: every image is of exactly one, however the list grows."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.jobs.journals.sharing import WHOLE, Shard, journals, shard_of
from saccade.jobs.manifests.names import Names
from saccade.pipeline.errors import UsageError

COUNTS = st.integers(1, 13)
SHARDS = COUNTS.flatmap(lambda count: st.builds(Shard, st.integers(1, count), st.just(count)))


@given(st.lists(st.text(max_size=5), unique=True), COUNTS)
def test_every_image_is_of_exactly_one_part(names: list[str], count: int) -> None:
    parts = [Shard(index, count) for index in range(1, count + 1)]
    for name in names:
        assert sum(part.holds(name) for part in parts) == 1
    hashes = Names.of(names).hashes()
    for part in parts:
        assert part.held(hashes).tolist() == [part.holds(name) for name in names]


@given(SHARDS, SHARDS)
def test_parts_overlap_when_some_image_is_of_both(one: Shard, other: Shard) -> None:
    both = range(one.count * other.count)
    common = any(
        n % one.count + 1 == one.index and n % other.count + 1 == other.index for n in both
    )
    assert one.overlaps(other) == common


@given(SHARDS)
def test_a_part_is_read_back_from_its_text_and_from_its_folder(shard: Shard) -> None:
    root = Path("/run/journal")
    assert Shard.parse(str(shard)) == shard
    assert shard_of(shard.journal(root)) == (root, shard)


@pytest.mark.parametrize("text", ["", "3", "0/3", "4/3", "1/0", "a/b", "-1/3", "1/3/5", "1.5/3"])
def test_what_is_no_part_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="3/16"):
        Shard.parse(text)


def test_only_journals_that_may_speak_of_a_part_are_read(tmp_path: Path) -> None:
    for label in ("shard-1-of-2", "shard-2-of-2", "shard-2-of-3"):
        (tmp_path / label).mkdir()
    found = [shard for shard, _ in journals(tmp_path, Shard(1, 2))]
    assert found == [Shard(1, 2), WHOLE, Shard(2, 3)]
    assert len(list(journals(tmp_path))) == 4
