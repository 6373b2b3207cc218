"""Object stores by URI: which one, how it is reached, what its errors mean. Moves no bytes.

Credentials, region and endpoint come from the environment, as the stores' own tools take them. A
request that meets an error of the server (5xx), a silent or a broken connection is tried again with
growing pauses, for ``RETRY_SECONDS`` in all; then the storage counts as gone, which stops a run and
loses nothing.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

from saccade.pipeline.errors import (
    AccessDenied,
    NoSuchObject,
    SourceError,
    StorageGone,
    UsageError,
)

if TYPE_CHECKING:
    from obstore.store import ObjectStore

T = TypeVar("T")

BUCKETS, WEB = ("s3", "gs", "az"), ("https", "http")
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
RETRY_SECONDS = 120.0
"""How long a request is tried again; SACCADE_RETRY_SECONDS says otherwise."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 5.0
MOST_RETRIES = 1000
"""Never reached: the time is the limit."""
SILENT_SECONDS = 20.0
"""How long a connection may say nothing before it is given up and the request tried again."""
CONNECT_SECONDS = 5.0
LONGEST_REQUEST_SECONDS = 600.0
SETTINGS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT", "SACCADE_RETRY_SECONDS")
"""Of the environment; a store that was made with others is made anew."""
ABSENT = ("NoSuchBucket", "NoSuchKey", "ContainerNotFound", "BlobNotFound")
"""Words by which stores say that something is not there, whatever the status."""
PAST_THE_END = "InvalidRange"
BROKEN_OFF = "HTTP error:"
"""What the stores' client says where a connection failed, and not the server behind it."""
LONGEST_REASON = 300
"""Characters of a store's own words in a message."""


def is_remote(uri: str) -> bool:
    """Whether a URI is that of an object store or web server, and not a path."""
    scheme, mark, _ = uri.partition("://")
    return bool(mark) and scheme.lower() in BUCKETS + WEB


def is_web(uri: str) -> bool:
    """Whether a URI is that of a web server, which gives no lists and takes no objects."""
    return uri.partition("://")[0].lower() in WEB


def key_of(uri: str) -> str:
    """A URI without its store: what the object is called there."""
    if is_web(uri):
        return unquote(urlsplit(uri).path).strip("/")
    return uri.partition("://")[2].partition("/")[2].strip("/")


def join(uri: str, *parts: str) -> str:
    """A place below another one; a query (as of signed URLs) stays at the end."""
    path, mark, query = uri.partition("?") if is_web(uri) else (uri, "", "")
    return "/".join([path.rstrip("/"), *(part.strip("/") for part in parts)]) + mark + query


def file_name(uri: str) -> str:
    """The last part of a URI's path."""
    return key_of(uri).rpartition("/")[2]


def store_for(uri: str) -> tuple[ObjectStore, str]:
    """The store of a URI, one per bucket and process, and the key in it.

    Raises:
        UsageError: the extra is not installed, no such scheme, or the store's settings are wrong.
        SourceError: no object can have such a name.
    """
    base, key = _base(uri), key_of(uri)
    if any(part in ("", ".", "..") for part in key.split("/") if key):
        raise SourceError(f"{uri}: a name without empty parts, '.' and '..' expected")
    return _store(os.getpid(), base, _settings()), key


def store_at(uri: str) -> ObjectStore:
    """The store whose root is the place of a URI; raises as ``store_for``."""
    store_for(uri)  # refuses what names no place
    return _store(os.getpid(), uri.rstrip("/"), _settings())


def _settings() -> tuple[str, ...]:
    return tuple(os.environ.get(name, "") for name in SETTINGS)


def _base(uri: str) -> str:
    """The part of a URI that names the store: a bucket, or a server with its query."""
    scheme, _, rest = uri.partition("://")
    if is_web(uri):
        parts = urlsplit(uri)
        if scheme.lower() == "http" and parts.hostname not in LOCAL_HOSTS:
            raise UsageError(f"{uri}: https:// expected; http:// is taken from this machine only")
        return f"{scheme}://{parts.netloc}/" + (f"?{parts.query}" if parts.query else "")
    bucket = rest.partition("/")[0]
    if scheme.lower() not in BUCKETS or not bucket:
        raise UsageError(f"{uri}: s3://BUCKET/KEY, gs://, az:// or https://HOST/PATH expected")
    return f"{scheme.lower()}://{bucket}"


@lru_cache(maxsize=256)
def _store(process: int, base: str, settings: tuple[str, ...]) -> ObjectStore:
    del process  # its connections are no other's
    try:
        from obstore.exceptions import BaseError
        from obstore.store import HTTPStore, from_url
    except ImportError as error:
        raise UsageError(
            f"{base}: object stores need a package more: pip install 'saccade[cloud]'"
        ) from error
    near = urlsplit(base if is_web(base) else settings[0] or settings[1]).hostname in LOCAL_HOSTS
    retries: Any = _retries(_retry_seconds(settings[2]))
    try:
        if is_web(base):
            return HTTPStore(base, client_options=_client(near), retry_config=retries)
        return from_url(base, client_options=_client(near), retry_config=retries)
    except (BaseError, ValueError) as error:  # an account that is missing, a key of no meaning
        raise UsageError(f"{base}: the store can't be set up: {reason(error)}") from error


def _client(near: bool) -> Any:
    """Limits of one connection; without encryption only to this machine."""
    limits = {
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
        "read_timeout": timedelta(seconds=SILENT_SECONDS),
        "timeout": timedelta(seconds=LONGEST_REQUEST_SECONDS),
    }
    return {**limits, "allow_http": True} if near else limits


def _retry_seconds(stated: str) -> float:
    try:
        return max(0.0, float(stated)) if stated else RETRY_SECONDS
    except ValueError:
        raise UsageError(f"SACCADE_RETRY_SECONDS: seconds expected; found {stated!r}") from None


def _retries(seconds: float) -> Mapping[str, Any]:
    pauses = {
        "init_backoff": timedelta(seconds=FIRST_PAUSE_SECONDS),
        "max_backoff": timedelta(seconds=LONGEST_PAUSE_SECONDS),
        "base": 2,
    }
    return {
        "max_retries": MOST_RETRIES,
        "retry_timeout": timedelta(seconds=seconds),
        "backoff": pauses,
    }


def persistently(uri: str, do: Callable[[], T]) -> T:
    """Ask a store, again where an answer broke off; its errors by this package's names.

    The stores' client tries requests again, and most answers that break off; this is for the rest.
    All that is asked here may be asked twice.
    """
    deadline = time.monotonic() + _retry_seconds(os.environ.get("SACCADE_RETRY_SECONDS", ""))
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            with named_errors(uri):
                return do()
        except StorageGone as error:
            broke_off = BROKEN_OFF in str(error.__cause__)
            if not broke_off or time.monotonic() + pause > deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


@contextmanager
def named_errors(uri: str) -> Iterator[None]:
    """What a store says about a place, as one of this package's errors."""
    from obstore import exceptions

    try:
        yield
    except FileNotFoundError as error:
        raise _absent(uri, error) from error
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
        raise AccessDenied(
            f"{uri}: no permission ({reason(error)}); check the credentials in the environment, "
            "and that they are allowed to do this there"
        ) from error
    except exceptions.PreconditionError as error:
        raise SourceError(
            f"{uri}: another object lies there than when it was opened; put the old one back, or "
            "run again with --force"
        ) from error
    except (exceptions.NotSupportedError, exceptions.InvalidPathError) as error:
        raise SourceError(f"{uri}: can't be asked for ({reason(error)})") from error
    except exceptions.BaseError as error:
        raise _unforeseen(uri, error) from error


def _unforeseen(uri: str, error: Exception) -> Exception:
    said = reason(error)
    if any(word in said for word in ABSENT):
        return _absent(uri, error)
    if PAST_THE_END in said:
        return SourceError(f"{uri}: ends before the bytes that were asked for; it was cut short")
    return StorageGone(
        f"{uri}: the store does not answer as it should ({said}); see that it can be reached and "
        "that the credentials are still good, and run the same command: what is done is kept"
    )


def _absent(uri: str, error: Exception) -> NoSuchObject:
    what = "bucket" if "NoSuchBucket" in str(error) else "object"
    return NoSuchObject(f"{uri}: no such {what}; check the name, and the region or endpoint")


def reason(error: Exception) -> str:
    """A store's own words, without the record of its inside."""
    text = str(error).partition("\n\nDebug source")[0]
    found = re.search(r"<Code>(.*?)</Code>\s*<Message>(.*?)</Message>", text, re.DOTALL)
    said = f"{found[1]}: {found[2]}" if found else text
    return " ".join(said.split())[:LONGEST_REASON]
