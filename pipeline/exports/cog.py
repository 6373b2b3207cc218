"""A Cloud Optimized GeoTIFF from top to bottom: directories first, then overviews, finest last.

So OGC's standard (21-026) and GDAL's driver have it: a reader learns where everything is from the
first kilobytes, and a coarse view lies in one piece. Every level is compressed into a file of its
own beside the target; once their sizes are known, the directories are written and the levels behind
them. What is held is one tile, and 8 bytes for each. The same raster always gives the same bytes.
"""

from __future__ import annotations

import shutil
import struct
from array import array
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

import imagecodecs
import numpy as np

from saccade.pipeline.exports.geo_tags import geo_tags
from saccade.pipeline.exports.rasters import Raster
from saccade.pipeline.exports.tiff_directory import Dialect, Tag
from saccade.pipeline.exports.tiled_pyramid import TILE_PX, TiledLevel, tiled_levels
from saccade.pipeline.geometry import Shape
from saccade.pipeline.georeference import Georeference
from saccade.pipeline.palette import Colour
from saccade.pipeline.store_shelf import PARTIAL
from saccade.pipeline.uniform import is_uniform

CLASSIC_NBYTES = 2**32 - 2**16
"""A larger file is a BigTIFF."""
DEFLATE, NO_PREDICTOR, FLOAT_PREDICTOR = 8, 1, 3
DEFLATE_LEVEL = 6
_deflate = imagecodecs.deflate_encode if imagecodecs.DEFLATE.available else imagecodecs.zlib_encode
GREY, PALETTE = 1, 3
UNSIGNED, FLOAT = 1, 3
ONE_PLANE, PLANE_BY_PLANE = 1, 2
LEADER_NBYTES, TRAILER_NBYTES = 4, 4
STRUCTURE = (
    "LAYOUT=IFDS_BEFORE_DATA\n"
    "BLOCK_ORDER=ROW_MAJOR\n"
    "BLOCK_LEADER=SIZE_AS_UINT4\n"
    "BLOCK_TRAILER=LAST_4_BYTES_REPEATED\n"
    "KNOWN_INCOMPATIBLE_EDITION=NO\n "
)
"""What GDAL may rely on, in its words; the last blank leaves room for taking that back."""
GHOST = f"GDAL_STRUCTURAL_METADATA_SIZE={len(STRUCTURE):06d} bytes\n{STRUCTURE}".encode()


@dataclass(frozen=True, slots=True, eq=False)
class CogFacts:
    """What a file says besides its pixels."""

    place: Georeference
    """Of the finest level."""
    nodata: str
    """The value that means no answer."""
    metadata: str
    """Text of the tag GDAL_METADATA."""
    palette: dict[int, Colour] = field(default_factory=dict)
    """Colours of values, of a single plane of uint8; none for grey."""


@dataclass(frozen=True, slots=True, eq=False)
class _Stored:
    """A level, compressed, each tile between its size and the repetition of its last bytes."""

    path: Path
    shape: Shape
    sizes: array[int]
    """Bytes of every compressed tile."""

    @property
    def nbytes(self) -> int:
        """Of the file."""
        return self.path.stat().st_size

    def offsets(self, base: int) -> np.ndarray:
        """Where every tile begins, of a level whose file is put there."""
        whole = np.array(self.sizes, np.int64) + (LEADER_NBYTES + TRAILER_NBYTES)
        begins: np.ndarray = np.cumsum(whole) - whole + (base + LEADER_NBYTES)
        return begins


def write_cog(path: Path, raster: Raster, facts: CogFacts) -> None:
    """Write a file.

    Args:
        path: of the file.
        raster: what to write; its planes are stored one after the other.
        facts: what else to say.
    """
    with TemporaryDirectory(PARTIAL, f"{path.name}.", path.parent) as folder:
        spool = Path(folder)
        with closing(tiled_levels(raster, spool)) as levels:
            stored = [_store(level, spool / f"{level.index}.tiles") for level in levels]
        with path.open("wb") as file:
            file.write(_head(raster, facts, stored))
            for level in reversed(stored):
                with level.path.open("rb") as part:
                    shutil.copyfileobj(part, file, 2**20)
                level.path.unlink()


# ------------------------------------------------------------------------------------------- tiles


def _store(level: TiledLevel, path: Path) -> _Stored:
    sizes = array("Q")
    with path.open("wb") as file:
        same: dict[bytes, bytes] = {}
        for tile in level.tiles:
            data = _compressed(tile, same)
            sizes.append(len(data))
            _write_tile(file, data)
    return _Stored(path, level.shape, sizes)


def _write_tile(file: IO[bytes], data: bytes) -> None:
    file.write(struct.pack("<I", len(data)))
    file.write(data)
    file.write(data[-TRAILER_NBYTES:])


def _compressed(tile: np.ndarray, same: dict[bytes, bytes]) -> bytes:
    """A tile, deflated; one that is all one value is compressed once."""
    if not is_uniform(tile[None]):
        return _deflated(tile)
    key = tile[0, 0].tobytes()
    if key not in same and len(same) < 256:
        same[key] = _deflated(tile)
    return same.get(key) or _deflated(tile)


def _deflated(tile: np.ndarray) -> bytes:
    # libdeflate's bytes are fewer than zlib's, and take it a third of the time
    return bytes(_deflate(_predicted(tile), DEFLATE_LEVEL))


def _predicted(tile: np.ndarray) -> bytes:
    """Floats: the bytes of a row sorted by their weight, each less the one before it.

    The predictor 3 of Adobe's TIFF Technical Note 3.
    """
    if tile.dtype.kind != "f":
        return tile.tobytes()
    height, width = tile.shape
    parts = tile.astype(">f4").view(np.uint8).reshape(height, width, 4)
    rows = parts.transpose(0, 2, 1).reshape(height, 4 * width)
    return np.diff(rows, axis=1, prepend=np.uint8(0)).tobytes()


# ------------------------------------------------------------------------------------------- head


def _head(raster: Raster, facts: CogFacts, levels: Sequence[_Stored]) -> bytes:
    """Everything before the first tile."""
    nbytes = sum(level.nbytes for level in levels)
    classic = _laid_out(Dialect(big=False), raster, facts, levels)
    if len(classic) + nbytes <= CLASSIC_NBYTES:
        return classic
    return _laid_out(Dialect(big=True), raster, facts, levels)


def _laid_out(
    dialect: Dialect, raster: Raster, facts: CogFacts, levels: Sequence[_Stored]
) -> bytes:
    ghost = GHOST if len(raster.channels) == 1 else b""
    first = len(dialect.header(0) + ghost) // 8 * 8 + 8
    constant = [_level_tags(level, raster, facts, level is levels[0]) for level in levels]
    sizes = [
        dialect.size(_at(level, 0, tags)) for level, tags in zip(levels, constant, strict=True)
    ]
    base = first + sum(sizes)
    places = [
        base + sum(other.nbytes for other in levels[index + 1 :]) for index in range(len(levels))
    ]
    head = (dialect.header(first) + ghost).ljust(first, b"\0")
    for index, (level, tags) in enumerate(zip(levels, constant, strict=True)):
        at = len(head)
        following = at + sizes[index] if index + 1 < len(levels) else 0
        head += dialect.directory(_at(level, places[index], tags), at, following)
    return head


def _at(level: _Stored, base: int, tags: list[Tag]) -> list[Tag]:
    """With the places of tiles."""
    return [*tags, Tag(324, "offset", level.offsets(base)), Tag(325, "long", level.sizes)]


def _level_tags(level: _Stored, raster: Raster, facts: CogFacts, finest: bool) -> list[Tag]:
    """All but the places of tiles."""
    height, width = level.shape
    tags = [
        Tag(254, "long", (0 if finest else 1,)),
        Tag(256, "long", (width,)),
        Tag(257, "long", (height,)),
        Tag(322, "short", (TILE_PX,)),
        Tag(323, "short", (TILE_PX,)),
        Tag(42113, "ascii", facts.nodata),
        *_sample_tags(len(raster.channels), raster.dtype),
    ]
    if facts.palette:
        tags.append(Tag(320, "short", _palette(facts.palette)))
    tags.append(Tag(262, "short", (PALETTE if facts.palette else GREY,)))
    if finest:
        tags += [Tag(305, "ascii", "saccade"), Tag(42112, "ascii", facts.metadata)]
        tags += geo_tags(facts.place)
    return tags


def _sample_tags(planes: int, dtype: np.dtype[np.generic]) -> list[Tag]:
    """How values are stored."""
    floats = dtype.kind == "f"
    tags = [
        Tag(258, "short", (8 * dtype.itemsize,) * planes),
        Tag(259, "short", (DEFLATE,)),
        Tag(277, "short", (planes,)),
        Tag(284, "short", (ONE_PLANE if planes == 1 else PLANE_BY_PLANE,)),
        Tag(317, "short", (FLOAT_PREDICTOR if floats else NO_PREDICTOR,)),
        Tag(339, "short", (FLOAT if floats else UNSIGNED,) * planes),
    ]
    return tags if planes == 1 else [*tags, Tag(338, "short", (0,) * (planes - 1))]


def _palette(colours: dict[int, Colour]) -> np.ndarray:
    """All reds, then greens, then blues, of 256 values, in 16 bits."""
    table = np.zeros((3, 256), np.uint16)
    for value, colour in colours.items():
        table[:, value] = np.array(colour) * 257
    return table
