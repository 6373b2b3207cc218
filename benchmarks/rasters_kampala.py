"""Buildings in one aerial photograph: trained on its left half, answered on its right third.

One georeferenced raster and one raster of building footprints on the same grid (here Kampala:
OpenAerialMap, CC BY 4.0; labels of OpenStreetMap, ODbL). Columns are cut into three files that do
not touch: half of them to learn from, a sixth for the threshold, a third that nothing else sees.
"""

from __future__ import annotations

import csv
from pathlib import Path

import rasterio
from rasterio.windows import Window

PARTS = {"train": (0, 6), "validation": (6, 8), "test": (8, 12)}
"""Of each part the columns, in twelfths of the width."""


def cut(raster: Path, folder: Path) -> dict[str, Path]:
    """The raster's parts as files of their own, each in its place on the ground."""
    folder.mkdir(parents=True, exist_ok=True)
    with rasterio.open(raster) as whole:
        return {part: _cut(whole, part, folder / f"{part}.tif") for part in PARTS}


def _cut(whole: rasterio.DatasetReader, part: str, path: Path) -> Path:
    first, last = (twelfths * whole.width // 12 for twelfths in PARTS[part])
    window = Window(first, 0, last - first, whole.height)
    profile = whole.profile | {
        "width": last - first,
        "transform": whole.window_transform(window),
        "photometric": None,
    }
    profile = {key: value for key, value in profile.items() if value is not None}
    with rasterio.open(path, "w", **profile) as file:
        file.write(whole.read(window=window))
    return path


def prepare(raster: Path, truth: Path, out: Path) -> None:
    """The parts, ``images.csv``, ``split.csv`` and ``truth.yaml`` in a folder."""
    images = cut(raster, out / "images")
    cut(truth, out / "truth")
    _write(out / "images.csv", ("image", "name"), [(f"images/{p}.tif", p) for p in images])
    _write(out / "split.csv", ("name", "part"), [(part, part) for part in images])
    text = "path: truth/{name}.tif\nclasses:\n  building: {above: 0}\n"
    (out / "truth.yaml").write_text(text, encoding="utf-8")


def _write(path: Path, head: tuple[str, ...], rows: list[tuple[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([head, *rows])
