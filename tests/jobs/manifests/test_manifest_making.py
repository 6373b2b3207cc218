"""What ``saccade manifest`` writes is what it saw, and reads back as the same images."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.jobs.manifests.files import rows_of
from saccade.jobs.manifests.listing import Listing
from saccade.jobs.manifests.making import make_manifest
from saccade.jobs.manifests.manifest import Problem, list_images, read_manifest
from saccade.jobs.manifests.rows import entry_of, row_of
from saccade.jobs.manifests.writing import WRITERS, RowSpool, csv_lines, write_manifest
from saccade.pipeline.errors import UsageError
from saccade.workers.tasks import ImageEntry

PATHS = st.text(st.characters(exclude_characters="\0/", codec="utf-8"), min_size=1).map(
    lambda text: f"/archive/{text}.tif"
)
SIZES = st.none() | st.floats(1e-6, 1e6)
OVERRIDES = st.fixed_dictionaries(
    {},
    optional={
        "fuse": st.sampled_from(["max", "mean"]) | st.integers() | st.text(min_size=1),
        "mask": PATHS,
        "only": st.lists(st.text(min_size=1), min_size=1, max_size=3),
        "output": st.dictionaries(st.text(min_size=1), st.integers() | st.text(), min_size=1),
        "passes": st.dictionaries(
            st.text(min_size=1), st.dictionaries(st.text(), st.integers()), min_size=1
        ),
    },
)
ENTRIES = st.builds(
    ImageEntry,
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.@+-]{0,9}", fullmatch=True),
    uri=PATHS | st.sampled_from(["s3://bucket/a b.svs", "https://host/a.tif?sign=x"]),
    mpp=SIZES,
    gsd=st.none(),
    overrides=OVERRIDES,
)


def spool(*rows: dict[str, Any]) -> RowSpool:
    kept = RowSpool()
    for row in rows:
        kept.add(row)
    return kept


@given(st.lists(ENTRIES, max_size=4))
def test_images_read_back_as_they_were_written(entries: list[ImageEntry]) -> None:
    rows = spool(*map(row_of, entries))
    for suffix in (".csv", ".jsonl"):
        file = io.BytesIO()
        WRITERS[suffix](rows, file)
        file.seek(0)
        if entries:
            assert [entry_of(row, "/") for _, row in rows_of(file, suffix)] == entries


def test_parquet_reads_back_as_it_was_written(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    entries = [
        ImageEntry(f"n{n}", f"/{n}.tif", mpp=n + 0.1 if n % 3 else None) for n in range(2100)
    ]
    entries[5] = ImageEntry("five", "/5.tif", overrides={"fuse": "max", "only": ["a"]})
    write_manifest(spool(*map(row_of, entries)), tmp_path / "m.parquet")
    assert list(read_manifest(tmp_path / "m.parquet")) == entries


def test_a_manifest_of_real_images_reads_back_with_what_their_headers_say(
    data: Path, tmp_path: Path
) -> None:
    made = make_manifest([data / "slides", data / "rasters", data / "broken"])
    assert len(made.rows) >= 8
    broken = [Path(one.where).name for one in made.listing.all_problems()]
    assert "broken.svs" in broken
    for suffix in (".csv", ".jsonl"):
        path = tmp_path / f"m{suffix}"
        write_manifest(made.rows, path)
        found = list(read_manifest(path))
        assert not [one for one in found if isinstance(one, Problem)]
        again = make_manifest([path])
        assert list(csv_lines(again.rows)) == list(csv_lines(made.rows))
        sizes = {one.name: one.pixels for one in list_images([path])}
        assert sizes["cmu-1-small-region"] == 2220 * 2967


def test_an_image_that_breaks_a_library_is_a_problem_and_not_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_source(uri: str) -> Any:
        raise RuntimeError("never seen before")

    monkeypatch.setattr("saccade.jobs.manifests.making.open_source", open_source)
    (tmp_path / "x.tif").touch()
    made = make_manifest([tmp_path, tmp_path / "gone.tif"])
    assert len(made.rows) == 0
    assert ["never seen" in one.why for one in made.listing.all_problems()] == [True, False]


def test_another_format_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.csv"):
        write_manifest(RowSpool(), tmp_path / "m.xlsx")
    assert not list(tmp_path.iterdir())


def test_a_listing_keeps_what_an_entry_says(tmp_path: Path) -> None:
    entry = ImageEntry("a", "/a", gsd=2.5, overrides={"only": ["x"]}, pixels=1 << 40)
    listing = Listing()
    listing.add(entry)
    assert list(listing) == [entry]
