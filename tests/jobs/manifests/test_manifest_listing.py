"""Lists of any length: bounded memory, exact names, every problem told, gone on without."""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.jobs.manifests.listing import Lines, Listing
from saccade.jobs.manifests.manifest import ListOptions, Problem, list_images, read_images
from saccade.jobs.manifests.naming import NAME_PATTERN, NameIndex, alternatives
from saccade.pipeline.errors import ManifestError
from saccade.workers.folder import RunFolder
from saccade.workers.tasks import ImageEntry

NAMES = st.sampled_from("abcdefg") | st.text("ab", min_size=1, max_size=3)


def manifest(folder: Path, count: int, *more: str) -> Path:
    """A manifest of one image under many names."""
    (folder / "x.tif").touch()
    path = folder / "m.csv"
    with path.open("w") as file:
        file.write("image,name,mpp,passes.only.tile\n")
        file.writelines(f"x.tif,slide-{n},0.{n % 7 + 1},{n % 5 + 64}\n" for n in range(count))
        file.writelines(f"{line}\n" for line in more)
    return path


def peak_nbytes(steps: Iterator[object]) -> int:
    tracemalloc.start()
    try:
        for _ in steps:
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# ------------------------------------------------------------------------------------------ memory


def test_a_row_costs_a_few_bytes_of_memory(tmp_path: Path) -> None:
    count = 20_000
    listing = Listing()
    path = manifest(tmp_path, count)
    nbytes = peak_nbytes(read_images([str(path)], listing=listing))
    assert len(listing) == count
    # slots of 16 bytes, 3/8 taken just after they grew, and those that they grew from
    assert nbytes < 64 * count + (2 << 20)
    assert peak_nbytes(iter(listing)) < 2 << 20


def test_problems_cost_no_memory_either(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("image\n" + "".join(f"missing-{n}.tif\n" for n in range(20_000)))
    listing = Listing()

    def noted() -> Iterator[None]:
        for one in read_images([str(path)]):
            assert isinstance(one, Problem)
            listing.note(one)
            yield

    assert peak_nbytes(noted()) < 2 << 20
    assert listing.problems == 20_000


# ------------------------------------------------------------------------------------------- lists


@given(st.lists(st.text(st.characters(exclude_characters="\n", codec="utf-8")), max_size=700))
def test_lines_come_back_in_order_from_any_of_them(texts: list[str]) -> None:
    lines = Lines()
    places = [lines.add(text) for text in texts]
    assert [line.decode() for line in lines.after(0)] == texts
    for number in range(0, len(texts), 101):
        assert lines.number(number).decode() == texts[number]
        assert [line.decode() for line in lines.after(places[number])] == texts[number:]


def test_a_line_longer_than_a_block_comes_back_whole() -> None:
    lines = Lines()
    for text in ("a", "b" * 200_001, "c"):
        lines.add(text)
    assert [len(line) for line in lines.after(0)] == [1, 200_001, 1]


def test_a_listing_is_the_sequence_of_its_images() -> None:
    entries = [ImageEntry(f"n{n}", f"/{n}", pixels=n or None) for n in range(700)]
    listing = Listing()
    assert all(listing.add(entry) is None for entry in entries)
    assert list(listing) == entries
    assert listing[-1] == entries[-1]
    assert list(listing[250:260]) == entries[250:260]
    with pytest.raises(IndexError):
        listing[700]


# ------------------------------------------------------------------------------------------- names


@given(st.lists(NAMES))
def test_names_are_known_again_even_where_all_hashes_are_equal(names: list[str]) -> None:
    class Same(str):
        __slots__ = ()

        def __hash__(self) -> int:
            return 7

    index = NameIndex()
    first: dict[str, int] = {}
    for place, name in enumerate(names):
        met = index.first(Same(name), place, lambda at: names[at])
        assert met == first.get(name)
        first.setdefault(name, place)


def test_names_are_known_again_however_many_there_are() -> None:
    names = [f"n{n % 5003}" for n in range(20_000)]
    index = NameIndex()
    met = [index.first(name, place, lambda at: names[at]) for place, name in enumerate(names)]
    assert met[:5003] == [None] * 5003
    assert met[5003:] == [place % 5003 for place in range(5003, 20_000)]


@given(st.text(min_size=1), st.text())
def test_every_other_name_is_a_name(name: str, folder: str) -> None:
    tried = alternatives("x" * 151, f"/{folder}/{name}".replace("\0", ""))
    some = [next(tried) for _ in range(20)]
    assert all(NAME_PATTERN.fullmatch(one) for one in some)
    assert len(set(some)) >= 19


def test_images_of_one_name_are_told_apart_on_request(tmp_path: Path) -> None:
    for folder in ("a", "b", "b/b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.tif").touch()
    (tmp_path / "b" / "b_x.tif").touch()
    found = list_images([tmp_path], options=ListOptions(rename=True))
    assert sorted(entry.name for entry in found) == ["b_b_x", "b_x", "b_x-2", "x"]
    with pytest.raises(ManifestError, match="each its own 'name'"):
        list_images([tmp_path])


# ---------------------------------------------------------------------------------------- problems


def test_all_problems_are_told_the_first_on_the_screen_and_all_in_a_file(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "run"
    path = manifest(tmp_path, 3, *[f"gone-{n}.tif,g{n},," for n in range(57)], "x.tif,slide-1,,")
    with pytest.raises(ManifestError) as refused:
        list_images([path], output=run)
    lines = str(refused.value).splitlines()
    assert len(lines) == 21
    file = tmp_path / "runs" / "run.problems.jsonl"
    assert lines[-1] == f"... and 38 more; all of them are in {file}"
    told = [json.loads(line) for line in file.read_text().splitlines()]
    assert Counter(one["why"].split("(")[0].strip() for one in told)["no such file"] == 57
    assert "slide-1" in told[-1]["why"]
    assert not run.exists()


def test_what_can_not_be_used_is_gone_on_without_on_request(tmp_path: Path) -> None:
    path = manifest(tmp_path, 2, "gone.tif,g,,", "x.tif,slide-1,,", "x.tif,../y,,")
    listing = list_images([path], options=ListOptions(skip=True))
    assert [entry.name for entry in listing] == ["slide-0", "slide-1"]
    assert listing.problems == 3


def test_nothing_left_is_an_error_even_so(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("image\ngone.tif\n")
    with pytest.raises(ManifestError, match=r"(?s)no images.*gone\.tif"):
        list_images([tmp_path / "m.csv"], options=ListOptions(skip=True))


def test_the_order_of_arguments_and_rows_is_kept(tmp_path: Path) -> None:
    path = manifest(tmp_path, 1500)
    last = ImageEntry("last", "anything")
    names = [entry.name for entry in list_images([ImageEntry("first", "anything"), path, last])]
    assert names == ["first", *(f"slide-{n}" for n in range(1500)), "last"]


def test_a_mask_that_is_missing_is_a_problem_before_work_starts(tmp_path: Path) -> None:
    (tmp_path / "x.tif").touch()
    (tmp_path / "m.csv").write_text("image,mask\nx.tif,gone.png\n")
    with pytest.raises(ManifestError, match=r"gone\.png: no such file"):
        list_images([tmp_path / "m.csv"])


def test_folders_that_lead_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.tif").touch()
    (tmp_path / "a" / "back").symlink_to(tmp_path)
    assert [entry.name for entry in list_images([tmp_path])] == ["x"]


def test_folders_are_searched_for_the_formats_that_are_asked_for(tmp_path: Path) -> None:
    for name in ("a.svs", "b.TIF", "c.png", "d.ome.tif", "e.czi"):
        (tmp_path / name).touch()
    found = list_images([tmp_path], options=ListOptions(formats="tif, .CZI"))
    assert [entry.name for entry in found] == ["b", "d", "e"]


def test_nothing_of_a_list_lies_in_the_run_folder_before_it_is_opened(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    list_images([manifest(tmp_path, 3)], output=folder.root)
    assert not folder.root.exists()
