"""A tiny training that tests run: generated images with bright spots on them, a tiny network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

from saccade.pipeline.models.base import ModelSpec
from saccade.pipeline.models.seeding import seeded

MODEL = """
from training import TinyNet


def tiny(**options):
    return TinyNet(**options)
"""


class TinyNet(nn.Module):
    """Two convolutions, guidance added, features and its own opinion of itself given."""

    def __init__(
        self,
        classes: int = 1,
        width: int = 8,
        takes: bool = False,
        seed: int = 0,
        channels: int = 3,
        context: tuple[float, ...] = (),
    ):
        super().__init__()
        with seeded(seed):
            self.first = nn.Conv2d(channels, width, 3, 2, 1)
            self.norm = nn.BatchNorm2d(width)
            self.second = nn.Conv2d(width, width, 3, 1, 1)
            self.guide = nn.Conv2d(classes, width, 1, 2, bias=False)
            self.head = nn.Conv2d(width, classes + 2, 1)
        self.classes = classes
        self.told: list[Tensor] = []
        names = tuple(f"spot{i}" if i else "spot" for i in range(classes))
        self.saccade = ModelSpec(
            names,
            halo_px=6,
            stride=2,
            multiple=8,
            activation="sigmoid",
            guidance=True,
            pixel_size="downsample",
            features=(width, 2),
            takes_features=width if takes else 0,
            channels=channels,
            context=tuple(context),
        )

    def forward(
        self,
        x: Tensor,
        guidance: Tensor | None = None,
        features: Tensor | None = None,
        pixel_size: Tensor | None = None,
        context: tuple[Tensor, ...] = (),
    ) -> dict[str, Tensor]:
        hidden = self.norm(self.first(x))
        for wide in context:
            hidden = hidden + wide.mean()
        if guidance is not None:
            hidden = hidden + self.guide(guidance)
        if features is not None:
            hidden = hidden + features
        if pixel_size is not None:
            self.told.append(pixel_size.detach())
        hidden = torch.relu(self.second(torch.relu(hidden)))
        said = self.head(hidden)
        own = said[:, self.classes :].sigmoid()
        return {
            "scores": said[:, : self.classes],
            "saliency": own[:, :1],
            "confidence": own[:, 1:],
            "features": hidden,
        }


def spots(seed: int, height: int = 160, width: int = 208) -> tuple[np.ndarray, np.ndarray]:
    """An RGB image, dark with a grey disc and bright spots on it, and where the spots are."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    image = generator.integers(0, 9, (height, width, 3), np.uint8)
    disc = (y - height / 2) ** 2 + (x - width / 2) ** 2 < (0.45 * height) ** 2
    image[disc] += 90
    truth = np.zeros((height, width), bool)
    for _ in range(5):
        cy, cx = height * generator.uniform(0.3, 0.7), width * generator.uniform(0.35, 0.65)
        truth |= (y - cy) ** 2 + (x - cx) ** 2 < 5**2
    image[truth, 0] += 110
    return image, truth


def write_set(folder: Path, images: int = 4) -> Path:
    """Images, truth and split; the last image is for validation."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "net.py").write_text(MODEL)
    rows, parts = ["image,name"], ["name,part"]
    for number in range(images):
        image, truth = spots(number)
        Image.fromarray(image).save(folder / f"i{number}.png")
        Image.fromarray(truth.astype(np.uint8) * 2).save(folder / f"i{number}_bits.png")
        rows.append(f"i{number}.png,i{number}")
        parts.append(f"i{number},{'validation' if number == images - 1 else 'train'}")
    (folder / "images.csv").write_text("\n".join(rows) + "\n")
    (folder / "split.csv").write_text("\n".join(parts) + "\n")
    truth_file = {"path": "{name}_bits.png", "classes": {"spot": {"bit": 2}}}
    (folder / "truth.yaml").write_text(yaml.safe_dump(truth_file))
    return folder


NODATA = 60000
HOLE = np.s_[80:160, 80:160]
"""Without data in every band; whole pixels of every pass."""
BAND_HOLE = np.s_[3:31, 170:233, 2]
"""Without data in one band only."""
BANDS = ("red", "green", "blue", "nir")


STRIPS = np.zeros((240, 320), bool)
"""A raster of which little holds data: two narrow strips."""
STRIPS[:, 150:155] = STRIPS[200:203] = True


def raster(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """``(h, w, 4)`` uint16 with spots and holes, and where spots are."""
    image, truth = spots(seed, 240, 320)
    generator = np.random.default_rng(seed)
    pixels = np.repeat(image[..., :1].astype(np.uint16), len(BANDS), axis=2) * 31
    pixels += generator.integers(0, 2000, pixels.shape, np.uint16)
    pixels += np.arange(len(BANDS), dtype=np.uint16) * 1013
    pixels[HOLE] = NODATA
    pixels[BAND_HOLE] = NODATA
    truth[HOLE] = False
    return pixels, truth


def write_rasters(folder: Path, images: int = 4, *, truth_in_hole: bool = True) -> Path:
    """As ``write_set``, of rasters with four bands, scales, holes and overviews by nearest."""
    write_set(folder, images)
    rows = ["image,name"]
    for number in range(images):
        pixels, truth = raster(number)
        truth[HOLE][20:30, 20:40] = truth_in_hole
        write_raster(folder / f"i{number}.tif", pixels)
        Image.fromarray(truth.astype(np.uint8) * 2).save(folder / f"i{number}_bits.png")
        rows.append(f"i{number}.tif,i{number}")
    (folder / "images.csv").write_text("\n".join(rows) + "\n")
    return folder


def write_raster(path: Path, pixels: np.ndarray, nodata: int | None = NODATA) -> None:
    """A GeoTIFF with overviews that leave pixels out."""
    import rasterio
    from rasterio.enums import Resampling
    from rasterio.transform import Affine

    height, width, count = pixels.shape
    profile = {"driver": "GTiff", "dtype": pixels.dtype, "count": count, "nodata": nodata}
    profile |= {"height": height, "width": width, "tiled": True, "blockxsize": 64}
    profile |= {"blockysize": 64, "crs": "EPSG:32618", "transform": Affine(10, 0, 5e5, 0, -10, 4e6)}
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(np.moveaxis(pixels, -1, 0))
        dataset.descriptions = BANDS[:count]
        dataset.scales = [1e-4, 2e-4, -3e-4, 4e-4][:count]
        dataset.offsets = [0.1, 0, 7, -0.2][:count]
        dataset.build_overviews([2, 4], Resampling.nearest)


def tree(**changes: Any) -> dict[str, Any]:
    """A configuration of three passes; ``changes`` replace whole parts of it."""
    passes = [
        {"name": "glance", "resolution": {"downsample": 4}, "crop": 32},
        {"name": "focus", "resolution": {"downsample": 2.5}, "crop": 32},
        {"name": "refine", "resolution": {"downsample": 1}, "crop": 32},
    ]
    return {
        "data": {"images": "images.csv", "truth": "truth.yaml", "split": "split.csv"},
        "passes": passes,
        "model": {"source": "net.py:tiny"},
        "sampling": {"groups": 4, "per_image": 4},
        "schedule": [{"steps": 6, "train": ["glance", "focus", "refine"]}],
        "optimiser": {"learning_rate": 1e-2, "warmup": 1},
        "output": {"folder": "out", "every": 3, "validation_groups": 3},
        **changes,
    }


def write_config(folder: Path, name: str = "train.yaml", **changes: Any) -> Path:
    """The configuration as a file beside the set."""
    path = folder / name
    path.write_text(yaml.safe_dump(tree(**changes)))
    return path
