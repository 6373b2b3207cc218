"""Where a result's bytes lie: whole objects by key, replaced at once. Knows no array and no image.

A key is a path relative to the result's root, with ``/`` between its parts. Object stores answer
the same questions in ``store_object_shelf``.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar
from uuid import uuid4

from saccade.pipeline.errors import StorageFull, StoreError

if TYPE_CHECKING:
    from zarr.abc.store import Store

T = TypeVar("T")

PARTIAL = ".partial"
"""How the name ends of what is not in place yet."""
FULL = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a full disk and of a used-up quota."""


class Upload(Protocol):
    """An object on its way to its place, a part at a time; for one thread at a time."""

    def append(self, data: bytes) -> None:
        """Take the next part; raises as ``Shelf.put`` does."""
        ...

    def commit(self) -> None:
        """Replace the object at once; raises as ``Shelf.put`` does."""
        ...

    def abandon(self) -> None:
        """Leave nothing behind; gladly also after ``commit``, and twice."""
        ...


class Shelf(Protocol):
    """Whole objects by key. Safe to use from several threads and processes at once."""

    def begin(self, key: str) -> Upload:
        """An object that comes in parts."""
        ...

    def put(self, key: str, data: bytes) -> None:
        """Replace the object at once: a reader meets the old bytes or the new, never a mixture.

        Raises:
            StorageFull: no space is left; what was there before is untouched.
            StoreError: it can't be written for another reason; untouched as well.
        """
        ...

    def get(self, key: str) -> bytes | None:
        """The object's bytes; None where there is none."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object, or all objects below a key; nothing happens where there is none."""
        ...

    def list_keys(self, below: str = "") -> Iterator[str]:
        """Every key below this one, sorted; not what is only partly written."""
        ...

    def sweep_partials(self) -> int:
        """Remove what killed writers left behind; returns how many. Only while nobody writes."""
        ...

    def as_zarr(self) -> Store:
        """The same objects for zarr to read, inside ``asked``."""
        ...

    def asked(self, do: Callable[[], T]) -> T:
        """Read through zarr: a place that does not answer is asked again, and is no damage."""
        ...


class FileUpload:
    """A file that grows beside its place."""

    def __init__(self, path: Path, fsync: bool) -> None:
        """Nothing on the disk yet."""
        self.path, self._fsync = path, fsync
        self._partial = path.with_name(f"{path.name}.{uuid4().hex}{PARTIAL}")
        self._file: FileIO | None = None

    @property
    def begun(self) -> bool:
        """Whether there is a file already."""
        return self._file is not None

    def append(self, data: bytes) -> None:
        """Write the next part."""
        with named_errors(self.path, "written"):
            self._write(data)

    def _write(self, data: bytes) -> None:
        file, rest = self._opened(), memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]

    def _opened(self) -> FileIO:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._partial.open("wb", buffering=0)
        return self._file

    def commit(self) -> None:
        """Rename the file to its place."""
        with named_errors(self.path, "written"):
            with self._opened() as file:
                if self._fsync:
                    os.fsync(file.fileno())
            self._partial.replace(self.path)
            self._file = None  # nothing is left to abandon
            if self._fsync:
                _sync_folder(self.path.parent)

    def abandon(self) -> None:
        """Remove what is not in place."""
        if self._file is not None:
            self._file.close()
            with named_errors(self._partial, "removed"):
                self._partial.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class LocalShelf:
    """A folder of files."""

    root: Path
    """The folder; made when the first object is put into it."""
    fsync: bool = False
    """Whether a file is on the disk, and not only in the system's memory, before it counts."""

    def begin(self, key: str) -> FileUpload:
        """A file beside its place, to be renamed there."""
        return FileUpload(self.root / key, self.fsync)

    def put(self, key: str, data: bytes) -> None:
        """Write a file beside its place, then rename it there."""
        upload = self.begin(key)
        try:
            upload.append(data)
            upload.commit()
        finally:
            upload.abandon()

    def get(self, key: str) -> bytes | None:
        """The file's bytes; None where there is no such file."""
        with named_errors(self.root / key, "read"):
            try:
                return (self.root / key).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def delete(self, key: str) -> None:
        """Remove a file, or a folder with all it holds: gone at once, and then cleared away."""
        path = self.root / key
        with named_errors(path, "removed"):
            if not path.is_dir():
                path.unlink(missing_ok=True)
                return
            aside = path.with_name(f"{path.name}.{uuid4().hex}{PARTIAL}")
            try:
                path.rename(aside)
            except FileNotFoundError:  # removed by another writer
                return
            shutil.rmtree(aside)

    def list_keys(self, below: str = "") -> Iterator[str]:
        """Every file below a key, sorted."""
        paths = (path for path in (self.root / below).rglob("*") if path.is_file())
        names = sorted(path.relative_to(self.root).as_posix() for path in paths)
        return (name for name in names if PARTIAL not in name)

    def sweep_partials(self) -> int:
        """Remove files and folders that killed writers left behind."""
        partials = sorted(self.root.rglob(f"*{PARTIAL}"))
        for partial in partials:
            with named_errors(partial, "removed"):
                if partial.is_dir():
                    shutil.rmtree(partial)
                else:
                    partial.unlink(missing_ok=True)
        return len(partials)

    def as_zarr(self) -> Store:
        """The folder as a store that only reads."""
        from zarr.storage import LocalStore

        return LocalStore(self.root, read_only=True)

    def asked(self, do: Callable[[], T]) -> T:
        """Read; a folder's own errors say what is the matter."""
        return do()


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut: the name lives in the folder, not in the file."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def named_errors(path: Path, done: str) -> Iterator[None]:
    """What the system says about a path, as one of this package's errors."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StorageFull(
                f"{path}: no space is left ({error.strerror}); free some, or move the run folder "
                "to a larger disk, and run the same command again: what is done is kept"
            ) from error
        raise StoreError(
            f"{path}: can't be {done} ({error.strerror or error}); check that the disk is there "
            "and that the folder may be written, and run the same command again"
        ) from error
