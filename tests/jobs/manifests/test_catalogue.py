"""Lists of images on disk: what dicts of entries would say, read back one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.jobs.journals.sharing import Shard
from saccade.jobs.manifests.catalogue import Catalogue, gather
from saccade.jobs.manifests.manifest import entry_from_json, entry_to_json
from saccade.pipeline.errors import ManifestError
from saccade.pipeline.recipe import Recipe
from saccade.workers.tasks import ImageEntry

RECIPE = Recipe.model_validate(
    {"passes": [{"name": "one", "resolution": {"downsample": 2}, "model": "builtin:tissue"}]}
)
ENTRIES = st.builds(ImageEntry, st.text("abé", min_size=1, max_size=2), st.text("x", max_size=3))
LISTS = st.lists(ENTRIES, unique_by=lambda entry: entry.name)


@given(LISTS, LISTS)
def test_merging_two_lists_is_the_union_of_two_dicts(
    tmp_path_factory: pytest.TempPathFactory, then: list[ImageEntry], now: list[ImageEntry]
) -> None:
    path = tmp_path_factory.mktemp("run") / "images.jsonl"
    path.write_text("".join(entry_to_json(entry) + "\n" for entry in then))
    known = Catalogue.opened(path)
    Catalogue.spooled(now).merged_into(path, known)
    union: Mapping[str, ImageEntry] = {e.name: e for e in then} | {e.name: e for e in now}
    assert list(map(entry_from_json, path.read_text().splitlines())) == [*union.values()]
    assert list(known) == then
    assert [*path.parent.iterdir()] == [path]


def test_a_list_that_says_nothing_new_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "images.jsonl"
    entries = [ImageEntry(name, f"/{name}", mpp=0.5) for name in "abc"]
    Catalogue.spooled(entries).merged_into(path, Catalogue.opened(path))
    before = path.stat()
    Catalogue.spooled(entries[1:]).merged_into(path, Catalogue.opened(path))
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@given(LISTS, st.data())
def test_a_part_of_a_list_is_a_list(entries: list[ImageEntry], data: st.DataObject) -> None:
    held = data.draw(st.lists(st.booleans(), min_size=len(entries), max_size=len(entries)))
    part = Catalogue.spooled(entries).part(np.array(held, bool))
    expected = [entry for entry, there in zip(entries, held, strict=True) if there]
    assert (list(part), list(part.listed())) == (expected, [entry.name for entry in expected])
    assert [part.names.place(entry.name) for entry in expected] == list(range(len(expected)))


def test_images_by_name_keep_the_order_of_the_list() -> None:
    listed = Catalogue.spooled(ImageEntry(name, f"/{name}") for name in "abcd")
    assert list(listed.named(["d", "b", "elsewhere"]).listed()) == ["b", "d"]


def test_entries_are_taken_one_by_one_and_the_list_outlives_them() -> None:
    alive = []

    def entries() -> Iterator[ImageEntry]:
        for number in range(7):
            alive.append(number)
            yield ImageEntry(f"i{number}", "/x")

    gathered = gather(entries(), RECIPE)
    assert (alive, len(gathered)) == (list(range(7)), 7)
    assert gathered.shard(Shard(1, 3)).shard(Shard(1, 3)).names == gathered.shard(Shard(1, 3)).names


def test_doubled_names_far_apart_are_refused() -> None:
    entries = [ImageEntry(name, f"/{number}") for number, name in enumerate("abcda")]
    with pytest.raises(ManifestError, match=r"/4: would be named 'a', as /0 is"):
        gather(entries, RECIPE)
