"""A run of thousands of images, each complete or partly done, as saccade itself would leave it.

Two images are really run, one to its end and one until it is asked to stop; their plans, results
and journal lines are then repeated under as many names as wanted. Files of results are hard links,
which no reader can tell from copies, and which a replace does not write through; of a complete
image there is only the metadata at the root, because nothing else of it is ever looked at again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from saccade.jobs.driver import run
from saccade.jobs.journals.journal import Journal
from saccade.jobs.manifests.manifest import entry_to_json, find_images
from saccade.jobs.monitoring.tally import Tally
from saccade.jobs.options import RunOptions
from saccade.jobs.stopping import StopSignal
from saccade.pipeline.errors import Interrupted
from saccade.pipeline.plan import Unit, single_unit, unit_id
from saccade.workers.folder import RunFolder, write_whole

SIDE_PX = 512
LOCAL = RunOptions(workers="local:1", device="cpu")
RECIPE = """\
version: 1
passes:
  - name: glance
    resolution: {downsample: 4}
    model: builtin:tissue
    tile: 64
  - name: refine
    resolution: {downsample: 1}
    model: builtin:hematoxylin
    tile: 64
    select: {by: top_fraction, fraction: 0.5}
output: {chunk: 64, shard: 128}
"""
"""Two passes; 20 units an image, 16 of them of the last pass."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """One image that was really run, and what it left."""

    folder: RunFolder
    """Of its own run."""
    image: Path
    """Its pixels."""
    lines: str
    """Its lines of the journal, without head and end."""
    units: tuple[Unit, ...]
    """All of its units."""
    partial: bool
    """Whether it was stopped midway."""

    @property
    def name(self) -> str:
        """In its run."""
        return self.image.stem

    def renamed(self, name: str, image: Path) -> Mapping[str, str]:
        """What is another text once the image has another name and place."""
        layouts = self.folder.read_image_plan(self.name).passes
        renamed = {str(self.image): str(image), f'"{self.name}"': f'"{name}"'}
        for unit in self.units:
            layout = layouts[unit.pass_index] if unit.kind in ("sweep", "select") else None
            region = unit.region if unit.kind == "sweep" else None
            renamed[unit.id] = unit_id(name, unit.kind, layout, region)
        return renamed


def write_image(path: Path, seed: int) -> None:
    """A small tissue-coloured tiled TIFF."""
    random = np.random.default_rng(seed)
    coarse = random.integers((150, 60, 120), (250, 200, 230), (8, 8, 3), np.uint8)
    pixels = np.kron(coarse, np.ones((SIDE_PX // 8, SIDE_PX // 8, 1), np.uint8))
    tifffile.imwrite(path, pixels, tile=(128, 128), photometric="rgb", compression="zlib")


def pattern(recipe: Path, folder: Path, stop_after: int | None) -> Pattern:
    """Run one image, to its end or until so many units of its last pass are done."""
    folder.mkdir(parents=True)
    image = folder / ("whole.tif" if stop_after is None else "partial.tif")
    write_image(image, seed=11)
    stop = StopSignal()

    def watch(tally: Tally, over: bool) -> None:
        del over
        done = tally.images[image.stem].units.get("refine", [0, 0])[0]
        if stop_after is not None and done >= stop_after:
            stop.request()

    try:
        run(recipe, [image], folder / "run", LOCAL, observe=watch, stop=stop)
    except Interrupted:
        assert stop_after is not None
    return _read_pattern(RunFolder(folder / "run"), image, stop_after is not None)


def _read_pattern(folder: RunFolder, image: Path, partial: bool) -> Pattern:
    plan = folder.read_image_plan(image.stem)
    lines = (folder.journal / "000001.jsonl").read_text().splitlines(keepends=True)
    mine = "".join(line for line in lines if '"image":' in line)
    singles = [
        single_unit(image.stem, "prepare", 0),
        single_unit(image.stem, "select", 1, plan.passes[1]),
        single_unit(image.stem, "finalise", 2),
    ]
    sweeps = (unit for layout in plan.passes for unit in folder.read_units(image.stem, layout))
    return Pattern(folder, image, mine, (*singles, *sweeps), partial)


def build(root: Path, images: int) -> tuple[Path, Path, Path]:
    """Make a run of so many images, every other one complete; its recipe, images and folder."""
    recipe = root / "recipe.yaml"
    recipe.parent.mkdir(parents=True, exist_ok=True)
    recipe.write_text(RECIPE)
    patterns = pattern(recipe, root / "a", None), pattern(recipe, root / "b", 8)
    folder = RunFolder(root / "run")
    (root / "images").mkdir()
    folder.root.mkdir()
    for path in (patterns[0].folder.identity, patterns[0].folder.recipe):
        shutil.copy(path, folder.root)
    # one driver made all of it, and was stopped
    with Journal.open(folder.journal) as journal, journal.path.open("a") as file:
        for number in range(images):
            file.write(_repeat(patterns[number % 2], folder, root / "images", number))
    entries = find_images([str(root / "images")])
    write_whole(folder.images, "".join(entry_to_json(entry) + "\n" for entry in entries))
    return recipe, root / "images", folder.root


def _repeat(made: Pattern, folder: RunFolder, images: Path, number: int) -> str:
    """One more image like a pattern; returns its lines of the journal."""
    name = f"image-{number:05d}"
    image = images / f"{name}.tif"
    shutil.copy2(made.image, image)
    renamed = made.renamed(name, image)
    for path in made.folder.image_plan(made.name).parent.iterdir():
        _copy(path, folder.image_plan(name).parent / path.name, renamed)
    root = made.folder.result(made.name) / "zarr.json"
    _copy(root, folder.result(name) / root.name, renamed)
    if made.partial:
        _link_tree(root.parent, folder.result(name))
    return _replaced(made.lines, renamed)


def _copy(old: Path, new: Path, renamed: Mapping[str, str]) -> None:
    new.parent.mkdir(parents=True, exist_ok=True)
    new.write_text(_replaced(old.read_text(), renamed))


def _link_tree(old: Path, new: Path) -> None:
    """Everything but the metadata at the root."""
    for path in _files(old):
        target = new / path.relative_to(old)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path != old / "zarr.json":
            target.hardlink_to(path)


def _files(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        yield from (Path(place) / name for name in names)


def _replaced(text: str, renamed: Mapping[str, str]) -> str:
    for old, new in renamed.items():
        text = text.replace(old, new)
    return text
