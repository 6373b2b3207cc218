"""The mosaic and the split are made from any photographs: here a few small ones."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from saccade.pipeline.geometry import Box
from saccade.pipeline.sources import open_source

SCRIPTS = Path(__file__).parents[1] / "benchmarks"
SIZES = ((211, 307), (211, 307), (199, 283), (211, 307))
"""Heights and widths; one photograph is smaller than its cell."""


def run(script: str, *arguments: object) -> str:
    command = [sys.executable, str(SCRIPTS / script), *map(str, arguments)]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    return said.stdout


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Smooth pictures, so that JPEG keeps them, and their bits, in the flat layout."""
    folder = tmp_path_factory.mktemp("photographs")
    listed = []
    for index, (height, width) in enumerate(SIZES):
        y, x = np.mgrid[:height, :width]
        pixels = np.stack([x // 2, y // 2, np.full_like(x, 50 * index)], axis=-1).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"p{index}.jpg", quality=95)
        bits = np.zeros((height, width), np.uint8)
        bits[10 * index : 10 * index + 7, 20:33] = 1 << index
        Image.fromarray(bits).save(folder / f"p{index}_bits.png")
        listed.append({"id": f"p{index}", "split": "test" if index == 3 else "train"})
    (folder / "manifest.json").write_text(json.dumps(listed))
    return folder


@pytest.fixture(scope="module")
def ready(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ready")
    run("idrid.py", photographs, "-o", out, "--validation", 1)
    return out


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_test_images_stay_test_images_and_the_rest_is_parted_by_seed(
    photographs: Path, ready: Path, tmp_path: Path
) -> None:
    parts = {row["name"]: row["part"] for row in rows(ready / "split.csv")}
    assert parts["p3"] == "test"
    assert sorted(parts.values()) == ["test", "train", "train", "validation"]
    run("idrid.py", photographs, "-o", tmp_path, "--validation", 1)
    assert (tmp_path / "split.csv").read_text() == (ready / "split.csv").read_text()


def test_images_are_found_from_the_manifest_s_folder(ready: Path) -> None:
    assert all((ready / row["image"]).is_file() for row in rows(ready / "images.csv"))


def test_masks_of_the_published_archive_are_gathered_into_bits(tmp_path: Path) -> None:
    images = tmp_path / "A. Segmentation" / "1. Original Images" / "b. Testing Set"
    truth = tmp_path / "A. Segmentation" / "2. All Segmentation Groundtruths" / "b. Testing Set"
    images.mkdir(parents=True)
    Image.new("RGB", (31, 23)).save(images / "IDRiD_55.jpg")
    for folder, suffix, box in (
        ("1. Microaneurysms", "MA", (3, 5, 7, 11)),
        ("3. Hard Exudates", "EX", (5, 5, 9, 11)),
    ):
        (truth / folder).mkdir(parents=True)
        mask = Image.new("RGBA", (31, 23), (0, 0, 0, 255))
        mask.paste((255, 0, 0, 255), box)
        mask.save(truth / folder / f"IDRiD_55_{suffix}.tif")
    run("idrid.py", tmp_path, "-o", tmp_path / "out")
    bits = np.asarray(Image.open(tmp_path / "out" / "bits" / "IDRiD_55_bits.png"))
    wanted = np.zeros((23, 31), np.uint8)
    wanted[5:11, 3:7] |= 1
    wanted[5:11, 5:9] |= 4
    np.testing.assert_array_equal(bits, wanted)


def test_the_mosaic_holds_every_photograph_where_it_says(
    photographs: Path, ready: Path, tmp_path: Path
) -> None:
    path = tmp_path / "mosaic.tif"
    assert "mosaic of 4 photographs" in run("mosaic.py", ready, "-o", path)
    notes = json.loads(path.with_suffix(".json").read_text())
    truth = tifffile.imread(path.with_name("mosaic_bits.tif"))
    assert [part["part"] == "test" for part in notes["photographs"]] == [False, False, False, True]
    with closing(open_source(path)) as source:
        assert source.levels[0].shape == tuple(notes["shape"])
        whole = source.read(0, Box.of(source.levels[0].shape))
        half = source.read(1, Box.of(source.levels[1].shape))
    rest = np.ones(truth.shape, bool)
    for part in notes["photographs"]:
        box = Box(part["y0"], part["x0"], part["y1"], part["x1"])
        given = np.asarray(Image.open(photographs / f"{part['name']}.jpg")).astype(int)
        assert np.abs(whole[box.slices] - given).mean() < 3
        bits = np.asarray(Image.open(photographs / f"{part['name']}_bits.png"))
        np.testing.assert_array_equal(truth[box.slices], bits)
        rest[box.slices] = False
    assert not truth[rest].any()
    means = whole.reshape(half.shape[0], 2, half.shape[1], 2, 3).mean(axis=(1, 3))
    assert np.abs(half - means).mean() < 2
