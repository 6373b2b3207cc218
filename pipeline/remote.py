"""Objects behind ``s3://``, ``gs://``, ``az://``, ``https://``: facts, ranges, lists, all of them.

Every request is tried again as ``remote_stores`` says. Knows no image and no result.

A process that forks after its first request can't make another one: start processes afresh.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

from saccade.pipeline.errors import NoSuchObject, SourceError
from saccade.pipeline.remote_stores import is_remote, is_web, join, persistently, store_for

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

__all__ = ["is_remote", "join", "store_for"]

MOST_REQUESTS = 16
"""Requests of one process for parts of objects at the same time."""
GAP_NBYTES = 64 << 10
"""What lies between two ranges is fetched with them up to here: cheaper than another request."""
LARGEST_REQUEST_NBYTES = 8 << 20
"""Neighbouring ranges are fetched together up to here."""

Range = tuple[int, int]
"""First byte and how many."""
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class RemoteFacts:
    """What a store says of an object."""

    nbytes: int
    """Its size."""
    etag: str | None
    """The store's name for these very bytes; None where it gives none."""
    modified: datetime | None
    """When it was put there; None where the store does not say."""
    version: str | None = None
    """Which of several versions it is, in buckets that keep them."""

    @classmethod
    def of(cls, meta: ObjectMeta) -> RemoteFacts:
        """From what a store answers; a date at the beginning of time stands for none."""
        modified = meta["last_modified"]
        known = modified if modified.timestamp() > 0 else None
        return cls(meta["size"], meta["e_tag"], known, meta["version"])

    @property
    def strong_etag(self) -> str | None:
        """The ETag where it stands for the bytes exactly; by a weak one nothing can be asked."""
        return None if self.etag is None or self.etag.startswith("W/") else self.etag


def head(uri: str) -> RemoteFacts:
    """Size, ETag and date of an object.

    Raises:
        NoSuchObject: no object, or no bucket.
        AccessDenied: no permission to read it.
        StorageGone: the store does not answer.
    """
    store, key = store_for(uri)
    return persistently(uri, lambda: RemoteFacts.of(store.head(key)))


def get_whole(uri: str) -> bytes:
    """All bytes of an object; raises as ``head`` does."""
    store, key = store_for(uri)
    return persistently(uri, lambda: bytes(store.get(key).bytes()))


def read_range(uri: str, start: int, length: int, *, etag: str | None = None) -> bytes:
    """Some bytes of an object.

    Args:
        uri: of the object.
        start: first byte.
        length: how many, 1 or more; fewer come back where the object ends before.
        etag: of the object that is meant; another one in its place is an error.

    Raises:
        SourceError: as ``head``; or the object was replaced, or ends before ``start``.
        StorageGone: the store does not answer.
    """
    store, key = store_for(uri)
    options: Any = {"range": (start, start + length)}
    if etag is not None:
        options["if_match"] = etag
    return persistently(uri, lambda: bytes(store.get(key, options=options).bytes()))


def read_ranges(uri: str, ranges: Sequence[Range], *, etag: str | None = None) -> list[bytes]:
    """Several parts of an object, near ones with one request; in the order given.

    Raises:
        SourceError: as ``read_range``.
        StorageGone: the store does not answer.
    """
    spans = coalesced(ranges)
    parts = at_once(lambda span: read_range(uri, *span, etag=etag), spans)
    found: dict[Range, bytes] = {}
    waiting = sorted(set(ranges), reverse=True)
    for (start, length), data in zip(spans, parts, strict=True):
        while waiting and sum(waiting[-1]) <= start + length:
            one = waiting.pop()
            found[one] = data[one[0] - start : sum(one) - start]
    return [found[one] for one in ranges]


def coalesced(
    ranges: Sequence[Range],
    gap_nbytes: int = GAP_NBYTES,
    largest_nbytes: int = LARGEST_REQUEST_NBYTES,
) -> list[Range]:
    """The spans to ask for, sorted by start and by end: each range lies wholly in one of them."""
    spans: list[Range] = []
    for start, length in sorted(ranges):
        if spans:
            first, end = spans[-1][0], sum(spans[-1])
            joined = max(end, start + length) - first
            if joined <= end - first or (start <= end + gap_nbytes and joined <= largest_nbytes):
                spans[-1] = (first, joined)
                continue
        spans.append((start, length))
    return spans


def at_once(do: Callable[[T], R], things: Sequence[T]) -> list[R]:
    """The answers to several requests, ``MOST_REQUESTS`` of this process at a time."""
    if len(things) <= 1:
        return [do(thing) for thing in things]
    asked = [_requests(os.getpid()).submit(do, thing) for thing in things]
    try:
        return [one.result() for one in asked]
    finally:
        # also after an error nothing goes on behind the caller's back
        for one in asked:
            one.cancel()
        wait(asked)


@cache
def _requests(process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(MOST_REQUESTS, f"requests of {process}")


def put_whole(uri: str, data: bytes) -> None:
    """Put an object into its place at once: a reader meets the old bytes or the new.

    Raises:
        NoSuchObject: no such bucket.
        AccessDenied: no permission to write there.
        StorageGone: the store does not answer.
    """
    store, key = store_for(uri)
    # one request: the parts of an upload that is cut short would stay in the bucket unseen
    persistently(uri, lambda: store.put(key, data, use_multipart=False))


def delete(uri: str, keys: Sequence[str] = ("",)) -> None:
    """Remove an object, or those of these names below it; gladly also what is not there."""
    store, key = store_for(uri)
    paths = [f"{key}/{one}".strip("/") for one in keys]
    try:
        persistently(uri, lambda: store.delete(paths))
    except NoSuchObject:  # some stores stop at the first that is not there
        for path in paths:
            with suppress(NoSuchObject):
                persistently(uri, partial(store.delete, path))


def list_below(uri: str) -> Iterator[tuple[str, RemoteFacts]]:
    """Key, relative to the URI, and facts of every object below it, in no order.

    Raises:
        SourceError: no such bucket, or no permission to list it; web servers give no lists.
        StorageGone: the store does not answer.
    """
    store, prefix = _listable(uri)
    for batch in _batches(uri, store, prefix or None):
        for meta in batch:
            yield meta["path"][len(prefix) :].lstrip("/"), RemoteFacts.of(meta)


def _batches(uri: str, store: ObjectStore, prefix: str | None) -> Iterator[Sequence[ObjectMeta]]:
    """A list batch by batch; one that broke off goes on after the last name that was given."""
    last: str | None = None
    batches = store.list(prefix)

    def following() -> Sequence[ObjectMeta]:
        nonlocal batches
        try:
            return next(batches, ())
        except Exception:
            batches = store.list(prefix, offset=last)
            raise

    while batch := persistently(uri, following):
        last = batch[-1]["path"]
        yield batch


def list_folders(uri: str) -> list[str]:
    """Names of what looks like folders right below a URI, sorted; raises as ``list_below``."""
    store, prefix = _listable(uri)
    listed = persistently(uri, lambda: store.list_with_delimiter(prefix or None))
    return sorted(one.rstrip("/").rpartition("/")[2] for one in listed["common_prefixes"])


def _listable(uri: str) -> tuple[ObjectStore, str]:
    if is_web(uri):
        raise SourceError(f"{uri}: web servers give no lists; name every file, in a manifest")
    return store_for(uri)
