"""Rasters that only GDAL reads: JPEG 2000, VRT, strips too large to decode alone. Behind rasterio.

GDAL's datasets must not be shared between threads: each read borrows one, and as many stay open as
were read from at once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from saccade.pipeline.errors import UnsupportedImage
from saccade.pipeline.geometry import Box, Shape
from saccade.pipeline.georeference import Affine, ControlPoint, Georeference
from saccade.pipeline.sources.bands import ALPHA, Band, Palette, common_nodata
from saccade.pipeline.sources.base import Level, PixelSize
from saccade.pipeline.sources.ground_size import mercator_notes, size_on_ground
from saccade.pipeline.sources.rasterio_crs import crs_of, import_rasterio
from saccade.pipeline.sources.reader import (
    RPC_NOTE,
    Reader,
    colour_names,
    distinct,
    level_of,
    native,
    numbered,
    opening,
)
from saccade.pipeline.sources.tiff_bands import COLOURS, OF_THE_FILE, nodata_in

RGB = ["red", "green", "blue"]
MOST_IDLE = 4
"""Datasets of a level that stay open while nobody reads from them."""
CACHE_NBYTES = 64 << 20
"""Of decoded blocks that GDAL keeps, for all images of a process together."""
MOST_BLOCK_NBYTES = 256 << 20
"""Of a decoded tile that is larger than the image."""


class RasterioSource(Reader):
    """A raster, read by GDAL window by window; its overviews are its levels.

    Raises:
        UnsupportedImage: rasterio is not installed, or the bands have different types.
        BrokenImage: GDAL does not open it.
    """

    is_raster = True
    cache_nbytes = CACHE_NBYTES

    def __init__(self, path: Path) -> None:
        self.uri = str(path)
        self._rasterio = import_rasterio(f"{path}: this raster is read with rasterio")
        self._idle: dict[int, list[Any]] = {}
        self._lock = threading.Lock()
        with opening(self.uri, "raster"), self._dataset(0) as dataset:
            self._describe(dataset)

    def _describe(self, dataset: Any) -> None:
        self.format = "GeoTIFF" if dataset.driver in ("GTiff", "COG") else dataset.driver
        self.channels = dataset.count
        self.dtype = native(_one_type(dataset, self.uri), self.uri)
        self._bands = _bands(dataset, self.dtype)
        self.channel_names = tuple(band.name for band in self._bands)
        self.nodata = common_nodata(self._bands)
        self.palette = _palette(dataset)
        self.georeference = _georeference(dataset)
        if self.georeference is None and dataset.rpcs is not None:
            self.notes = (RPC_NOTE,)
        self.notes += mercator_notes(self.georeference)
        self._masked = "per_dataset" in _mask_flags(dataset) and "alpha" not in _mask_flags(dataset)
        full = dataset.height, dataset.width
        self.pixel_size = _pixel_size(self.georeference, full)
        self.levels = tuple(self._levels(dataset))

    def _levels(self, dataset: Any) -> Iterator[Level]:
        said = [text for name in OF_THE_FILE if (text := _tag(dataset, name))]
        own = dataset.overviews(1)
        for index in range(len(own) + 1):
            with self._dataset(index) as level:
                block = tuple(level.block_shapes[0])
                self._check_block(block, (level.height, level.width))
                made = level.tags(1).get("RESAMPLING", said[0] if said else "").split()
                yield level_of(
                    (dataset.height, dataset.width),
                    (level.height, level.width),
                    (int(block[0]), int(block[1])),
                    dataset.compression.name if dataset.compression else None,
                    made[0].upper() if made else None,
                )

    def _check_block(self, block: Shape, full: Shape) -> None:
        """Refuse what GDAL would take memory for that no pixel of the image needs."""
        nbytes = block[0] * block[1] * self.channels * self.dtype.itemsize
        beyond = block[0] > full[0] or block[1] > full[1]
        if beyond and nbytes > MOST_BLOCK_NBYTES:
            raise UnsupportedImage(
                f"{self.uri}: tiles of {block[0]} x {block[1]} pixels in a level of {full[0]} x "
                f"{full[1]}; the file is probably damaged: copy it again"
            )

    def _decode(self, level: int, box: Box) -> np.ndarray:
        return self._take(level, box, range(self.channels))

    def _take(self, level: int, box: Box, channels: Sequence[int]) -> np.ndarray:
        with self._dataset(level) as dataset:
            pixels = dataset.read([channel + 1 for channel in channels], window=_window(box))
        return np.ascontiguousarray(np.moveaxis(pixels, 0, -1))

    def _unmasked(self, level: int, box: Box) -> np.ndarray | None:
        if not self._masked:
            return None
        with self._dataset(level) as dataset:
            mask: np.ndarray = dataset.read_masks(1, window=_window(box))[..., None] != 0
        return None if mask.all() else mask

    @contextmanager
    def _dataset(self, level: int) -> Iterator[Any]:
        """A dataset that nobody else uses; opened where none is idle."""
        with ExitStack() as stack:
            stack.enter_context(self._rasterio.Env(GDAL_CACHEMAX=CACHE_NBYTES))
            with self._lock:
                idle = self._idle.setdefault(level, [])
                dataset = idle.pop() if idle else None
            if dataset is None:
                options = {} if level == 0 else {"overview_level": level - 1}
                dataset = self._rasterio.open(self.uri, **options)
            try:
                yield dataset
            except BaseException:
                dataset.close()
                raise
            self._give_back(level, dataset)

    def _give_back(self, level: int, dataset: Any) -> None:
        with self._lock:
            idle = self._idle.setdefault(level, [])
            if len(idle) < MOST_IDLE and not self._closed:
                idle.append(dataset)
                return
        dataset.close()

    def close(self) -> None:
        """Close every dataset; closing twice is allowed."""
        super().close()
        with self._lock:
            idle = [dataset for level in self._idle.values() for dataset in level]
            self._idle.clear()
        for dataset in idle:
            dataset.close()


def _window(box: Box) -> tuple[tuple[int, int], tuple[int, int]]:
    return (box.y0, box.y1), (box.x0, box.x1)


def _one_type(dataset: Any, uri: str) -> np.dtype[Any]:
    kinds = sorted(set(dataset.dtypes))
    if len(kinds) != 1:
        raise UnsupportedImage(
            f"{uri}: bands of one type expected, found {', '.join(kinds)}; write it again with one"
        )
    return np.dtype(str(kinds[0]))


def _mask_flags(dataset: Any) -> set[str]:
    return {flag.name for flag in dataset.mask_flag_enums[0]}


def _tag(dataset: Any, name: str) -> str | None:
    everywhere = {**dataset.tags(ns="rio_overview"), **dataset.tags(ns="IMAGE_STRUCTURE")}
    text = (everywhere | dataset.tags()).get(name)
    return None if text is None else str(text)


def _bands(dataset: Any, dtype: np.dtype[Any]) -> tuple[Band, ...]:
    colours = [_colour(one.name) for one in dataset.colorinterp]
    invented = colour_names(dataset.count) if colours[:3] == RGB else numbered(dataset.count)
    names = [text or name for text, name in zip(dataset.descriptions, invented, strict=True)]
    values = [None if c == ALPHA else v for c, v in zip(colours, dataset.nodatavals, strict=True)]
    return tuple(
        Band(name, nodata_in(value, dtype), scale, offset, colour, unit or None)
        for name, value, scale, offset, colour, unit in zip(
            distinct(names, dataset.count),
            values,
            dataset.scales,
            dataset.offsets,
            colours,
            dataset.units,
            strict=True,
        )
    )


def _colour(name: str) -> str | None:
    return COLOURS.get(name.lower(), name.lower())


def _palette(dataset: Any) -> Palette | None:
    if dataset.colorinterp[0].name != "palette":
        return None
    table = dataset.colormap(1)
    return tuple(tuple(table[index]) for index in range(len(table)))


def _georeference(dataset: Any) -> Georeference | None:
    points, points_crs = dataset.gcps
    if not dataset.transform.is_identity:
        return Georeference(crs_of(dataset.crs), Affine(*dataset.transform[:6]))
    if not points:
        return None
    known = tuple(ControlPoint(p.col, p.row, p.x, p.y, p.z or 0.0) for p in points)
    return Georeference(crs_of(points_crs), None, known)


def _pixel_size(place: Georeference | None, shape: Shape) -> PixelSize | None:
    if place is None or place.affine is None or place.crs is None:
        return None
    return size_on_ground(place.affine, place.crs, shape)
