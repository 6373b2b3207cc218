"""A result's bytes in an object store: the same questions as of a folder, answered by requests.

Putting an object there replaces it at once, and what a killed writer had not sent whole is not
there at all. Whatever the store refuses stops the run: no other image would fare better.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from saccade.pipeline import remote
from saccade.pipeline.errors import NoSuchObject, SourceError, StorageGone, StoreError
from saccade.pipeline.remote_stores import join, persistently, store_at
from saccade.pipeline.store_shelf import LocalShelf, Shelf

if TYPE_CHECKING:
    from zarr.abc.store import Store

T = TypeVar("T")

ROOT_DOCUMENT = "zarr.json"
Where = Path | str
"""A folder, or a URI in an object store."""


class ObjectUpload:
    """Parts that are kept until one request puts them all there."""

    def __init__(self, shelf: ObjectShelf, key: str) -> None:
        """Nothing kept yet."""
        self._shelf, self._key = shelf, key
        self._parts: list[bytes] = []

    def append(self, data: bytes) -> None:
        """Keep the next part."""
        self._parts.append(data)

    def commit(self) -> None:
        """Put the object there."""
        self._shelf.put(self._key, b"".join(self._parts))
        self._parts.clear()

    def abandon(self) -> None:
        """Forget the parts."""
        self._parts.clear()


@dataclass(frozen=True, slots=True)
class ObjectShelf:
    """Everything below one URI."""

    root: str
    """The URI, without a slash at its end."""

    def begin(self, key: str) -> ObjectUpload:
        """An object that comes in parts, and goes in one request."""
        return ObjectUpload(self, key)

    def put(self, key: str, data: bytes) -> None:
        """Put the object there with one request."""
        with _named(self.root):
            remote.put_whole(join(self.root, key), data)

    def get(self, key: str) -> bytes | None:
        """The object's bytes; None where there is none."""
        with _named(self.root):
            try:
                return remote.get_whole(join(self.root, key))
            except NoSuchObject:
                return None

    def delete(self, key: str) -> None:
        """Remove an object and all below it; what names arrays and groups first."""
        place = join(self.root, key) if key else self.root
        with _named(self.root):
            below = sorted(name for name, _ in remote.list_below(place))
            documents = [name for name in below if name.rpartition("/")[2] == ROOT_DOCUMENT]
            remote.delete(place, documents)
            remote.delete(place, ["", *(name for name in below if name not in set(documents))])

    def list_keys(self, below: str = "") -> Iterator[str]:
        """Every key below a key, sorted."""
        place = join(self.root, below) if below else self.root
        with _named(self.root):
            names = sorted(name for name, _ in remote.list_below(place))
        return (f"{below}/{name}" if below else name for name in names)

    def sweep_partials(self) -> int:
        """Nothing is ever left: an object is there whole or not at all."""
        return 0

    def as_zarr(self) -> Store:
        """The same objects, for reading inside ``asked``."""
        from zarr.storage import ObjectStore

        return ObjectStore(store_at(self.root), read_only=True)

    def asked(self, do: Callable[[], T]) -> T:
        """Read through zarr; what the store says goes by this package's names."""
        with _named(self.root):
            return persistently(self.root, do)


@contextmanager
def _named(root: str) -> Iterator[None]:
    """A result's place that refuses is the whole run's trouble, and not one image's."""
    try:
        yield
    except NoSuchObject as error:
        raise StoreError(str(error)) from error
    except SourceError as error:
        raise StorageGone(
            f"{error}; results go to {root}: see that they may, and run the same command: what is "
            "done is kept"
        ) from error


def shelf_for(where: Where, *, fsync: bool = False) -> Shelf:
    """The shelf of a result: of a folder, or behind a URI."""
    if remote.is_remote(str(where)):
        return ObjectShelf(str(where).rstrip("/"))
    return LocalShelf(Path(where), fsync)


def below(where: Where, name: str) -> Where:
    """A place below another one."""
    return join(where, name) if isinstance(where, str) else where / name


def check_writable(uri: str) -> None:
    """Put a small object there and remove it again.

    Raises:
        StoreError: no such bucket.
        StorageGone: it may not be written, or the store does not answer.
    """
    shelf = ObjectShelf(uri)
    shelf.put(".saccade-was-here", b"")
    with _named(uri):
        remote.delete(join(uri, ".saccade-was-here"))
