"""Copies of whole files from object stores, for readers that need a file. Bounded in bytes.

    ~/.cache/saccade/images/      SACCADE_CACHE names another folder, SACCADE_CACHE_SIZE the bound
      DIGEST/NAME.ndpi            a copy, whole: it appeared by one rename
      DIGEST.partial/             a copy on its way; its files have their full size from the start
      DIGEST.lock                 shared by who uses the copy, held alone by who makes or evicts it
      .lock                       held by who makes room

The digest is of the object's URI and ETag, so that a replaced object is another copy. Copies that
were not opened for longest leave first; one that is in use stays. Locks are the system's (flock):
they end with their process, however it ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from saccade.pipeline import remote
from saccade.pipeline.errors import SourceError, StoreError, UsageError
from saccade.pipeline.remote import RemoteFacts
from saccade.pipeline.remote_stores import file_name, is_web, join
from saccade.pipeline.store_shelf import named_errors

DEFAULT_NBYTES = 20 * 10**9
PIECE_NBYTES = 8 << 20
"""Of one request; several are on their way at once."""
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
PARTIAL, LOCK = ".partial", ".lock"


@dataclass
class Held:
    """A copy that is in use: it stays until it is released."""

    path: Path
    """The file."""
    _lock: int = field(repr=False)
    """Descriptor of the lock that is shared."""

    def release(self) -> None:
        """Let the copy be evicted when room is needed; releasing twice is allowed."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)


def cache_root() -> Path:
    """Where this user's copies lie.

    Raises:
        UsageError: a user without a home.
    """
    if named := os.environ.get("SACCADE_CACHE"):
        return Path(named).absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    home = Path(base) if base else Path("~/.cache").expanduser()
    if not home.is_absolute():
        raise UsageError("no home to keep copies of images in; name a folder in SACCADE_CACHE")
    return home / "saccade" / "images"


def bound_nbytes() -> int:
    """What all copies together may take.

    Raises:
        UsageError: SACCADE_CACHE_SIZE is no size.
    """
    text = os.environ.get("SACCADE_CACHE_SIZE", "").strip().upper().removesuffix("B")
    if not text:
        return DEFAULT_NBYTES
    number, unit = (text[:-1], text[-1]) if text[-1] in UNITS else (text, "")
    try:
        return round(float(number) * UNITS[unit])
    except ValueError:
        raise UsageError(
            f"SACCADE_CACHE_SIZE: a size like '50GB' expected; found {text!r}"
        ) from None


def hold(uri: str, facts: RemoteFacts) -> Held:
    """A copy of an object, made now unless there is one; by one process, others wait for it.

    Raises:
        SourceError: larger than the cache may be; or as ``remote.read_range``.
        StoreError: no room, because all other copies are in use.
        StorageFull: no space on the disk.
        StorageGone: the store does not answer.
    """
    root, digest = cache_root(), _digest(uri, facts)
    with named_errors(root, "made"):
        root.mkdir(parents=True, exist_ok=True)
    lock = _lock(root / f"{digest}{LOCK}", fcntl.LOCK_SH)
    try:
        place = root / digest / file_name(uri)
        if not place.exists():
            fcntl.flock(lock, fcntl.LOCK_EX)  # not at once: somebody else may be first
            if not place.exists():
                _copy(uri, facts, root, digest)
            fcntl.flock(lock, fcntl.LOCK_SH)
        os.utime(root / digest)
        return Held(place, lock)
    except FileNotFoundError:
        os.close(lock)
        return hold(uri, facts)  # evicted between two locks
    except BaseException:
        os.close(lock)
        raise


def _digest(uri: str, facts: RemoteFacts) -> str:
    named = f"{uri} {facts.nbytes} {facts.etag or facts.modified} {facts.version}"
    return hashlib.blake2b(named.encode(), digest_size=16).hexdigest()


def _lock(path: Path, how: int) -> int:
    """The descriptor of a lock, once it is held."""
    with named_errors(path, "locked"):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, how)
        except BaseException:
            os.close(descriptor)
            raise
    return descriptor


# ---------------------------------------------------------------------------------------- copying


def _copy(uri: str, facts: RemoteFacts, root: Path, digest: str) -> None:
    files = {file_name(uri): (uri, facts)} | _companions(uri)
    partial = root / f"{digest}{PARTIAL}"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with _alone(root):
            _make_room(root, uri, sum(facts.nbytes for _, facts in files.values()))
            _claim(partial, files)
        for name, (place, of) in files.items():
            _download(place, of, partial / name)
        with named_errors(partial, "put into place"):
            partial.rename(root / digest)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _companions(uri: str) -> dict[str, tuple[str, RemoteFacts]]:
    """Other files of a slide, by their place beside it: a MIRAX slide has a folder of its name."""
    name = PurePosixPath(file_name(uri))
    if name.suffix.lower() != ".mrxs":
        return {}
    if is_web(uri):
        raise SourceError(f"{uri}: its folder {name.stem} can't be listed; copy both to a disk")
    folder = f"{uri.removesuffix(name.name)}{name.stem}"
    listed = remote.list_below(folder)
    return {f"{name.stem}/{key}": (join(folder, key), facts) for key, facts in listed}


def _claim(partial: Path, files: Mapping[str, tuple[str, RemoteFacts]]) -> None:
    """Empty files of full size: what others count when they make room."""
    for name, (_, facts) in files.items():
        path = partial / name
        with named_errors(path, "written"):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.truncate(facts.nbytes)


def _download(uri: str, facts: RemoteFacts, path: Path) -> None:
    """Fill a file of full size, piece by piece; a piece that is missing is an error."""
    with path.open("r+b") as file:

        def fetch(start: int) -> None:
            length = min(PIECE_NBYTES, facts.nbytes - start)
            data = remote.read_range(uri, start, length, etag=facts.strong_etag)
            if len(data) != length:
                raise SourceError(f"{uri}: {length} bytes at {start} expected, found {len(data)}")
            with named_errors(path, "written"):
                os.pwrite(file.fileno(), data, start)

        remote.at_once(fetch, range(0, facts.nbytes, PIECE_NBYTES))


# --------------------------------------------------------------------------------------- evicting


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Only one process makes room at a time."""
    lock = _lock(root / LOCK, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(lock)


def _make_room(root: Path, uri: str, nbytes: int) -> None:
    bound = bound_nbytes()
    if nbytes > bound:
        raise SourceError(
            f"{uri}: {nbytes} bytes, more than all copies of images may take ({bound}); raise "
            "SACCADE_CACHE_SIZE, or copy it to a disk and name it there"
        )
    entries = sorted(_entries(root), key=lambda entry: entry.stat().st_mtime_ns)
    sizes = {entry: _nbytes(entry) for entry in entries}
    taken = sum(sizes.values())
    for entry in entries:
        if taken + nbytes > bound and _evicted(root, entry):
            taken -= sizes[entry]
    if taken + nbytes > bound:
        raise StoreError(
            f"{root}: no room for {nbytes} bytes of {uri}: images in use take {taken} of {bound}; "
            "raise SACCADE_CACHE_SIZE, or open fewer images at once"
        )


def _entries(root: Path) -> Iterator[Path]:
    return (path for path in root.iterdir() if path.is_dir())


def _nbytes(entry: Path) -> int:
    return sum(path.stat().st_size for path in entry.rglob("*") if path.is_file())


def _evicted(root: Path, entry: Path) -> bool:
    """Remove a copy, or what a killed process left of one; not what somebody holds."""
    descriptor = os.open(root / f"{entry.name.removesuffix(PARTIAL)}{LOCK}", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(entry, ignore_errors=True)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
