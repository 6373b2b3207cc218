"""The TIFF family: TIFF, BigTIFF, OME-TIFF, GeoTIFF and COG, Aperio SVS. Knows no OpenSlide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tifffile import TiffFile, TiffPage

from saccade.pipeline.geometry import Box
from saccade.pipeline.sources import (
    tiff_bands,
    tiff_crs,
    tiff_geo,
    tiff_masks,
    tiff_tags,
    tiff_vendors,
)
from saccade.pipeline.sources.base import Identity, Level, with_overviews
from saccade.pipeline.sources.byte_source import ByteSource, LocalBytes
from saccade.pipeline.sources.ground_size import mercator_notes, size_on_ground
from saccade.pipeline.sources.ome import OmeXml
from saccade.pipeline.sources.reader import (
    RPC_NOTE,
    Reader,
    colour_names,
    distinct,
    level_of,
    native,
    opening,
)
from saccade.pipeline.sources.tiff_levels import Planes, find_levels
from saccade.pipeline.sources.tiff_overviews import find_overviews
from saccade.pipeline.sources.tiff_segments import Segments
from saccade.pipeline.sources.tile_cache import TileCache, cache_limit

GDAL_TAGS = (tiff_bands.GDAL_METADATA, tiff_bands.GDAL_NODATA)
DIRECT_CODECS = frozenset({"JPEG", "APERIO_JP2000_RGB"})
"""Compressions of Aperio tiles that decode to the same bytes with and without OpenSlide."""


class TiffSource(Reader):
    """A TIFF, read tile by tile straight from the file; the tiles decoded last are kept.

    The file is a path, or bytes that lie elsewhere: behind a URI, asked for by ranges.

    Samples are handed out as stored: a palette as its index, orientation tags not applied, min-is-
    white not inverted. JPEG's YCbCr becomes RGB. Tiles that the file leaves out hold ``nodata``,
    or 0 where it states none. A fourth channel is an alpha only where ExtraSamples says so. A
    level without a mask of its own has that of level 0. A file on this disk that holds no reduced
    images has those of ``NAME.ovr`` beside it, as GDAL has it.

    Raises:
        BrokenImage: the directories are damaged.
        UnsupportedImage: no decoder, or more than one picture (z, t).
    """

    def __init__(self, place: Path | ByteSource) -> None:
        self.uri = str(place) if isinstance(place, Path) else place.name
        with opening(self.uri, "TIFF"):
            self._file = LocalBytes(place) if isinstance(place, Path) else place
            self._beside: ByteSource | None = None
            try:
                with self._file.as_file() as file, TiffFile(file, name=self.uri) as tif:
                    self._describe(tif)
            except BaseException:
                self._close_files()
                raise

    def _add_overviews(self, first: TiffPage) -> None:
        """Levels from the file of overviews beside this one."""
        path = with_overviews(Path(self.uri))[-1]
        self._beside = beside = LocalBytes(path)
        with (
            opening(str(path), "TIFF of overviews"),
            beside.as_file() as file,
            TiffFile(file, name=str(path)) as tif,
        ):
            for page, made in find_overviews(tif, str(path), first):
                segments = Segments(page, beside, self.dtype, self.nodata or 0)
                full = self.levels[0].shape
                level = level_of(full, segments.shape, segments.tile, segments.codec, made)
                self._segments.append((segments,))
                self.levels = (*self.levels, level)

    def _describe(self, tif: TiffFile) -> None:
        ome = OmeXml.parse(tif.ome_metadata, self.uri) if tif.is_ome else None
        planes = find_levels(tif, self.uri, ome)
        first = planes[0][0]
        self.format = _format(tif)
        self.is_raster = tif.is_geotiff or any(one in first.tags for one in GDAL_TAGS)
        self._read_tags(first, planes[0], ome)
        self._segments = [tuple(self._open_page(page) for page in level) for level in planes]
        self.levels = _levels([level[0] for level in self._segments], _resamplings(planes))
        alone = len(planes) == 1 and len(planes[0]) == 1 and isinstance(self._file, LocalBytes)
        if alone and len(with_overviews(Path(self.uri))) > 1:
            self._add_overviews(first)
        shapes = [one.shape for one in self.levels]
        self._masks = tiff_masks.Masks.of(tif, shapes, self._file)
        self._masked = self._masks is not None
        largest = max(s.cached_nbytes for level in self._segments for s in level)
        self.cache_nbytes = cache_limit(largest)
        self._cache = TileCache(self.cache_nbytes)
        self.vendor = tiff_vendors.vendor(tif)
        sized = self.pixel_size is not None
        self._drawn_alike = tiff_vendors.drawn_alike(tif, shapes, sized=sized)

    def _read_tags(self, first: TiffPage, planes: Planes, ome: OmeXml | None) -> None:
        self.dtype = native(np.dtype(first.dtype), self.uri)
        self.nodata = tiff_bands.nodata(first, self.dtype)
        self.channels = sum(int(page.samplesperpixel) for page in planes)
        self._bands = tiff_bands.bands(first, self.channels, self.dtype)
        self.palette = tiff_bands.palette(first)
        self.channel_names = tuple(band.name for band in self._bands)
        self.pixel_size = tiff_tags.pixel_size(first)
        self._read_place(first)
        if ome is not None:
            self.pixel_size = ome.pixel_size or self.pixel_size
            self.channel_names = _ome_names(ome, self.channels, self.channel_names)
            named = zip(self._bands, self.channel_names, strict=True)
            self._bands = tuple(replace(band, name=name) for band, name in named)

    def _read_place(self, first: TiffPage) -> None:
        self.georeference = place = tiff_geo.georeference(first)
        if place is not None and tiff_geo.defines_own_crs(first):
            crs = tiff_crs.own_crs(first, self.uri)
            self.georeference = replace(place, crs=crs)
            if crs is not None and place.affine is not None and not crs.geographic:
                shape = int(first.imagelength), int(first.imagewidth)
                self.pixel_size = size_on_ground(place.affine, crs, shape)
        if tiff_geo.has_only_rpcs(first):
            self.notes = (RPC_NOTE,)
        self.notes += mercator_notes(self.georeference)

    def _open_page(self, page: TiffPage) -> Segments:
        return Segments(page, self._file, self.dtype, self.nodata or 0)

    def _decode(self, level: int, box: Box) -> np.ndarray:
        out = np.empty((*box.shape, self.channels), self.dtype)
        channel = 0
        for segments in self._segments[level]:
            part = out[:, :, channel : channel + segments.samples]
            segments.read_into(part, box, self._cache)
            channel += segments.samples
        return out

    def _take(self, level: int, box: Box, channels: Sequence[int]) -> np.ndarray:
        segments = self._segments[level]
        if len(segments) > 1 or not segments[0].separate:
            return super()._take(level, box, channels)
        out = np.empty((*box.shape, len(channels)), self.dtype)
        segments[0].read_into(out, box, self._cache, channels)
        return out

    def _unmasked(self, level: int, box: Box) -> np.ndarray | None:
        return None if self._masks is None else self._masks.read(level, box, self._cache)

    @property
    def has_holes(self) -> bool:
        """Whether the file leaves out a tile of some level."""
        return any(segments.has_holes for level in self._segments for segments in level)

    @property
    def as_slide(self) -> bool:
        """Whether an Aperio slide's own tiles are known to be what OpenSlide draws."""
        known = all(level.codec in DIRECT_CODECS for level in self.levels)
        colour = (self.dtype, self.channels) == (np.dtype(np.uint8), 3)
        return self._drawn_alike and known and colour and not self.has_holes

    def identity(self) -> Identity:
        """Of the file, or of the object."""
        return self._file.identity()

    def close(self) -> None:
        """Release the file; closing twice is allowed."""
        super().close()
        self._cache.clear()
        self._close_files()

    def _close_files(self) -> None:
        for file in (self._file, self._beside):
            if file is not None:
                file.close()


def _format(tif: TiffFile) -> str:
    kinds = {"OME-TIFF": tif.is_ome, "Aperio SVS": tif.is_svs, "GeoTIFF": tif.is_geotiff}
    named = [name for name, found in kinds.items() if found]
    return named[0] if named else ("BigTIFF" if tif.is_bigtiff else "TIFF")


def _resamplings(levels: Sequence[Planes]) -> list[str | None]:
    of_file = tiff_bands.items(levels[0][0])
    return [tiff_bands.level_resampling(level[0], of_file) for level in levels]


def _levels(segments: Sequence[Segments], resamplings: Sequence[str | None]) -> tuple[Level, ...]:
    full = segments[0].shape
    both = zip(segments, resamplings, strict=True)
    return tuple(level_of(full, s.shape, s.tile, s.codec, how) for s, how in both)


def _ome_names(ome: OmeXml, channels: int, otherwise: tuple[str, ...]) -> tuple[str, ...]:
    if len(ome.names) == channels and all(ome.names):
        return distinct(ome.names, channels)
    return colour_names(channels) if channels == 3 and len(ome.names) == 1 else otherwise
