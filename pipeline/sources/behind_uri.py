"""Opening an image in an object store the way a copy of it on a disk would be opened.

A zarr is read chunk by chunk and a TIFF by ranges of bytes. Whatever has to be read by a library
that wants a file, or that only a look at the whole file can tell from such, is copied to the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np

from saccade.pipeline.errors import (
    BrokenImage,
    NoSuchObject,
    ReadError,
    SourceError,
    UnsupportedImage,
)
from saccade.pipeline.geometry import Box
from saccade.pipeline.remote_stores import file_name
from saccade.pipeline.sources.bands import Samples
from saccade.pipeline.sources.base import Identity, Source
from saccade.pipeline.sources.byte_source import RemoteBytes
from saccade.pipeline.sources.file_cache import Held, hold
from saccade.pipeline.sources.identities import is_remote_zarr
from saccade.pipeline.sources.reader import Reader

TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
IN_SEVERAL_FILES = frozenset({".dcm", ".vms", ".vmu"})
"""Slides whose files don't say where the others are but by lying in one folder."""
OpenPath = Callable[[Path], Source]
Got = TypeVar("Got")


def open_behind_uri(uri: str, open_path: OpenPath) -> Source:
    """Open an image lazily; ``open_path`` opens a copy of it on a disk.

    Raises:
        SourceError: nothing lies there, or no permission to read it.
        UnsupportedImage: no reader for it, or none that could read it from there.
        BrokenImage: a known format, but damaged.
        StorageGone: the object store does not answer.
    """
    if PurePosixPath(file_name(uri)).suffix.lower() == ".zarr":
        return _open_zarr(uri)
    try:
        data = RemoteBytes(uri)
    except NoSuchObject:
        if is_remote_zarr(uri):
            return _open_zarr(uri)
        raise
    if data.read(0, 4) in TIFFS and (source := _by_ranges(data)) is not None:
        return source
    return _copied(data, open_path)


def _open_zarr(uri: str) -> Source:
    from saccade.pipeline.sources.zarr import ZarrSource

    return ZarrSource(uri)


def _by_ranges(data: RemoteBytes) -> Source | None:
    """A TIFF read straight from the store, where its copy would be read by the same reader."""
    from saccade.pipeline.sources.tiff import TiffSource

    try:
        source = TiffSource(data)
    except (UnsupportedImage, BrokenImage):
        return None  # OpenSlide may be able to, and says what is wrong otherwise
    if source.vendor is None or (source.vendor == "aperio" and source.as_slide):
        return source
    source.close()
    return None


def _copied(data: RemoteBytes, open_path: OpenPath) -> Source:
    if (suffix := PurePosixPath(file_name(data.name)).suffix.lower()) in IN_SEVERAL_FILES:
        raise UnsupportedImage(
            f"{data.name}: a {suffix} slide lies in several files that only OpenSlide finds; copy "
            "its folder to a disk and name it there"
        )
    held = hold(data.name, data.facts)
    try:
        return CopiedSource(data, held, open_path(held.path))
    except SourceError as error:
        held.release()
        raise type(error)(_renamed(error, held, data.name)) from error
    except BaseException:
        held.release()
        raise


class CopiedSource(Reader):
    """An image of an object store, read from its copy in the cache; goes by its own name."""

    def __init__(self, data: RemoteBytes, held: Held, copy: Source) -> None:
        self.uri, self.format = data.name, copy.format
        self.levels, self.channels, self.channel_names = (
            copy.levels,
            copy.channels,
            copy.channel_names,
        )
        self.dtype, self.pixel_size, self.nodata = copy.dtype, copy.pixel_size, copy.nodata
        self.georeference, self.palette, self._bands = copy.georeference, copy.palette, copy.bands
        self.is_raster, self.notes = copy.is_raster, copy.notes
        self._masked, self.cache_nbytes = copy.lacks_data, copy.cache_nbytes
        self._data, self._held, self._copy = data, held, copy

    def _decode(self, level: int, box: Box) -> np.ndarray:
        return self._renaming(lambda: self._copy.read(level, box))

    def _decode_valid(self, level: int, box: Box, channels: Sequence[int] | None) -> Samples:
        return self._renaming(lambda: self._copy.read_valid(level, box, channels))

    def _renaming(self, read: Callable[[], Got]) -> Got:
        try:
            return read()
        except ReadError as error:
            raise ReadError(_renamed(error, self._held, self.uri)) from error

    def identity(self) -> Identity:
        """Of the object, not of its copy."""
        return self._data.identity()

    def close(self) -> None:
        """Release the copy, which may then be evicted; closing twice is allowed."""
        super().close()
        self._copy.close()
        self._held.release()


def _renamed(error: SourceError, held: Held, uri: str) -> str:
    return str(error).replace(str(held.path), uri)
