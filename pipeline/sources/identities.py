"""Whether an image is still the one that a run was made from; of objects in stores too."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from saccade.pipeline import remote
from saccade.pipeline.errors import AccessDenied, NoSuchObject, SourceError
from saccade.pipeline.remote import RemoteFacts
from saccade.pipeline.sources.base import QUICK_HASH_BYTES, Identity, with_overviews
from saccade.pipeline.sources.suffixes import MOSAICS, VRT

ZARR_DOCUMENTS = ("zarr.json", ".zgroup", ".zarray")
"""One of them lies at the root of every zarr array and group."""


def object_identity(
    uri: str, facts: RemoteFacts, read: Callable[[int, int], bytes] | None = None
) -> Identity:
    """Size and date of an object, and a hash of its ETag and version.

    Args:
        uri: of the object.
        facts: what the store says of it.
        read: gives some of its bytes, for a store that gives neither ETag nor date.
    """
    digest = hashlib.blake2b(
        f"{facts.nbytes} {facts.etag} {facts.version}".encode(), digest_size=16
    )
    if facts.etag is None:
        digest.update(str(facts.modified).encode())
        if facts.modified is None and read is not None:
            for start in (0, facts.nbytes // 2, max(0, facts.nbytes - QUICK_HASH_BYTES)):
                digest.update(read(start, QUICK_HASH_BYTES))
    return Identity(uri, facts.nbytes, _nanoseconds(facts), digest.hexdigest())


def objects_identity(uri: str, objects: Iterable[tuple[str, RemoteFacts]]) -> Identity:
    """Of an image that is many objects: all their names, sizes and ETags."""
    digest, nbytes, newest = hashlib.blake2b(digest_size=16), 0, 0
    for key, facts in sorted(objects, key=lambda one: one[0]):
        digest.update(f"{key} {facts.nbytes} {facts.etag} {facts.version}\n".encode())
        nbytes += facts.nbytes
        newest = max(newest, _nanoseconds(facts))
    return Identity(uri, nbytes, newest, digest.hexdigest())


def _nanoseconds(facts: RemoteFacts) -> int:
    return 0 if facts.modified is None else round(facts.modified.timestamp() * 1e9)


def moved_on(then: Identity, uri: str) -> str:
    """How an image differs from what it was, without opening it; empty where it does not.

    Folders and zarr stores are not looked into: they are when they are opened.

    Raises:
        StorageGone: the object store does not answer.
    """
    if remote.is_remote(uri):
        return _object_moved_on(then, uri)
    path = Path(uri)
    if path.is_dir():
        return ""
    try:
        files = [one for file in (path, *described_files(path)) for one in with_overviews(file)]
        stats = [one.stat() for one in files]
    except OSError as error:
        return f"{error.filename or uri} can't be read ({error.strerror})"
    except SourceError as error:
        return str(error)
    nbytes = sum(stat.st_size for stat in stats)
    if nbytes != then.nbytes:
        return f"{uri} was {then.nbytes} bytes, is {nbytes}"
    newest = max(stat.st_mtime_ns for stat in stats)
    return "" if newest == then.modified_ns else f"{uri} was modified since"


def described_files(path: Path) -> list[Path]:
    """Files on this disk that an image is made of beside its own, where it is a mosaic of them.

    Raises:
        SourceError: the description can't be understood.
    """
    name = path.name.lower()
    if name.endswith(MOSAICS):
        from saccade.pipeline.sources.mosaic_file import local_files

        return local_files(path)
    if name.endswith(VRT):
        from saccade.pipeline.sources import mosaic_vrt

        return mosaic_vrt.local_files(path)
    return []


def _object_moved_on(then: Identity, uri: str) -> str:
    try:
        facts = remote.head(uri)
    except NoSuchObject as error:
        return "" if is_remote_zarr(uri) else str(error)
    except AccessDenied as error:
        return str(error)
    if facts.nbytes != then.nbytes:
        return f"{uri} was {then.nbytes} bytes, is {facts.nbytes}"
    named = facts.etag is not None or facts.modified is not None
    same = not named or object_identity(uri, facts).quick_hash == then.quick_hash
    return "" if same else f"{uri} was replaced since (its ETag is another one)"


def is_remote_zarr(uri: str) -> bool:
    """Whether a zarr array or group lies behind a URI.

    Raises:
        StorageGone: the object store does not answer.
    """

    def lies_there(name: str) -> bool:
        try:
            remote.head(remote.join(uri, name))
        except (NoSuchObject, AccessDenied):
            return False
        return True

    return any(remote.at_once(lies_there, ZARR_DOCUMENTS))
