"""Whole-slide images through OpenSlide, for every format of its own. Knows no TIFF tags."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import openslide
from PIL import Image

from saccade.pipeline.geometry import Box, Grid
from saccade.pipeline.sources.base import Level, PixelSize
from saccade.pipeline.sources.reader import Reader, colour_names, level_of, opening

Request = tuple[tuple[int, int], int, tuple[int, int]]
"""``(x, y)`` at level 0, level, ``(width, height)``: what ``read_region`` takes."""

BLOCK_PX = 512
NAMES = {"aperio": "Aperio SVS", "dicom": "DICOM", "hamamatsu": "Hamamatsu", "leica": "Leica SCN"}


class OpenSlideSource(Reader):
    """A slide that OpenSlide reads, composited onto the slide's own background colour.

    OpenSlide takes the corner of a read in pixels of level 0. At a level whose downsample is not
    whole, most corners can't be said that way and are rendered with a shift of up to half a pixel
    of level 0. Those levels are rendered in blocks from fixed corners, so that a pixel does not
    depend on the box it is read in.

    Raises:
        BrokenImage: OpenSlide recognises the format and can't open the file.
    """

    def __init__(self, path: Path) -> None:
        self.uri = str(path)
        self._lock = threading.Lock()
        with opening(self.uri, "slide that OpenSlide reads"):
            self._slide = openslide.OpenSlide(path)
            self._describe(self._slide)

    def _describe(self, slide: openslide.OpenSlide) -> None:
        properties = slide.properties
        vendor = properties.get("openslide.vendor", "slide")
        self.format = NAMES.get(vendor, vendor)
        self.dtype = np.dtype(np.uint8)
        self.channels = 3
        self.channel_names = colour_names(3)
        self.pixel_size = _pixel_size(properties)
        colour = properties.get("openslide.background-color", "FFFFFF")
        self._background = np.frombuffer(bytes.fromhex(colour), np.uint8)
        self._indices = _increasing(slide)
        self._downsamples = [slide.level_downsamples[i] for i in self._indices]
        self.levels = tuple(_level(slide, index) for index in self._indices)

    def _decode(self, level: int, box: Box) -> np.ndarray:
        if self._downsamples[level].is_integer():
            return self._render(level, box)
        out = np.empty((*box.shape, 3), np.uint8)
        blocks = Grid(self.levels[level].shape, BLOCK_PX)
        cells = blocks.cells_touching(box)
        for row in range(cells.y0, cells.y1):
            for column in range(cells.x0, cells.x1):
                self._paste(out, level, box, blocks.box(blocks.index(row, column)))
        return out

    def _paste(self, out: np.ndarray, level: int, box: Box, block: Box) -> None:
        part = block.intersect(box)
        pixels = self._render(level, Box(block.y0, block.x0, part.y1, part.x1))
        out[part.relative_to(box).slices] = pixels[part.relative_to(block).slices]

    def _render(self, level: int, box: Box) -> np.ndarray:
        slide, downsample = self._slide, self._downsamples[level]
        corner = (round(box.x0 * downsample), round(box.y0 * downsample))
        request = (corner, self._indices[level], (box.width, box.height))
        try:
            region = slide.read_region(*request)
        except openslide.OpenSlideError:
            region = self._render_afresh(slide, request)
        return _composite(np.asarray(region), self._background)

    def _render_afresh(self, failed: openslide.OpenSlide, request: Request) -> Image.Image:
        # after one error a handle refuses everything, so the fault may be another region's
        fresh = openslide.OpenSlide(self.uri)
        try:
            region: Image.Image = fresh.read_region(*request)
        except openslide.OpenSlideError:
            self._replace(failed, openslide.OpenSlide(self.uri))
            raise
        self._replace(failed, fresh)
        return region

    def _replace(self, failed: openslide.OpenSlide, fresh: openslide.OpenSlide) -> None:
        # the failed handle is left to the garbage collector: another thread may be inside it
        with self._lock:
            if self._slide is failed:
                self._slide = fresh

    def close(self) -> None:
        """Release the slide; closing twice is allowed."""
        with self._lock:
            if not self._closed:
                self._slide.close()
            super().close()


def detect(path: Path) -> str | None:
    """OpenSlide's name for the format of a file; None where it knows none."""
    vendor = openslide.OpenSlide.detect_format(path)
    return None if vendor is None else str(vendor)


def _composite(rgba: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Lay ``(H, W, 4)`` uint8 pixels over a colour: ``(H, W, 3)`` uint8, rounded to nearest."""
    alpha = rgba[:, :, 3:]
    if alpha.min() == 255:
        return np.ascontiguousarray(rgba[:, :, :3])
    weight = alpha.astype(np.uint32)
    mixed = rgba[:, :, :3] * weight + background.astype(np.uint32) * (255 - weight)
    return ((mixed + 127) // 255).astype(np.uint8)


def _increasing(slide: openslide.OpenSlide) -> list[int]:
    """The levels that are coarser than all before them."""
    downsamples = slide.level_downsamples
    return [i for i, d in enumerate(downsamples) if all(d > e for e in downsamples[:i])]


def _level(slide: openslide.OpenSlide, index: int) -> Level:
    (width, height), (full_width, full_height) = slide.level_dimensions[index], slide.dimensions
    sides = [
        slide.properties.get(f"openslide.level[{index}].tile-{s}") for s in ("height", "width")
    ]
    tile = (int(sides[0]), int(sides[1])) if sides[0] and sides[1] else None
    return level_of((full_height, full_width), (height, width), tile)


def _pixel_size(properties: openslide._PropertyMap) -> PixelSize | None:
    y, x = (float(properties.get(f"openslide.mpp-{axis}", 0)) for axis in "yx")
    return PixelSize(y, x, "um") if y > 0 and x > 0 else None
