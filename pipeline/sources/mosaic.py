"""Many files on one grid as one image: mosaics, and stacks of dates whose bands stand side by side.

Level 0 is the union of the files' extents; further levels are those that all files have on a grid
aligned with it. A box is read from the files it touches and from no others. Who wins where files
overlap is a stated rule; it goes by samples, as 'no data' does. Where no file has data the samples
are ``nodata``.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from saccade.pipeline.errors import UnsupportedImage
from saccade.pipeline.geometry import Box, Shape
from saccade.pipeline.georeference import Georeference
from saccade.pipeline.sources.bands import Band, Samples, both, holding_data
from saccade.pipeline.sources.base import Identity, Level, PixelSize
from saccade.pipeline.sources.mosaic_members import MOST_HELD_NBYTES, Open, OpenFiles
from saccade.pipeline.sources.mosaic_parts import (
    Overlap,
    Part,
    PartFacts,
    covered,
    in_order,
    level_of,
    shared_downsamples,
)
from saccade.pipeline.sources.reader import Reader
from saccade.pipeline.sources.tiff_bands import nodata_in


@dataclass(frozen=True, slots=True)
class Composition:
    """What a mosaic is made of."""

    uri: str
    """Of the file that describes it."""
    format: str
    """For people: 'mosaic of 20 files'."""
    files: tuple[PartFacts, ...]
    """Each once."""
    parts: tuple[Part, ...]
    """In the order in which they were listed."""
    shape: Shape
    """Height and width of the whole."""
    georeference: Georeference | None
    """Of the whole."""
    channel_names: tuple[str, ...]
    """Of the whole."""
    described: Identity
    """What tells the description from another one."""
    overlap: Overlap = "first"
    """Who wins where parts overlap."""
    nodata: float | None = None
    """Sample value where no part has data; None takes that of the first part that has one."""
    may_gap: bool = False
    """Whether integers without a ``nodata`` are 0 where there is no part, as in a VRT."""


class MosaicSource(Reader):
    """Parts of many files as one image.

    Raises:
        UnsupportedImage: files of several sample types, or gaps that nothing can stand for.
    """

    def __init__(self, made_of: Composition, open_file: Open) -> None:
        self.uri, self.format = made_of.uri, made_of.format
        self._of = made_of
        self.dtype = _dtype(made_of)
        self.channel_names = made_of.channel_names
        self.channels = len(self.channel_names)
        self.georeference = made_of.georeference
        self.nodata = _nodata(made_of, self.dtype)
        self._bands = tuple(_bands(made_of, self.nodata))
        self._masked = any(one.lacks_data for one in made_of.files)
        self.pixel_size = _pixel_size(made_of)
        self._downsamples = shared_downsamples(made_of.files, made_of.parts, made_of.shape)
        self.levels = tuple(_level(made_of, d) for d in self._downsamples)
        self._ranked = [made_of.parts[i] for i in in_order(made_of.parts, made_of.overlap)]
        self._places = [_places(self._ranked, d) for d in self._downsamples]
        held = sorted((one.held_nbytes for one in made_of.files), reverse=True)
        self.cache_nbytes = max(held[0], min(sum(held), MOST_HELD_NBYTES))
        self._open = OpenFiles(made_of.files, open_file)

    def _decode(self, level: int, box: Box) -> np.ndarray:
        return self._decode_valid(level, box, None).pixels

    def _decode_valid(self, level: int, box: Box, channels: Sequence[int] | None) -> Samples:
        pixels, known = (self._mean if self._of.overlap == "mean" else self._ranking)(level, box)
        by_value = self._valid_of(pixels, None)
        # what a VRT without a nodata leaves out is 0, and counts as data
        samples = Samples(pixels, None if self._gaps_count else both(known, by_value))
        return samples if channels is None else samples.taking(channels)

    @property
    def _gaps_count(self) -> bool:
        return self._of.may_gap and self.nodata is None

    def _ranking(self, level: int, box: Box) -> Samples:
        """Sample by sample, of the first part by rank that has data."""
        out = self._empty(box)
        known = np.zeros(out.shape, bool)
        for part, common, alone in self._touched(level, box):
            inside = (*common.relative_to(box).slices, part.channels)
            wanted = ~known[inside]
            if not wanted.any():
                continue
            pixels, valid = self._read(part, level, common)
            if alone and valid is None and pixels.shape == out.shape:
                return Samples(pixels, None)
            wanted = wanted if valid is None else wanted & valid
            np.copyto(out[inside], pixels, where=wanted)
            known[inside] |= wanted
        return Samples(out, None if known.all() else known)

    def _mean(self, level: int, box: Box) -> Samples:
        """Summed in the order of the list, so that every bit is the same in any box."""
        total = np.zeros((*box.shape, self.channels))
        count = np.zeros(total.shape, np.int32)
        for part, common, _ in self._touched(level, box):
            inside = (*common.relative_to(box).slices, part.channels)
            pixels, valid = self._read(part, level, common)
            total[inside] += pixels if valid is None else np.where(valid, pixels, 0)
            count[inside] += 1 if valid is None else valid
        mean = total / np.maximum(count, 1)
        out, known = self._empty(box), count > 0
        rounded = np.rint(mean) if self.dtype.kind != "f" else mean
        np.copyto(out, rounded.astype(self.dtype), where=known)
        return Samples(out, None if known.all() else known)

    def _empty(self, box: Box) -> np.ndarray:
        fill = 0 if self.nodata is None else self.nodata
        return np.full((*box.shape, self.channels), fill, self.dtype)

    def _touched(self, level: int, box: Box) -> Iterator[tuple[Part, Box, bool]]:
        """Parts that a box touches by rank: what they share, and whether no other one touches it.

        Parts of other channels are others, too: they are laid side by side in one go.
        """
        places = self._places[level]
        hit = np.flatnonzero(_overlapping(places, box))
        for index in hit:
            common = Box(*map(int, places[index])).intersect(box)
            alone = int(_overlapping(places[hit], common).sum()) == 1
            yield self._ranked[index], common, alone

    def _read(self, part: Part, level: int, common: Box) -> Samples:
        """A part's samples of a box of the whole, and which of them hold data."""
        downsample = self._downsamples[level]
        there, file = part.in_file(common, downsample), self._of.files[part.file]
        whole = part.bands == tuple(range(file.channels))
        with self._open.use(part.file) as source:
            index = level_of(file, downsample)
            pixels, valid = source.read_valid(index, there, None if whole else list(part.bands))
        if part.nodata is None or part.nodata == file.nodata:
            return Samples(pixels, valid)
        return Samples(
            pixels, both(valid, holding_data(pixels, [Band("", part.nodata)] * len(part.bands)))
        )

    def identity(self) -> Identity:
        """Of the description and all files: their sizes, the latest time, a hash of hashes."""
        every = (self._of.described, *(one.identity for one in self._of.files))
        digest = hashlib.blake2b(digest_size=16)
        for one in every:
            digest.update(f"{one.nbytes} {one.quick_hash}\n".encode())
        nbytes, newest = sum(one.nbytes for one in every), max(one.modified_ns for one in every)
        return Identity(self.uri, nbytes, newest, digest.hexdigest())

    def close(self) -> None:
        """Close every file; closing twice is allowed."""
        super().close()
        self._open.close()


def _overlapping(places: np.ndarray, box: Box) -> np.ndarray:
    """``(n,)`` bool: which rectangles share a pixel with a box."""
    y0, x0, y1, x1 = places.T
    found: np.ndarray = (y0 < box.y1) & (box.y0 < y1) & (x0 < box.x1) & (box.x0 < x1)
    return found


def _dtype(made_of: Composition) -> np.dtype[Any]:
    first = made_of.files[0]
    for one in made_of.files:
        if one.dtype != first.dtype:
            raise UnsupportedImage(
                f"{one.uri}: {first.dtype} samples expected, as {first.uri} has; found "
                f"{one.dtype}: convert it, as with 'gdal_translate -ot'"
            )
    return first.dtype


def _bands(made_of: Composition, nodata: float | None) -> Iterator[Band]:
    """Of every channel, as the first part that fills it has it; but for its name and nodata."""
    for channel, name in enumerate(made_of.channel_names):
        part = next(p for p in made_of.parts if channel in range(*p.channels.indices(1 << 31)))
        known = made_of.files[part.file].bands[part.bands[channel - part.channel]]
        yield replace(known, name=name, nodata=nodata)


def _nodata(made_of: Composition, dtype: np.dtype[Any]) -> float | None:
    if made_of.nodata is not None and nodata_in(made_of.nodata, dtype) is None:
        raise UnsupportedImage(
            f"{made_of.uri}: a nodata value that {dtype} samples can have expected; found "
            f"{made_of.nodata:g}"
        )
    if made_of.nodata is not None or made_of.may_gap:
        return made_of.nodata
    stated = [part.nodata for part in made_of.parts if part.nodata is not None]
    if stated:
        return stated[0]
    if dtype.kind == "f":
        return math.nan
    if _gapless(made_of):
        return None
    raise UnsupportedImage(
        f"{made_of.uri}: its files leave parts of their common rectangle out, and none states a "
        "value for 'no data'; state one that stands for nothing else, as in 'nodata: 0'"
    )


def _gapless(made_of: Composition) -> bool:
    """Whether every channel is there at every pixel."""
    layers: dict[int, list[Part]] = {}
    for part in made_of.parts:
        layers.setdefault(part.channel, []).append(part)
    return all(covered(parts, made_of.shape) for parts in layers.values())


def _pixel_size(made_of: Composition) -> PixelSize | None:
    """Of the part nearest to the middle: degrees are as wide as they are there."""
    middle = made_of.shape[0] / 2
    nearest = min(made_of.parts, key=lambda p: abs((p.place.y0 + p.place.y1) / 2 - middle))
    return made_of.files[nearest.file].pixel_size


def _level(made_of: Composition, downsample: int) -> Level:
    same = [one.levels[level_of(one, downsample)] for one in made_of.files]
    shape = tuple(-(-side // downsample) for side in made_of.shape)
    tiles, codecs = {level.tile for level in same}, {level.codec for level in same}
    made = {level.resampling for level in same}
    return Level(
        (shape[0], shape[1]),
        float(downsample),
        tiles.pop() if len(tiles) == 1 else None,
        codecs.pop() if len(codecs) == 1 else None,
        made.pop() if len(made) == 1 else None,
    )


def _places(parts: Sequence[Part], downsample: int) -> np.ndarray:
    """``(n, 4)`` int64: boxes of a level."""
    return np.array([part.place_at(downsample).as_tuple() for part in parts], np.int64)
