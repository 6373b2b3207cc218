"""Slides of any size whose file is small: every tile of glass is the same bytes in the file.

A *motif*, the generated slide of 4096 x 4096 pixels, is repeated in a cluster in the middle of the
slide; all else is glass. A TIFF's tile table may name the same bytes many times, so 100 gigapixels
take a few seconds and megabytes. Readers can't tell: each tile is a JPEG of its own, with tables.

The tissue grows with the slide's side, not with its area: the work that a selection leaves stays
bounded, and what is left to grow with the area is what an image costs merely by being large.
"""

from __future__ import annotations

import argparse
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import imagecodecs
import numpy as np

from saccade.jobs.sample import block_mean
from saccade.jobs.sample_anatomy import MPP, sample_truth
from saccade.jobs.sample_stain import stained
from saccade.pipeline.geometry import Grid

TILE_PX = 256
MOTIF_PX = 4096
STEP = 4
"""Downsample from one level to the next."""
REPEATED_LEVELS = 3
"""Levels of which a motif is whole tiles; the coarser ones are drawn whole."""
GLASS_SPREAD = 16
"""A tile whose samples differ by less than this is glass."""
BIGTIFF = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16)


@dataclass(frozen=True, slots=True)
class TileTable:
    """Where the tiles of one level lie in the file."""

    side_px: int
    """Height and width of the level."""
    offsets: np.ndarray
    """``(tiles,)`` uint64, row by row."""
    nbytes: np.ndarray
    """``(tiles,)`` uint64."""


def write_sparse_slide(path: Path, gigapixels: float, motifs: int | None = None) -> float:
    """Write a slide of about so many gigapixels; returns how many it has.

    Args:
        path: the BigTIFF to write.
        gigapixels: of level 0; the side is rounded to whole motifs, at least four.
        motifs: copies of the motif, each 3.7 megapixels of tissue; eight times the root of the
            gigapixels where left open.
    """
    cells = max(4, round((gigapixels * 1e9) ** 0.5 / MOTIF_PX))
    count = max(1, round(8 * gigapixels**0.5)) if motifs is None else motifs
    tissue = _cluster(cells, count)
    with path.open("wb") as file:
        file.write(BIGTIFF)
        tables = list(_levels(_Tiles(file), tissue))
        links = [8, *(_write_directory(file, level, table) for level, table in enumerate(tables))]
    _link(path, links)
    return float((cells * MOTIF_PX) ** 2 / 1e9)


def _cluster(cells: int, count: int) -> np.ndarray:
    """``(cells, cells)`` bool: the ``count`` cells that are nearest to the middle."""
    rows, columns = np.indices((cells, cells)) - (cells - 1) / 2 + 0.1
    nearest = np.argsort(np.hypot(rows, columns), axis=None, kind="stable")[:count]
    tissue = np.zeros(cells * cells, bool)
    tissue[nearest] = True
    return tissue.reshape(cells, cells)


class _Tiles:
    """Writes tiles, glass once; knows where each one went."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.glass = np.full(3, 243, np.uint8)
        self._places: dict[bytes, tuple[int, int]] = {}

    def put(self, pixels: np.ndarray) -> tuple[int, int]:
        """Offset and length of a tile's bytes."""
        if int(np.ptp(pixels.reshape(-1, 3), axis=0).max()) < GLASS_SPREAD:
            pixels = np.broadcast_to(self.glass, pixels.shape)
        data = _jpeg(pixels)
        if data not in self._places:
            self._places[data] = self._file.tell(), len(data)
            self._file.write(data)
        return self._places[data]


def _levels(tiles: _Tiles, tissue: np.ndarray) -> Iterator[TileTable]:
    """The levels, finest first: repeated motifs, then whole pictures."""
    motif = _motif()
    tiles.glass = np.median(motif[:64].reshape(-1, 3), axis=0).astype(np.uint8)
    for _ in range(REPEATED_LEVELS):
        yield _repeated(tiles, motif, tissue)
        motif = block_mean(motif)
    glass = np.broadcast_to(tiles.glass, motif.shape)
    bands = [np.concatenate([motif if t else glass for t in row], axis=1) for row in tissue]
    picture = np.concatenate(bands)
    while True:
        yield _drawn(tiles, picture)
        if picture.shape[0] <= TILE_PX:
            return
        picture = block_mean(picture)


def _motif() -> np.ndarray:
    """A small generated slide, ``(MOTIF_PX, MOTIF_PX, 3)`` uint8."""
    truth = sample_truth(MOTIF_PX, 0)
    drawn = np.empty((MOTIF_PX, MOTIF_PX, 3), np.uint8)
    for block in Grid((MOTIF_PX, MOTIF_PX), 2 * TILE_PX):
        drawn[block.slices] = stained(truth, block)
    return drawn


def _repeated(tiles: _Tiles, motif: np.ndarray, tissue: np.ndarray) -> TileTable:
    inner = _drawn(tiles, motif)
    per_side = motif.shape[0] // TILE_PX
    glass = tiles.put(np.broadcast_to(tiles.glass, (TILE_PX, TILE_PX, 3)))
    found = []
    for values, empty in zip((inner.offsets, inner.nbytes), glass, strict=True):
        whole = np.tile(values.reshape(per_side, per_side), tissue.shape)
        where = np.kron(tissue, np.ones((per_side, per_side), bool))
        found.append(np.where(where, whole, np.uint64(empty)).ravel())
    return TileTable(motif.shape[0] * len(tissue), *found)


def _drawn(tiles: _Tiles, picture: np.ndarray) -> TileTable:
    grid = Grid((picture.shape[0], picture.shape[1]), TILE_PX)
    places = [tiles.put(_padded(picture[box.slices])) for box in grid]
    offsets, nbytes = np.array(places, np.uint64).T
    return TileTable(picture.shape[0], offsets.copy(), nbytes.copy())


def _padded(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    return np.pad(pixels, [(0, TILE_PX - height), (0, TILE_PX - width), (0, 0)], mode="edge")


def _jpeg(pixels: np.ndarray) -> bytes:
    whole = np.ascontiguousarray(pixels)
    options = {"colorspace": "RGB", "outcolorspace": "YCBCR", "subsampling": "420"}
    return bytes(imagecodecs.jpeg8_encode(whole, level=85, **options))


def _write_directory(file: BinaryIO, level: int, table: TileTable) -> int:
    """One IFD with its tables before it; returns where its link to the next one lies."""
    arrays = [
        _put(file, values.astype("<u8").tobytes()) for values in (table.offsets, table.nbytes)
    ]
    bits = 8 | 8 << 16 | 8 << 32
    per_centimetre = round(1e4 / (MPP * STEP**level)) | 1 << 32
    short, long, fraction, long8 = 3, 4, 5, 16
    count = len(table.offsets)
    entries = [
        (254, long, 1, int(level > 0)),  # reduced resolution
        (256, long, 1, table.side_px),
        (257, long, 1, table.side_px),
        (258, short, 3, bits),
        (259, short, 1, 7),  # JPEG
        (262, short, 1, 6),  # YCbCr
        (277, short, 1, 3),
        (282, fraction, 1, per_centimetre),
        (283, fraction, 1, per_centimetre),
        (284, short, 1, 1),
        (296, short, 1, 3),  # per centimetre
        (322, short, 1, TILE_PX),
        (323, short, 1, TILE_PX),
        (324, long8, count, arrays[0] if count > 1 else int(table.offsets[0])),
        (325, long8, count, arrays[1] if count > 1 else int(table.nbytes[0])),
        (530, short, 2, 2 | 2 << 16),
    ]
    _put(file, struct.pack("<Q", len(entries)))
    for tag, kind, length, value in entries:
        file.write(struct.pack("<HHQQ", tag, kind, length, value))
    return _put(file, struct.pack("<Q", 0))


def _put(file: BinaryIO, data: bytes) -> int:
    """Where the data begins."""
    offset = int(file.tell())
    file.write(data)
    return offset


def _link(path: Path, links: list[int]) -> None:
    """Chain the directories: every link names the directory that ends before the next link."""
    entries_nbytes = 8 + 16 * 20
    with path.open("r+b") as file:
        for link, following in pairwise(links):
            file.seek(link)
            file.write(struct.pack("<Q", following - entries_nbytes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("gigapixels", type=float)
    parser.add_argument("--motifs", type=int, help="copies of the motif; default: grows with side")
    options = parser.parse_args()
    found = write_sparse_slide(options.path, options.gigapixels, options.motifs)
    print(f"{options.path}: {found:.2f} gigapixels in {options.path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
