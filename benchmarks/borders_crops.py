"""Images of different sizes cut from a few, and the recipe of ``borders_device.py`` for them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import tifffile

from saccade.jobs.sample import block_mean
from saccade.pipeline.geometry import Box, Shape
from saccade.pipeline.sources import open_source

DEVICE = Path(__file__).with_name("borders_device.py")
SMALLEST = 0.4
"""Shortest side of a crop, of its image's."""
STEP, LEVELS, TILE_PX = 4, 3, 256
"""Downsample from one level to the next, levels, and the side of a JPEG tile."""

RECIPE = """\
version: 1
passes:
  - name: glance
    resolution: {{downsample: 16}}
    model: {{source: "{model}:build", options: {{seconds_per_megapixel: {pace}, stride: 1}}}}
  - name: refine
    resolution: {{downsample: 1}}
    model: {{source: "{model}:build", options: {{seconds_per_megapixel: {pace}, stride: 4}}}}
    select: {{by: foreground, above: 0.5, share: 0.02}}
"""


def recipe_text(seconds_per_megapixel: float) -> str:
    """Two passes with a selection between them, at one pace."""
    return RECIPE.format(model=DEVICE, pace=seconds_per_megapixel)


def write_crops(images: Sequence[Path], count: int, folder: Path) -> list[Path]:
    """Write so many crops, of sides drawn at random but the same every time; pyramids of JPEG."""
    chance, written = random.Random(11), []
    for number in range(count):
        image = images[number % len(images)]
        with closing(open_source(str(image))) as source:
            box = drawn_box(source.levels[0].shape, chance)
            pixels = source.read(0, box)[..., :3]
        path = folder / f"crop-{number:03d}.tif"
        with tifffile.TiffWriter(path) as file:
            for level in range(LEVELS):
                file.write(
                    pixels,
                    tile=(TILE_PX, TILE_PX),
                    photometric="rgb",
                    compression="jpeg",
                    subfiletype=1 if level else 0,
                )
                pixels = block_mean(pixels)
        written.append(path)
    return written


def drawn_box(shape: Shape, chance: random.Random) -> Box:
    """A box in an image, each side between the smallest share and the whole; of whole cells."""
    sides = [int(side * chance.uniform(SMALLEST, 1.0)) // 64 * 64 for side in shape]
    y0, x0 = (chance.randint(0, most - side) for most, side in zip(shape, sides, strict=True))
    return Box(y0, x0, y0 + sides[0], x0 + sides[1])
