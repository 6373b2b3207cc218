"""Bad rasters: tags of nonsense, descriptions that name nothing, themselves, or too much.

And a good one with all that a raster may have, for others to damage. Knows nothing of runs.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile


def write_masked(path: Path, pixels: np.ndarray) -> Path:
    """A place on the ground, nodata, an overview, and a mask for each of the two."""
    tags = [
        (33550, "d", 3, (10.0, 10.0, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, 5e5, 4e6, 0.0), True),
        (34735, "H", 16, (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32618), True),
        (42113, "s", 0, "9", True),
    ]
    with tifffile.TiffWriter(path) as writer:
        for step in (1, 2):
            level, kind, more = pixels[::step, ::step], int(step > 1), tags if step == 1 else []
            plain = {"tile": (64, 64), "compression": "deflate", "metadata": None}
            writer.write(level, photometric="rgb", subfiletype=kind, extratags=more, **plain)
            mask = level.min(axis=2) > 180
            writer.write(mask, photometric="mask", subfiletype=kind | 4, **plain)
    return path


def _vrt(source: str, side: float = 128, band: object = 1, more: str = "") -> str:
    """A VRT that places one file."""
    rectangle = f'xOff="0" yOff="0" xSize="{side}" ySize="{side}"'
    return (
        f'<VRTDataset rasterXSize="{side}" rasterYSize="{side}">{more}'
        f'<VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">{source}</SourceFilename><SourceBand>{band}'
        f"</SourceBand><SrcRect {rectangle}/><DstRect {rectangle}/></SimpleSource>"
        "</VRTRasterBand></VRTDataset>"
    )


def bad_rasters(folder: Path, good: Path) -> Iterator[tuple[str, str, Path]]:
    """Descriptions that name nothing, themselves, or more than there is; tags of nonsense.

    Args:
        folder: where they are written.
        good: a raster that descriptions may name.

    Yields:
        A unique name, the row of the table that it counts in, and the file.
    """
    folder.mkdir(parents=True)
    shutil.copy(good, folder / "good.tif")
    texts = {
        "missing.vrt": _vrt("nowhere.tif"),
        "itself.vrt": _vrt("itself.vrt"),
        "ring.vrt": _vrt("ring.mosaic.yaml"),
        "ring.mosaic.yaml": "mosaic: {files: [ring.vrt, ring.mosaic.yaml]}",
        "huge.vrt": _vrt("good.tif", side=2**31 - 1),
        "no-side.vrt": _vrt("good.tif", side=float("nan")),
        "no-band.vrt": _vrt("good.tif", band="²"),
        "no-place.vrt": _vrt("good.tif", more="<GeoTransform>0,0,0,0,0,0</GeoTransform>"),
        "short-place.vrt": _vrt("good.tif", more="<GeoTransform>1,2</GeoTransform>"),
        "nodata.mosaic.yaml": "mosaic: {files: [good.tif], nodata: 1.0e+40}",
        "none.mosaic.yaml": "mosaic: {files: ['none-*.tif']}",
        "deep.mosaic.yaml": "mosaic: {items: deep.json}",
    }
    (folder / "deep.json").write_text("[" * 100_000)
    for name, text in texts.items():
        (folder / name).write_text(text)
        yield f"raster-{name.split('.m')[0]}", "raster description", folder / name
    for number, tag in enumerate(_bad_tags()):
        path = folder / f"tags-{number}.tif"
        pixels = np.full((64, 64), 100 + number, np.uint8)
        tifffile.imwrite(path, pixels, tile=(64, 64), metadata=None, extratags=[tag])
        yield f"tags-{number}", "raster tags", path
    for kind in ("complex64", "uint64", "float16"):
        path = folder / f"{kind}.tif"
        tifffile.imwrite(path, np.ones((64, 64), kind), tile=(64, 64), photometric="minisblack")
        yield f"samples-{kind}", "raster samples", path


def _bad_tags() -> list[tuple[int, str, int, object, bool]]:
    keys = (1, 1, 0, 1, 3072, 0, 1)
    none, nothing = float("nan"), (0.0,) * 16
    return [
        (34735, "H", 8, (*keys, 0), True),
        (34735, "H", 8, (*keys, 65535), True),
        (34735, "H", 1, (1,), True),
        (33550, "d", 3, (none, 10.0, 0.0), True),
        (33550, "d", 1, (10.0,), True),
        (34264, "d", 16, nothing, True),
        (42113, "s", 0, "abc", True),
        (42113, "s", 0, "9" * 400, True),
        (42112, "s", 0, "<GDALMetadata><Item name='SCALE' sample='x'>", True),
    ]
