"""A list of images that stays on disk; an entry is read when it is asked for.

``RUN/images.jsonl`` is such a list, and so is what one call asks for: a private copy in the folder
for temporary files (``TMPDIR``), which no other driver can change under it. What is held in memory
of an image is 24 bytes: where its line begins and ends, and where its name stands.
"""

from __future__ import annotations

import json
import os
import tempfile
import weakref
from array import array
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from uuid import uuid4

import numpy as np

from saccade.jobs.journals.records import named_errors
from saccade.jobs.journals.sharing import Shard
from saccade.jobs.manifests.listing import Listing, entry_from_json, entry_to_json
from saccade.jobs.manifests.manifest import ListOptions, list_images
from saccade.jobs.manifests.names import TOLD, Names, name_hash
from saccade.pipeline.recipe import Recipe
from saccade.workers.tasks import ImageEntry


class _File:
    """A file that is open for reading as long as somebody holds this."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)

    def lines(self) -> Iterator[bytes]:
        """All lines, with their ends; safe to use beside other readers."""
        with open(os.dup(self.descriptor), "rb") as file:  # noqa: PTH123
            file.seek(0)
            yield from file


class Catalogue(Collection[ImageEntry]):
    """Images in order, read back one by one; for one thread."""

    def __init__(self, file: _File, begins: np.ndarray, nbytes: np.ndarray, names: Names) -> None:
        self._file = file
        self._begins = begins
        self._nbytes = nbytes
        self.names = names
        self.listing: Listing | None = None
        """What they were checked in, and what was wrong with others; None of a file."""

    @classmethod
    def spooled(cls, entries: Iterable[ImageEntry]) -> Catalogue:
        """A private list of these, on disk as long as it is held."""
        with tempfile.TemporaryFile() as file:
            for entry in entries:
                file.write(entry_to_json(entry).encode() + b"\n")
            file.flush()
            return cls._indexed(_File(os.dup(file.fileno())))

    @classmethod
    def of(cls, listing: Listing) -> Catalogue:
        """The images of a checked list, where they lie."""
        catalogue = cls._indexed(_File(os.dup(listing.descriptor())))
        catalogue.listing = listing
        return catalogue

    @classmethod
    def opened(cls, path: Path, told: int = TOLD) -> Catalogue:
        """The list in a file as it is now, also where it is replaced later; empty without a file.

        Args:
            path: of the file.
            told: how many of the names are held as text too.

        Raises:
            StoreError: the file can't be read.
        """
        if not path.exists():
            return cls.spooled(())
        with named_errors(path, "list of images"):
            return cls._indexed(_File(os.open(path, os.O_RDONLY | os.O_CLOEXEC)), told)

    @classmethod
    def _indexed(cls, file: _File, told: int = TOLD) -> Catalogue:
        begins, lengths, hashes, first = array("Q"), array("I"), array("Q"), list[str]()
        at = 0
        for line in file.lines():
            if line.strip():
                name = json.loads(line)["name"]
                begins.append(at)
                lengths.append(len(line))
                hashes.append(name_hash(name))
                if len(first) < told:
                    first.append(name)
            at += len(line)
        names = Names(np.frombuffer(hashes, np.uint64), first)
        return cls(file, np.frombuffer(begins, np.uint64), np.frombuffer(lengths, np.uint32), names)

    def __len__(self) -> int:
        return len(self._begins)

    def __iter__(self) -> Iterator[ImageEntry]:
        return map(self.entry, range(len(self)))

    def __contains__(self, entry: object) -> bool:
        place = self.names.place(entry.name) if isinstance(entry, ImageEntry) else None
        return place is not None and self.entry(place) == entry

    def line(self, place: int) -> bytes:
        """As written, with its end."""
        nbytes, begin = int(self._nbytes[place]), int(self._begins[place])
        return os.pread(self._file.descriptor, nbytes, begin).rstrip(b"\r\n") + b"\n"

    def entry(self, place: int) -> ImageEntry:
        """The image at a place."""
        return entry_from_json(self.line(place).decode())

    def listed(self) -> Iterator[str]:
        """The names, in order."""
        return (json.loads(self.line(place))["name"] for place in range(len(self)))

    def part(self, held: np.ndarray) -> Catalogue:
        """Some of the images, in the same order.

        Args:
            held: ``(len,)`` bool; which.
        """
        if held.all():
            return self
        places = np.flatnonzero(held)
        first = [json.loads(self.line(place))["name"] for place in places[:TOLD]]
        names = Names(self.names.hashes()[held], first)
        return Catalogue(self._file, self._begins[held], self._nbytes[held], names)

    def shard(self, shard: Shard) -> Catalogue:
        """The images of one part of the run."""
        return self if shard.whole else self.part(shard.held(self.names.hashes()))

    def named(self, names: Iterable[str]) -> Catalogue:
        """The images of these names, in the order of the list; names that it lacks are left out."""
        held = np.zeros(len(self), bool)
        held[[place for name in names if (place := self.names.place(name)) is not None]] = True
        return self.part(held)

    def merged_into(self, path: Path, known: Catalogue) -> None:
        """Replace a list by its union with this one: what both have is as here, where it was there.

        Args:
            path: of the list; replaced at once, and only where that changes it.
            known: the same list, opened.

        Raises:
            StorageFull: no space is left; what was there before is untouched.
            StoreError: it can't be written for another reason; untouched as well.
        """
        here = self.names.places(known.names)
        new = known.names.places(self.names) < 0
        if new.any() or any(self.line(h) != known.line(k) for k, h in enumerate(here) if h >= 0):
            old = (self.line(h) if h >= 0 else known.line(k) for k, h in enumerate(here))
            _write_lines(path, old, map(self.line, np.flatnonzero(new).tolist()))


def gather(
    images: Iterable[str | Path | ImageEntry],
    recipe: Recipe,
    output: Path | None = None,
    *,
    skip: bool = False,
) -> Catalogue:
    """The images that a call asks for, checked, without holding them.

    Args:
        images: files, folders, globs, URLs, manifests, or entries; a catalogue was gathered before.
        recipe: that they are for.
        output: of the run; where there are many problems, their file is written beside it.
        skip: go on without what can't be used.

    Raises:
        ManifestError: missing files, unreadable rows, names that are doubled or lead astray,
            changes that the recipe can't take.
    """
    if isinstance(images, Catalogue):
        return images
    how = ListOptions(skip=skip)
    return Catalogue.of(list_images(images, output=output, recipe=recipe, options=how))


def _write_lines(path: Path, *parts: Iterable[bytes]) -> None:
    """Replace a file at once: written beside its place, made durable, then renamed."""
    partial = path.with_name(f"{path.name}.{uuid4().hex}.partial")
    with named_errors(path, "list of images"):
        try:
            with partial.open("wb") as file:
                for part in parts:
                    file.writelines(part)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
