"""Names by their hashes: what lists and sets of text would say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.jobs.manifests import names as module
from saccade.jobs.manifests.names import Names, NameSet, name_hash

TEXT = st.text("abc", max_size=3)


@given(st.lists(TEXT, unique=True), st.lists(TEXT, unique=True))
def test_a_list_knows_the_place_of_each_name_and_of_no_other(
    listed: list[str], others: list[str]
) -> None:
    names = Names.of(listed)
    expected = [listed.index(name) if name in listed else -1 for name in others]
    assert [-1 if (p := names.place(name)) is None else p for name in others] == expected
    assert names.places(Names.of(others)).tolist() == expected
    assert names.hashes().tolist() == [name_hash(name) for name in listed]
    assert len(names) == len(listed)


@given(st.lists(TEXT))
def test_doubles_are_found_wherever_they_stand(listed: list[str]) -> None:
    found = Names.of(listed).doubles()
    assert {listed[b] for _, b in found} == {name for name in listed if listed.count(name) > 1}
    assert all(a < b and listed[a] == listed[b] for a, b in found)


@given(st.lists(st.tuples(st.booleans(), TEXT)), st.integers(1, 5))
def test_a_set_of_names_has_what_a_set_of_text_has(
    steps: list[tuple[bool, str]], recent: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "RECENT", recent)
        names, expected = NameSet(), set[str]()
        for add, name in steps:
            (names.add if add else names.discard)(name)
            (expected.add if add else expected.discard)(name)
            assert (name in names) == (name in expected)
        assert (names, len(names)) == (expected, len(expected))


def test_a_name_stands_for_the_same_number_on_every_machine() -> None:
    """Parts of a run that was begun elsewhere stay the same parts."""
    assert name_hash("slide-7") == 0x5054C3D445268296
    assert [name_hash(name) % 3 for name in ("a", "b", "c", "ü")] == [2, 2, 0, 0]


def test_a_million_names_cost_a_few_bytes_each() -> None:
    names = Names(np.arange(10**6, dtype=np.uint64) * 7919)
    assert names._sorted.nbytes + names._places.nbytes == 12 * 10**6
