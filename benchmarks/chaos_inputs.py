"""Bad images of every format: flipped bytes, cut ends, hostile headers, things that are no files.

Every input follows from a seed, so that a row of a table can be made again. Good files are drawn
here; the folder of real data adds its own where it is there. Knows nothing of runs.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
import zarr
from chaos_rasters import bad_rasters, write_masked

REAL = (
    "slides/cmu-1-small-region.svs",
    "slides/small.svs",
    "slides/boxes.tiff",
    "slides/boxes_0.dcm",
    "rasters/cog_gcps.tif",
    "rasters/cog_uint8_rgb_mask.tif",
    "rasters/RGB.byte.tif",
    "idrid/IDRiD_01_bits.png",
)
"""Real files that are damaged, small enough that many copies are cheap."""
MOST_NBYTES = 2 << 20


@dataclass(frozen=True, slots=True)
class BadInput:
    """One image that something is wrong with."""

    name: str
    """Unique; also the image's name in a run."""
    fault: str
    """Row of the table that it counts in."""
    path: Path
    """Where it lies."""
    mpp: float | None = None
    """Pixel size that the manifest states, which may be the fault."""


def tissue(height: int, width: int, seed: int) -> np.ndarray:
    """``(height, width, 3)`` uint8: a dark disc and specks on white."""
    random_ = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    image = np.full((height, width, 3), 240, np.uint8)
    cy, cx = random_.integers((height // 4, width // 4), (3 * height // 4, 3 * width // 4))
    image[(y - cy) ** 2 + (x - cx) ** 2 < (min(height, width) // 3) ** 2] = (190, 110, 160)
    noise = random_.integers(0, 15, image.shape, dtype=np.uint8)
    return image - noise


def write_good(folder: Path) -> dict[str, Path]:
    """One undamaged file of every format that can be drawn here, by format."""
    pixels = tissue(160, 192, seed=1)
    folder.mkdir(parents=True, exist_ok=True)
    tiffs: dict[str, dict[str, object]] = {
        "tiff tiled": {"tile": (64, 64)},
        "tiff stripped": {"rowsperstrip": 16},
        "bigtiff": {"tile": (64, 64), "bigtiff": True},
        "tiff jpeg": {"tile": (64, 64), "compression": "jpeg"},
        "tiff lzw": {"tile": (64, 64), "compression": "lzw"},
        "tiff deflate": {"tile": (64, 64), "compression": "deflate", "predictor": True},
        "tiff zstd": {"tile": (64, 64), "compression": "zstd"},
        "tiff jpeg2000": {"tile": (64, 64), "compression": "jpeg2000"},
        "tiff webp": {"tile": (64, 64), "compression": "webp"},
        "big-endian tiff": {"tile": (64, 64), "byteorder": ">"},
    }
    made = {kind: folder / f"{kind.replace(' ', '-')}.tif" for kind in tiffs}
    for kind, options in tiffs.items():
        tifffile.imwrite(made[kind], pixels, photometric="rgb", **options)
    made["geotiff masked"] = write_masked(folder / "geotiff-masked.tif", pixels)
    made["ome-tiff"] = _ome_tiff(folder / "ome.ome.tif", pixels)
    made["svs-like"] = _svs(folder / "slide.svs", pixels)
    return made | _photos(folder, pixels) | _zarrs(folder, pixels)


def _ome_tiff(path: Path, pixels: np.ndarray) -> Path:
    tifffile.imwrite(
        path, pixels, ome=True, tile=(64, 64), metadata={"axes": "YXS"}, photometric="rgb"
    )
    return path


def _svs(path: Path, pixels: np.ndarray) -> Path:
    said = "Aperio Image Library v11\n192x160 (64x64) JPEG/RGB Q=70|AppMag = 20|MPP = 0.5"
    options = {"tile": (64, 64), "compression": "jpeg", "photometric": "rgb", "metadata": None}
    tifffile.imwrite(path, pixels, description=said, **options)
    return path


def _photos(folder: Path, pixels: np.ndarray) -> dict[str, Path]:
    from PIL import Image

    made = {"png": folder / "photo.png", "jpeg": folder / "photo.jpg"}
    for path in made.values():
        Image.fromarray(pixels).save(path)
    return made


def _zarrs(folder: Path, pixels: np.ndarray) -> dict[str, Path]:
    planes = pixels.transpose(2, 0, 1)
    axes = [{"name": n, "type": "channel" if n == "c" else "space"} for n in "cyx"]
    scale = [{"type": "scale", "scale": [1.0, 0.5, 0.5]}]
    multiscales = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    made: dict[str, Path] = {}
    for version, layout in (("0.4", 2), ("0.5", 3)):
        path = made[f"ome-zarr {version}"] = folder / f"image-{layout}.ome.zarr"
        group = zarr.open_group(path, mode="w", zarr_format=layout)  # type: ignore[arg-type]
        array = group.create_array("0", shape=planes.shape, chunks=(3, 64, 64), dtype="uint8")
        array[:] = planes
        tree = {"version": version, "multiscales": [{"version": version, **multiscales}]}
        group.attrs.update({"ome": tree} if layout == 3 else tree)
    return made


def damaged(good: dict[str, Path], folder: Path, times: int, seed: int) -> Iterator[BadInput]:
    """Every good file, so many times with flipped bytes and so many times cut short."""
    for kind, source in good.items():
        for turn in range(times):
            for how, spoil in (("flipped", flip), ("truncated", cut)):
                name = f"{source.name.split('.')[0]}-{kind.split()[0]}-{how}-{turn}"
                chance = random.Random(f"{seed}-{kind}-{how}-{turn}")
                path = folder / name / source.name
                yield BadInput(name, f"{kind}, {how}", _copy(source, path, spoil, chance))


def _copy(
    source: Path, path: Path, spoil: Callable[[bytes, random.Random], bytes], chance: random.Random
) -> Path:
    if source.is_file():
        path.parent.mkdir(parents=True)
        path.write_bytes(spoil(source.read_bytes(), chance))
        return path
    shutil.copytree(source, path)
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.stat().st_size)
    victim = chance.choice(files)
    victim.write_bytes(spoil(victim.read_bytes(), chance))
    return path


def flip(data: bytes, chance: random.Random) -> bytes:
    """Some bytes replaced: half of them among the first and the last 600, where headers lie."""
    changed = bytearray(data)
    for _ in range(1 + chance.randrange(24)):
        edge = min(600, len(data))
        places = (chance.randrange(len(data)), chance.randrange(edge), -1 - chance.randrange(edge))
        changed[chance.choice((places[0], places[0], *places[1:]))] = chance.randrange(256)
    return bytes(changed)


def cut(data: bytes, chance: random.Random) -> bytes:
    """A beginning of the file, of any length."""
    return data[: chance.randrange(len(data))]


# ---------------------------------------------------------------------------------- hostile headers

Fields = list[tuple[int, int, int, bytes]]
"""Entries of a directory: tag, type, count, four bytes of value."""
SHORT, LONG = 3, 4


def _long(tag: int, value: int, count: int = 1) -> tuple[int, int, int, bytes]:
    return tag, LONG, count, struct.pack("<I", value)


def _tiff(fields: Fields, following: int = 0, body: bytes = b"\x80" * 4096) -> bytes:
    entries = b"".join(struct.pack("<HHI", *field[:3]) + field[3] for field in sorted(fields))
    head = struct.pack("<2sHIH", b"II", 42, 8, len(fields))
    return (head + entries + struct.pack("<I", following)).ljust(1024, b"\0") + body


def _fields(changes: dict[int, int] | None = None, without: tuple[int, ...] = ()) -> Fields:
    """A grey image of 64 x 64 in one tile, with some values replaced."""
    values = {256: 64, 257: 64, 258: 8, 259: 1, 262: 1, 277: 1, 322: 64, 323: 64, 324: 1024}
    values |= {325: 4096, **(changes or {})}
    return [_long(tag, value) for tag, value in values.items() if tag not in without]


def hostile_headers() -> dict[str, bytes]:
    """TIFFs whose directory lies, by what the lie is."""
    strips = {278: 32, 273: 1024, 279: 4096}
    no_tiles = (322, 323, 324, 325)
    return {
        "huge dimensions": _tiff(_fields({256: 2**31 - 1, 257: 2**31 - 1})),
        "large dimensions, one tile": _tiff(_fields({256: 2**20, 257: 2**20})),
        "zero width": _tiff(_fields({256: 0})),
        "zero tile": _tiff(_fields({322: 0, 323: 0})),
        "no tiles at all": _tiff(_fields(without=no_tiles)),
        "absurd tile": _tiff(_fields({322: 2**30, 323: 2**30})),
        "absurd tile count": _tiff([*_fields(without=(324,)), _long(324, 1024, 2**31 - 1)]),
        "directory loop": _tiff(_fields(), following=8),
        "directory beyond the end": _tiff(_fields(), following=2**31),
        "tile beyond the end": _tiff(_fields({324: 2**31})),
        "byte count too large": _tiff(_fields({325: 2**31 - 1})),
        "byte count zero": _tiff(_fields({325: 0})),
        "byte count too small": _tiff(_fields({325: 17})),
        "overlapping strips": _tiff(
            [*_fields({278: 32}, no_tiles), _long(273, 1024, 2), _long(279, 2048, 2)]
        ),
        "strip of absurd rows": _tiff(_fields({**strips, 278: 2**31 - 1}, no_tiles)),
        "no rows in a strip": _tiff(_fields({**strips, 278: 0}, no_tiles)),
        "unknown compression": _tiff(_fields({259: 60000})),
        "wrong compression": _tiff(_fields({259: 8})),
        "999 bits": _tiff(_fields({258: 999})),
        "no bits": _tiff(_fields({258: 0})),
        "65535 samples": _tiff(_fields({277: 65535})),
        "no samples": _tiff(_fields({277: 0})),
        "empty directory": _tiff([]),
        "offset into the header": _tiff(_fields({324: 0})),
        "no width": _tiff(_fields(without=(256,))),
        "resolution not a number": _tiff([*_fields(), (282, 12, 1, b"\0\0\xf8\x7f")]),
    }


def _png_header(width: int, height: int) -> bytes:
    import zlib

    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def _hostile_files() -> dict[str, tuple[str, bytes]]:
    """By fault: a file's name, and its bytes."""
    npy = b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f8', 'shape': (9999999999,)}"
    files = {
        f"empty {suffix}": (f"empty{suffix}", b"")
        for suffix in (".tif", ".svs", ".png", ".jpg", ".ndpi", ".mrxs", ".czi", ".dcm")
    }
    files |= {
        f"random bytes {suffix}": (f"noise{suffix}", random.Random(suffix).randbytes(5000))
        for suffix in (".tif", ".svs", ".png", ".jpg", ".scn", ".bif", ".dcm")
    }
    files |= {
        "png bomb": ("bomb.png", _png_header(2**31 - 1, 2**31 - 1)),
        "png of no width": ("flat.png", _png_header(0, 10)),
        "png header only": ("head.png", _png_header(64, 64)),
        "jpeg header only": ("head.jpg", b"\xff\xd8\xff\xe0\x00\x10JFIF\0"),
        "array of numpy": ("array.npy", npy),
        "text as tiff": ("text.tif", b"this is not an image\n" * 99),
        "dicom header only": ("head.dcm", b"\0" * 128 + b"DICM"),
    }
    lies = {f"header: {lie}": (f"lie-{i}.tif", data) for i, (lie, data) in enumerate(_lies())}
    return files | lies


def _lies() -> list[tuple[str, bytes]]:
    return list(hostile_headers().items())


def hostile(folder: Path, good: dict[str, Path]) -> Iterator[BadInput]:
    """Lying headers, empty files, garbage in zarr's metadata, and things that are no files."""
    for number, (fault, (filename, data)) in enumerate(_hostile_files().items()):
        path = folder / f"hostile-{number}" / filename
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
        yield BadInput(f"hostile-{number}", fault.split(":")[0].split(" .")[0], path)
    yield from _bad_zarrs(folder, good["ome-zarr 0.5"])
    for name, fault, path in bad_rasters(folder / "rasters", good["geotiff masked"]):
        yield BadInput(name, fault, path)
    yield from _no_files(folder)
    for number, mpp in enumerate((float("nan"), -0.5, 0.0, float("inf"), 1e300)):
        yield BadInput(f"size-{number}", "pixel size in the manifest", good["tiff tiled"], mpp)


def _bad_zarrs(folder: Path, good: Path) -> Iterator[BadInput]:
    array = json.loads((good / "0" / "zarr.json").read_text())
    changes: list[object] = [
        {**array, "shape": [3, 2**40, 2**40]},
        {**array, "shape": [3, -1, 5]},
        {**array, "shape": "wide"},
        {**array, "data_type": "object"},
        {**array, "codecs": [{"name": "rot13"}]},
        {**array, "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0, 0, 0]}}},
        {**array, "zarr_format": 99},
        [],
    ]
    for number, change in enumerate(changes):
        path = folder / f"zarr-{number}" / "image.ome.zarr"
        shutil.copytree(good, path)
        (path / "0" / "zarr.json").write_text(json.dumps(change))
        yield BadInput(f"zarr-{number}", "zarr metadata", path)


def _no_files(folder: Path) -> Iterator[BadInput]:
    place = folder / "no-files"
    place.mkdir(parents=True)
    (place / "folder.tif").mkdir()
    (place / "loop.tif").symlink_to("loop.tif")
    (place / "dangling.tif").symlink_to("nothing.tif")
    (place / "device.tif").symlink_to("/dev/zero")
    os.mkfifo(place / "pipe.tif")
    (place / "bare.zarr").mkdir()
    for path in sorted(place.iterdir()):
        yield BadInput(f"no-file-{path.stem}", "no file", path)


def bad_inputs(folder: Path, data: Path | None, times: int, seed: int) -> list[BadInput]:
    """Every bad input; the more times, the more flips and cuts of every good file."""
    good = write_good(folder / "good")
    inputs = [*hostile(folder / "hostile", good), *damaged(good, folder / "drawn", times, seed)]
    if data is not None:
        real = {f"real {Path(name).name}": data / name for name in REAL}
        real = {k: p for k, p in real.items() if p.is_file() and p.stat().st_size < MOST_NBYTES}
        inputs += damaged(real, folder / "real", times, seed)
    return inputs
