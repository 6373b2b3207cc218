"""One large image of real pixels: a set of photographs laid side by side, with their truth.

A MOSAIC, not a photograph: nothing in nature looks like it, but every pixel in it was taken by a
camera, and it is as large as a slide: the 69 photographs of IDRiD that have lesions outlined give
more than 800 megapixels. It is meant for speed, memory and resuming. Quality is scored on single
test images and never on it; ``mosaic.json`` says which of its parts those are.

Photographs lie in reading order in cells of equal size, without gaps; what a cell or the last row
leaves over is black. Beside NAME.tif, a pyramid of JPEG tiles whose levels are means of 2 x 2
pixels, there are NAME_bits.tif (truth, level 0, deflate), NAME.json (where what lies) and
NAME_truth.yaml. At most one row of photographs is in memory; coarser levels wait in a temporary
file beside the result.

    python benchmarks/idrid.py FOLDER -o idrid
    python benchmarks/mosaic.py idrid -o mosaic/mosaic.tif    # 0.9 gigapixels, a minute
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile
import yaml
from PIL import Image

Pixels = npt.NDArray[np.uint8]
ReadRow = Callable[[int], Pixels]
"""Index of a row of cells -> its pixels, as wide as the mosaic."""

TILE_PX, QUALITY, DEFLATE = 512, 90, 6


@dataclass(frozen=True, slots=True)
class Part:
    """One photograph in the mosaic."""

    name: str
    """As the split has it."""
    part: str
    """'train', 'validation' or 'test'."""
    y0: int
    """First row."""
    x0: int
    """First column."""
    y1: int
    """One past the last row."""
    x1: int
    """One past the last column."""


@dataclass(frozen=True, slots=True)
class Mosaic:
    """Where everything lies."""

    shape: tuple[int, int]
    """Height and width: whole tiles, so that every level is whole pixels of the one below."""
    cell: tuple[int, int]
    """Height and width of a cell: of the largest photograph."""
    columns: int
    """Cells in a row."""
    parts: tuple[Part, ...]
    """In reading order."""

    @property
    def rows(self) -> int:
        """Rows of cells; the last may be cut short of photographs."""
        return math.ceil(len(self.parts) / self.columns)


def lay(names: Sequence[str], parts: Sequence[str], sizes: Sequence[tuple[int, int]]) -> Mosaic:
    """As near to a square as whole cells allow."""
    height, width = (max(size[axis] for size in sizes) for axis in (0, 1))
    columns = max(1, round(math.sqrt(len(names) * height / width)))
    rows = math.ceil(len(names) / columns)
    placed = []
    for index, (name, part, (h, w)) in enumerate(zip(names, parts, sizes, strict=True)):
        y0, x0 = index // columns * height, index % columns * width
        placed.append(Part(name, part, y0, x0, y0 + h, x0 + w))
    shape = (_whole(rows * height), _whole(columns * width))
    return Mosaic(shape, (height, width), columns, tuple(placed))


def _whole(side_px: int) -> int:
    return -(-side_px // TILE_PX) * TILE_PX


def bands(mosaic: Mosaic, files: Sequence[Path], channels: int) -> Iterator[Pixels]:
    """The mosaic in bands as high as a tile, from the top; ``(TILE_PX, width, channels)``."""
    height, width = mosaic.shape
    held: tuple[int, Pixels] | None = None
    for top in range(0, height, TILE_PX):
        band = np.zeros((TILE_PX, width, channels), np.uint8)
        for row in range(top // mosaic.cell[0], (top + TILE_PX - 1) // mosaic.cell[0] + 1):
            if row >= mosaic.rows:
                break
            if held is None or held[0] != row:
                held = None  # let go of one row before the next is read
                held = (row, read_row(mosaic, files, row, channels))
            start = row * mosaic.cell[0] - top
            first, last = max(0, start), min(TILE_PX, start + mosaic.cell[0])
            band[first:last] = held[1][first - start : last - start]
        yield band


def read_row(mosaic: Mosaic, files: Sequence[Path], row: int, channels: int) -> Pixels:
    """One row of cells, ``(cell height, mosaic width, channels)``."""
    pixels = np.zeros((mosaic.cell[0], mosaic.shape[1], channels), np.uint8)
    first = row * mosaic.columns
    for part, file in zip(
        mosaic.parts[first:], files[first : first + mosaic.columns], strict=False
    ):
        with Image.open(file) as opened:
            one = np.asarray(opened, np.uint8)
        shape = (part.y1 - part.y0, part.x1 - part.x0, channels)
        pixels[: shape[0], part.x0 : part.x1] = one.reshape(shape)
    return pixels


def halved(pixels: Pixels) -> Pixels:
    """Means of 2 x 2 pixels, rounded half up."""
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    sums = pixels.reshape(height, 2, width, 2, -1).sum(axis=(1, 3), dtype=np.uint16)
    means: Pixels = ((sums + 2) // 4).astype(np.uint8)
    return means


def write_image(path: Path, mosaic: Mosaic, files: Sequence[Path]) -> None:
    """The pyramid: level 0 as it is read, every other from what the one before left on disk."""
    count = levels(mosaic.shape)
    with (
        tempfile.TemporaryDirectory(prefix=".mosaic-", dir=path.parent) as folder,
        tifffile.TiffWriter(path, bigtiff=True) as file,
    ):
        source = bands(mosaic, files, 3)
        for level in range(count):
            shape = tuple(side >> level for side in mosaic.shape)
            coarser = _scratch(Path(folder) / f"{level + 1}.raw", shape)
            file.write(
                _jpeg_tiles(source, coarser),
                shape=(*shape, 3),
                dtype=np.uint8,
                tile=(TILE_PX, TILE_PX),
                photometric="ycbcr",
                subsampling=(2, 2),
                compression="jpeg",
                subfiletype=1 if level else 0,
                software="saccade",
                description=None if level else "A mosaic of photographs; not one photograph",
                metadata=None,
            )
            (Path(folder) / f"{level}.raw").unlink(missing_ok=True)
            source = _bands_of(coarser)


def levels(shape: tuple[int, int]) -> int:
    """As many as halve to whole pixels, until one tile holds the image."""
    exact = (TILE_PX & -TILE_PX).bit_length()
    return min(exact, 1 + max(0, math.ceil(math.log2(max(shape) / TILE_PX))))


def _scratch(path: Path, shape: Sequence[int]) -> Pixels:
    half = tuple(max(1, side // 2) for side in shape)
    return np.memmap(path, np.uint8, "w+", shape=(*half, 3))


def _bands_of(pixels: Pixels) -> Iterator[Pixels]:
    for top in range(0, len(pixels), TILE_PX):
        yield np.ascontiguousarray(pixels[top : top + TILE_PX])


def _jpeg_tiles(source: Iterator[Pixels], coarser: Pixels) -> Iterator[bytes]:
    """Encoded tiles, row by row; leaves the halved level in ``coarser``."""
    top = 0
    for band in source:
        rows = band.shape[0] // 2
        coarser[top : top + rows] = halved(band)
        top += rows
        yield from (_jpeg(tile) for tile in _cut(band))


def _cut(band: Pixels) -> Iterator[Pixels]:
    """Whole tiles of a band; what is missing at the border repeats the last pixel."""
    missing = [(0, -side % TILE_PX) for side in band.shape[:2]]
    whole = np.pad(band, [*missing, (0, 0)], mode="edge")
    for x in range(0, whole.shape[1], TILE_PX):
        yield np.ascontiguousarray(whole[:, x : x + TILE_PX])


def _jpeg(tile: Pixels) -> bytes:
    return bytes(
        imagecodecs.jpeg8_encode(
            tile, level=QUALITY, colorspace="RGB", outcolorspace="YCBCR", subsampling="420"
        )
    )


def write_bits(path: Path, mosaic: Mosaic, files: Sequence[Path]) -> None:
    """The truth of level 0, losslessly."""
    tiles = (tile[:, :, 0] for band in bands(mosaic, files, 1) for tile in _cut(band))
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(
            tiles,
            shape=mosaic.shape,
            dtype=np.uint8,
            tile=(TILE_PX, TILE_PX),
            photometric="minisblack",
            compression="zlib",
            compressionargs={"level": DEFLATE},
            software="saccade",
            metadata=None,
        )


def write_notes(path: Path, mosaic: Mosaic, truth: dict[str, Any]) -> None:
    """Where every photograph lies, and how the truth is read."""
    notes = {
        "what": "a mosaic of photographs laid side by side; not one photograph",
        "shape": mosaic.shape,
        "cell": mosaic.cell,
        "photographs": [asdict(part) for part in mosaic.parts],
    }
    path.with_suffix(".json").write_text(json.dumps(notes, indent=1) + "\n", encoding="utf-8")
    tree = {"path": "{name}_bits.tif", "classes": truth["classes"]}
    text = yaml.safe_dump(tree, sort_keys=False)
    path.with_name(f"{path.stem}_truth.yaml").write_text(text, encoding="utf-8")


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as opened:
        return opened.height, opened.width


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="that idrid.py made")
    parser.add_argument("-o", "--out", type=Path, required=True, help="NAME.tif")
    parser.add_argument("--images", type=int, help="only the first so many")
    options = parser.parse_args()
    rows = _rows(options.folder / "images.csv")[: options.images]
    parts = {row["name"]: row["part"] for row in _rows(options.folder / "split.csv")}
    truth = yaml.safe_load((options.folder / "truth.yaml").read_text(encoding="utf-8"))
    names = [row["name"] for row in rows]
    files = [options.folder / row["image"] for row in rows]
    masks = [options.folder / truth["path"].format(name=name) for name in names]
    mosaic = lay(names, [parts[name] for name in names], [_size(file) for file in files])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_image(options.out, mosaic, files)
    write_bits(options.out.with_name(f"{options.out.stem}_bits.tif"), mosaic, masks)
    write_notes(options.out, mosaic, truth)
    height, width = mosaic.shape
    print(
        f"{options.out}: a mosaic of {len(names)} photographs, {height} x {width}, "
        f"{height * width / 1e6:.0f} MP, {options.out.stat().st_size / 1e6:.0f} MB"
    )


if __name__ == "__main__":
    main()
