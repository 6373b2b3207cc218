"""The checked list of a run's images, and what was wrong with the rest. On disk, not in memory.

A million rows cost a position in every ``STRIDE`` of them, and what it takes to know names again.
"""

from __future__ import annotations

import json
import os
import tempfile
import weakref
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import IO, Any, overload
from uuid import uuid4

from saccade.jobs.manifests.naming import NameIndex
from saccade.jobs.manifests.problems import MAX_LISTED, Problem
from saccade.pipeline.errors import StorageFull
from saccade.workers.folder import RunFolder
from saccade.workers.tasks import ImageEntry

STRIDE = 256
"""Of so many lines one position is kept."""
BLOCK_NBYTES = 1 << 16
PROBLEM_FILE = "{run}.problems.jsonl"
"""Where all problems of a list are written, beside the run's folder."""


def entry_to_json(entry: ImageEntry) -> str:
    """One line of ``images.jsonl``."""
    stated = ((name, getattr(entry, name)) for name in _FIELDS)
    return json.dumps({name: value for name, value in stated if value not in (None, {})})


def entry_from_json(line: str | bytes) -> ImageEntry:
    """The inverse of ``entry_to_json``."""
    return ImageEntry(**json.loads(line))


_FIELDS = tuple(field.name for field in fields(ImageEntry))


class Lines:
    """Lines of text in a file without a name, that goes when this does."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the list
        weakref.finalize(self, self._file.close)
        self._end, self._count = 0, 0
        self._marks = array("q")

    def __len__(self) -> int:
        return self._count

    def add(self, line: str) -> int:
        """Append a line; returns where it begins.

        Raises:
            StorageFull: the folder for temporary files is full.
        """
        place, text = self._end, line.encode() + b"\n"
        if self._count % STRIDE == 0:
            self._marks.append(place)
        try:
            self._file.write(text)
        except OSError as error:
            raise StorageFull(
                f"{tempfile.gettempdir()}: no room for the list of images ({error.strerror}); "
                "free some, or set TMPDIR to another folder"
            ) from error
        self._end, self._count = place + len(text), self._count + 1
        return place

    def descriptor(self) -> int:
        """Of the file, with all that was added in it."""
        self._file.flush()
        return self._file.fileno()

    def after(self, place: int) -> Iterator[bytes]:
        """The line that begins at a place, and all that follow."""
        self._file.flush()
        rest = b""
        while place < self._end:
            block = rest + os.pread(self._file.fileno(), BLOCK_NBYTES, place + len(rest))
            *lines, rest = block.split(b"\n")
            yield from lines
            place += len(block) - len(rest)

    def number(self, index: int) -> bytes:
        """One line, by its number from 0."""
        lines = self.after(self._marks[index // STRIDE])
        for _ in range(index % STRIDE):
            next(lines)
        return next(lines)


class Listing(Sequence[ImageEntry]):
    """Images in order, each name once; and what else was listed, but can't be used."""

    def __init__(self) -> None:
        self._images, self._problems = Lines(), Lines()
        self._names = NameIndex()

    def add(self, entry: ImageEntry) -> ImageEntry | None:
        """Take an image in; where its name is taken, return the image that has it instead."""
        first = self._names.first(entry.name, self._images._end, lambda at: self._at(at).name)
        if first is not None:
            return self._at(first)
        self._images.add(entry_to_json(entry))
        return None

    def seal(self) -> None:
        """Nothing is added any more: forget what names were known by."""
        self._names = NameIndex()

    def descriptor(self) -> int:
        """Of the open file that holds the images as they are now, one a line, as JSON."""
        return self._images.descriptor()

    def note(self, problem: Problem) -> None:
        """Remember what was wrong."""
        self._problems.add(json.dumps(asdict(problem)))

    def _at(self, place: int) -> ImageEntry:
        return entry_from_json(next(self._images.after(place)))

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[ImageEntry]:
        return map(entry_from_json, self._images.after(0))

    @overload
    def __getitem__(self, index: int) -> ImageEntry: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ImageEntry]: ...
    def __getitem__(self, index: int | slice) -> Any:
        """An image by its number."""
        numbers = range(len(self))[index]
        if isinstance(numbers, range):
            return tuple(self[number] for number in numbers)
        return entry_from_json(self._images.number(numbers))

    @property
    def problems(self) -> int:
        """How many there are."""
        return len(self._problems)

    def all_problems(self) -> Iterator[Problem]:
        """All of them, in order."""
        return (Problem(**json.loads(line)) for line in self._problems.after(0))

    def told(self, output: Path | None) -> str:
        """The first problems, a line each; where there are more, also where all of them stand.

        Args:
            output: of the run; the file with all of them is written beside it. None writes none.
        """
        few = [str(one) for one, _ in zip(self.all_problems(), range(MAX_LISTED), strict=False)]
        if self.problems > len(few):
            where = ""
            if output is not None:
                path = output.absolute().with_name(PROBLEM_FILE.format(run=output.name))
                self.write_problems(path)
                where = f"; all of them are in {path}"
            few.append(f"... and {self.problems - len(few)} more{where}")
        return "\n".join(few)

    def write_problems(self, path: Path) -> None:
        """Write all problems to a file, one a line, as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{uuid4().hex}.partial")
        with partial.open("wb") as file:
            file.writelines(line + b"\n" for line in self._problems.after(0))
        partial.replace(path)


def record_skipped(folder: RunFolder, listing: Listing | None) -> None:
    """Write down in the run what was listed and is gone on without; nothing where that is nothing.

    What an earlier list went on without, and this one does not, is forgotten. None is no new list.
    """
    if listing is not None and listing.problems:
        listing.write_problems(folder.skipped)
    elif listing is not None:
        folder.skipped.unlink(missing_ok=True)
