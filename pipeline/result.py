"""Opening a result: lazy arrays, who answered where, and a summary. Finished or not, one interface.

A finished image is read from its arrays. An unfinished one is composed from its passes as it is
asked for, by the function that the engine writes with: after the glance there is a map of the whole
image, and it only gets finer. Knows no worker and no journal; a result may be moved or copied.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np

from saccade.pipeline.compose import FusedRegion, compose_region
from saccade.pipeline.coverage import compose_coverage, tile_counts
from saccade.pipeline.errors import StoreError
from saccade.pipeline.fusion import dequantise, halve_mean, halve_mode
from saccade.pipeline.geometry import Box
from saccade.pipeline.image_plan import COVERAGE_NODATA, ImagePlan
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.pyramid import halve_scores
from saccade.pipeline.remote import at_once, list_folders
from saccade.pipeline.remote_stores import file_name, is_remote, join
from saccade.pipeline.result_arrays import (
    Halve,
    halved_with,
    lazy_array,
    pyramid,
    stored_array,
)
from saccade.pipeline.results_place import results_elsewhere
from saccade.pipeline.selection import Selection
from saccade.pipeline.sources.base import PixelSize
from saccade.pipeline.store import ImageStore
from saccade.pipeline.store_layout import COVERAGE, STATUS, labels_path, pass_path, scores_path
from saccade.pipeline.store_object_shelf import Where, shelf_for

SUFFIX = ".ome.zarr"


def open_result(path: str | Path) -> Result:
    """Open what a run has made so far.

    Args:
        path: a run folder, or the result of one image (``NAME.ome.zarr``), also as a URI.

    Returns:
        A result. That of a run with several images says which in ``images``, and
        ``result["name"]`` is one of them; with a single image it is that image at once.

    Raises:
        StoreError: neither a run folder nor a result lies there.
        StorageGone: the object store that holds results does not answer.
    """
    if is_remote(str(path)):
        return _open_remote(str(path).rstrip("/"), None)
    path = Path(path)
    if (path / "zarr.json").is_file():
        return Result({path.name.removesuffix(SUFFIX): path}, path.parent.parent)
    if (elsewhere := results_elsewhere(path)) is not None:
        return _open_remote(elsewhere, path)
    folder = path / "results"
    if not (folder.is_dir() or (path / "run.json").is_file()):
        raise StoreError(
            f"{path}: a run folder or an image's result (NAME{SUFFIX}) expected, and this is "
            f"{'neither' if path.exists() else 'not there'}; check the path"
        )
    found = sorted(p for p in folder.glob(f"*{SUFFIX}") if (p / "zarr.json").is_file())
    return Result({p.name.removesuffix(SUFFIX): p for p in found}, path)


def _open_remote(uri: str, run: Path | None) -> Result:
    if uri.endswith(SUFFIX):
        return Result({file_name(uri).removesuffix(SUFFIX): uri}, run)
    names = [name for name in list_folders(uri) if name.endswith(SUFFIX)]
    begun = at_once(lambda name: shelf_for(join(uri, name)).get("zarr.json") is not None, names)
    found = [name for name, there in zip(names, begun, strict=True) if there]
    if not found and run is None:
        raise StoreError(f"{uri}: results of a run (NAME{SUFFIX}) expected, found none there")
    return Result({name.removesuffix(SUFFIX): join(uri, name) for name in found}, run)


class Result:
    """The result of one image; or of several, to be picked from by name."""

    def __init__(self, paths: Mapping[str, Where], run: Path | None = None) -> None:
        self._paths = dict(paths)
        self._run = run
        if len(self._paths) == 1:
            # Read now: finished or not, it stays what it was when it was opened.
            _ = self.facts

    # -------------------------------------------------------------------------------- which image

    @property
    def images(self) -> tuple[str, ...]:
        """Names of the images that have a result, complete or not."""
        return tuple(self._paths)

    def __getitem__(self, name: str) -> Result:
        if name not in self._paths:
            raise KeyError(f"no image {name!r}; there are {', '.join(self.images) or 'none yet'}")
        return Result({name: self._paths[name]}, self._run)

    @cached_property
    def _path(self) -> Where:
        if len(self._paths) != 1:
            raise StoreError(
                f"one image expected, this run has {len(self._paths)} with a result; "
                f"pick one: result[{next(iter(self._paths), 'name')!r}]"
            )
        return next(iter(self._paths.values()))

    @cached_property
    def _store(self) -> ImageStore:
        return ImageStore.open(self._path)

    def __repr__(self) -> str:
        if len(self._paths) != 1:
            return f"<Result of {len(self._paths)} images>"
        state = "complete" if self.complete else "unfinished"
        height, width = self.plan.shape
        return f"<Result {self.plan.name}: {height} x {width}, {', '.join(self.classes)}, {state}>"

    # -------------------------------------------------------------------------------------- facts

    @property
    def plan(self) -> ImagePlan:
        """How every pass lies over the image."""
        return self._store.plan

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What the result is made of: state, recipe, versions, tiles per pass."""
        return self._store.facts

    @property
    def complete(self) -> bool:
        """Whether the image was finished when it was opened."""
        return bool(self.facts["state"] == "complete")

    @property
    def classes(self) -> tuple[str, ...]:
        """Of the fused scores, in order."""
        return self.plan.classes

    @property
    def pixel_size(self) -> PixelSize | None:
        """Of the fused result; None where the image states none."""
        return self.plan.pixel_size_of(self.plan.last.score_downsample)

    # ------------------------------------------------------------------------------------- arrays

    @property
    def fused(self) -> da.Array:
        """``(C, H, W)``, lazy, as stored: uint8 probabilities times 255, or floats."""
        return self.levels[0]

    @property
    def scores(self) -> da.Array:
        """``(C, H, W)`` float32 probabilities in [0, 1], lazy."""
        return self.fused.map_blocks(dequantise, dtype=np.float32)

    @property
    def labels(self) -> da.Array:
        """``(H, W)`` uint8, lazy: the class's index; of a single class 1.

        254 where the image has no data, 255 where nobody answered.
        """
        return self.label_levels[0]

    @cached_property
    def levels(self) -> tuple[da.Array, ...]:
        """The pyramid of ``fused``, finest first; each level half as high and wide."""
        if self._stored:
            return self._stored_levels(scores_path, halve_mean)
        levels = self._composed_levels(scores_path, lambda region: region.scores, halve_mean)
        return self._of_valid(levels) if self.plan.last.holes else levels

    def _of_valid(self, levels: tuple[da.Array, ...]) -> tuple[da.Array, ...]:
        """The pyramid of the first level, by means over the pixels that have data."""
        masked = [levels[0]]
        for labels, below in zip(self.label_levels, levels[1:], strict=False):
            masked.append(halved_with(masked[-1], labels, halve_scores).rechunk(below.chunks))
        return tuple(masked)

    @cached_property
    def label_levels(self) -> tuple[da.Array, ...]:
        """The pyramid of ``labels``, finest first."""
        if self._stored:
            return self._stored_levels(labels_path, halve_mode)
        return self._composed_levels(labels_path, lambda region: region.labels, halve_mode)

    def region(self, box: Box) -> FusedRegion:
        """Scores and labels of one box of the finest level, read at once: no graph, no threads."""
        store = self._store
        if not self._stored:
            return compose_region(store, self.plan, box)
        return FusedRegion(store.read(scores_path(0), box), store.read(labels_path(0), box))

    def region_labels(self, box: Box) -> np.ndarray:
        """Labels of one box of the finest level, ``(h, w)`` uint8, read at once."""
        if not self._stored:
            return self.region(box).labels
        return self._store.read(labels_path(0), box)

    def region_channel(self, index: int, box: Box) -> np.ndarray:
        """One class's scores in one box of the finest level, ``(h, w)`` as stored, read at once."""
        if not self._stored:
            scores: np.ndarray = self.region(box).scores[index]
            return scores
        return self._store.read_channel(scores_path(0), index, box)

    @property
    def _stored(self) -> bool:
        """Whether the fused arrays themselves are the best there is."""
        return self.complete or len(self.plan.passes) == 1

    def _stored_levels(self, path: Callable[[int], str], halve: Halve) -> tuple[da.Array, ...]:
        count = len(self.plan.pyramid_shapes)
        stored = count if self.complete else self.plan.levels_in_unit
        levels = [stored_array(self._store, path(level)) for level in range(stored)]
        return (*levels[:-1], *pyramid(levels[-1], count - stored + 1, halve))

    def _composed_levels(
        self, path: Callable[[int], str], part: Callable[[FusedRegion], np.ndarray], halve: Halve
    ) -> tuple[da.Array, ...]:
        store, plan = self._store, self.plan
        spec = store.spec(path(0))
        level = lazy_array(spec, lambda box: part(compose_region(store, plan, box)))
        return pyramid(level, len(plan.pyramid_shapes), halve)

    # --------------------------------------------------------------------------------- who answered

    @cached_property
    def passes(self) -> dict[str, PassResult]:
        """By name, the passes whose own arrays are there; after completion those kept."""
        return {
            layout.name: PassResult(self, layout)
            for layout in self.plan.passes
            if self._store.has(pass_path(layout.name, "status"))
        }

    @property
    def coverage(self) -> np.ndarray:
        """``(tile rows, tile columns)`` uint8: ``k + 1`` where pass ``k`` answered.

        254 where the tile has no data, 255 where it could not be read, 0 where nobody answered.
        """
        return self._tile_arrays[0]

    @property
    def status(self) -> np.ndarray:
        """``(tile rows, tile columns)`` uint8: how the answers fared, ``image_plan.STATUS_*``."""
        return self._tile_arrays[1]

    @cached_property
    def _tile_arrays(self) -> tuple[np.ndarray, np.ndarray]:
        cells = Box(0, 0, self.plan.tiles.rows, self.plan.tiles.columns)
        if self.complete:
            return self._store.read(COVERAGE, cells), self._store.read(STATUS, cells)
        found = [self.passes.get(layout.name) for layout in self.plan.passes]
        statuses = [None if one is None else one.status for one in found]
        return compose_coverage(self.plan, statuses, cells)

    def summary(self) -> dict[str, Any]:
        """The result in numbers.

        Returns:
            ``image``, ``state``, ``passes`` (per pass its tiles and how many were visited, degraded
            and failed; also of passes that were not kept), ``refined`` (share of the image's area
            that the last pass answered), ``answered`` (share that any pass did), ``nodata`` (share
            of it in tiles without any data, where there are some).
        """
        passes = {name: one.summary() for name, one in self.passes.items()}
        recorded = self.facts.get("passes", {})
        return {
            "image": self.plan.name,
            "state": self.facts["state"],
            "passes": {
                p.name: recorded.get(p.name) or passes.get(p.name) for p in self.plan.passes
            },
            "refined": self._share(self.coverage == len(self.plan.passes)),
            "answered": self._share((self.coverage > 0) & (self.coverage < COVERAGE_NODATA)),
        } | self._without_data()

    def _without_data(self) -> dict[str, float]:
        """Share of the image's area in tiles without data, where there are some."""
        empty = self.coverage == COVERAGE_NODATA
        return {"nodata": self._share(empty)} if empty.any() else {}

    def _share(self, tiles: np.ndarray) -> float:
        """Share of the image's area in some tiles; edge tiles are smaller."""
        grid = self.plan.tiles
        heights = np.minimum(grid.tile_px, grid.shape[0] - np.arange(grid.rows) * grid.tile_px)
        widths = np.minimum(grid.tile_px, grid.shape[1] - np.arange(grid.columns) * grid.tile_px)
        area = float(heights @ tiles.astype(np.int64) @ widths)
        return area / (grid.shape[0] * grid.shape[1])


@dataclass(frozen=True, slots=True, eq=False)
class PassResult:
    """What one pass found."""

    result: Result
    """Of the image."""
    layout: PassLayout
    """How the pass lies over it."""

    @property
    def scores(self) -> da.Array:
        """``(classes, h, w)``, lazy, as stored, at the pass's own resolution."""
        if len(self.result.plan.passes) == 1:
            return self.result.fused
        return stored_array(self.result._store, pass_path(self.layout.name, "scores"))

    @property
    def saliency(self) -> da.Array | None:
        """``(h, w)`` uint8, lazy; None where the model gives none of its own."""
        if not self.layout.saliency:
            return None
        return stored_array(self.result._store, pass_path(self.layout.name, "saliency"))

    @property
    def confidence(self) -> da.Array | None:
        """``(h, w)`` uint8, lazy; None where the model gives none of its own."""
        if not self.layout.confidence:
            return None
        return stored_array(self.result._store, pass_path(self.layout.name, "confidence"))

    @property
    def status(self) -> np.ndarray:
        """``(tile rows, tile columns)`` uint8, one of ``image_plan.STATUS_*``."""
        grid = self.layout.tiles
        path = pass_path(self.layout.name, "status")
        return self.result._store.read(path, Box(0, 0, grid.rows, grid.columns))

    @property
    def selection(self) -> Selection | None:
        """The tiles that it was told to visit, and why; None for a glance that visits all.

        It lies in the run folder, not in the result: None where the result was taken out of it.
        """
        name = f"{self.layout.index}-{self.layout.name}.json"
        if self.result._run is None:
            return None
        plan = self.result._run / "plans" / self.result.plan.name / name
        if not plan.is_file():
            return None
        tree = json.loads(plan.read_text(encoding="utf-8"))["selection"]
        return None if tree is None else Selection.from_dict(tree)

    def summary(self) -> dict[str, int]:
        """Tiles by outcome."""
        return tile_counts(self.status)
