"""Where the truth and the foreground of every training image lie, found once and kept in a file.

Foreground is whatever differs in brightness from the commonest brightness of the image (glass, the
black around a photograph) and, in any case, what bears truth.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np

from saccade.pipeline.errors import SourceError
from saccade.pipeline.geometry import Box
from saccade.pipeline.sources import open_source
from saccade.pipeline.sources.bands import Samples
from saccade.pipeline.sources.plane import Plane, PlaneSpec
from saccade.pipeline.truth import NAME, TruthRecipe
from saccade.workers.training.frozen import FrozenImage
from saccade.workers.training.reading import PassSight, TrainingImage
from saccade.workers.training.sampling import ImageIndex

BINS = 32
"""Steps of brightness that are told apart."""
LEAST_SHARE = 0.02
"""Less foreground than this is taken for a failure to find it: then all of the image is."""
CELLS_PER_CROP = 4
"""Cells along the side of the finest pass's crop, at least, where an image lacks data."""
LONGEST = 2048
"""Cells along the longer side of an index, at most."""


def index_images(
    images: Sequence[FrozenImage],
    truth: TruthRecipe,
    sights: Sequence[PassSight],
    folder: Path,
    threads: int,
) -> tuple[ImageIndex, ...]:
    """Indices of all images; those found before are read from ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)

    def one(image: FrozenImage) -> ImageIndex:
        return _known_or(
            folder,
            _key(image, truth, sights),
            lambda: index_image(image, truth, sights),
        )

    with ThreadPoolExecutor(threads) as pool:
        return tuple(pool.map(one, images))


def index_image(frozen: FrozenImage, truth: TruthRecipe, sights: Sequence[PassSight]) -> ImageIndex:
    """Where one image's truth and foreground lie, on the grid of the coarsest pass's pixels.

    Where the image lacks data, on a finer grid if there is one, so that a crop of the finest pass
    around a cell that holds data does so, too.

    Raises:
        SourceError: none of its pixels holds data.
    """
    with TrainingImage(frozen, truth, sights) as image:
        finest = sights[-1].crop_px * image.planes[-1].downsample
        grid, samples = _seen_whole(image, finest)
        marked = image.truth.on(grid, Box.of(grid.shape), "max")
        shape = image.source.levels[0].shape
    kept = [marked[image.truth.classes.index(name)] for name in sights[0].classes]
    held = samples.where_any()
    if held is not None:
        kept = [one & held for one in kept]
    if held is not None and not held.any():
        raise SourceError(
            f"{frozen.entry.uri}: pixels that hold data expected; found none: leave "
            f"{frozen.entry.name!r} out of the split, or correct its nodata value"
        )
    lesions = tuple(np.argwhere(one) for one in kept if one.any())
    cells = np.argwhere(foreground(samples.pixels, held) | np.any(kept, axis=0))
    return ImageIndex(shape, grid.downsample, lesions, cells, finest, held)


def _seen_whole(image: TrainingImage, finest_px: float) -> tuple[PlaneSpec, Samples]:
    """The grid of an index, and the image on it.

    Args:
        image: open.
        finest_px: side of the finest pass's crop, in pixels of level 0.
    """
    if image.layouts[0].holes:
        index, coarser = _finer(image.planes, finest_px / CELLS_PER_CROP)
        grid, samples = _read_whole(image, index, coarser)
        if samples.where_any() is not None:
            return grid, samples
    return _read_whole(image, 0, 1)


def _finer(planes: Sequence[PlaneSpec], most_px: float) -> tuple[int, int]:
    """The coarsest pass whose pixels are small enough, and how many of them make a cell."""
    fine = [index for index, plane in enumerate(planes) if plane.downsample <= most_px]
    index = fine[0] if fine else len(planes) - 1
    return index, max(1, int(most_px / planes[index].downsample))


def _read_whole(image: TrainingImage, index: int, coarser: int) -> tuple[PlaneSpec, Samples]:
    plane = image.planes[index]
    grid = plane.coarser(max(coarser, -(-max(plane.shape) // LONGEST)))
    return grid, Plane(image.seen[index], grid).read_valid(Box.of(grid.shape))


def foreground(pixels: np.ndarray, held: np.ndarray | None = None) -> np.ndarray:
    """``(h, w)`` bool: pixels that are not of the commonest brightness, nor next to it.

    Args:
        pixels: ``(h, w, C)`` of any type; NaN is no foreground.
        held: ``(h, w)`` bool, those that hold data; None where all do. Others are no foreground.
    """
    bright = pixels.astype(np.float32).mean(axis=-1)
    finite = np.isfinite(bright) if held is None else np.isfinite(bright) & held
    if not finite.any():
        return np.ones(bright.shape, bool) if held is None else held
    low, high = float(bright[finite].min()), float(bright[finite].max())
    steps = np.zeros(bright.shape, np.int64)
    steps[finite] = (bright[finite] - low) / max(high - low, 1e-12) * (BINS - 1)
    commonest = int(np.bincount(steps[finite], minlength=BINS).argmax())
    found: np.ndarray = finite & (np.abs(steps - commonest) > 1)
    return found if found.mean() >= LEAST_SHARE else finite


def _known_or(folder: Path, key: str, find: Callable[[], ImageIndex]) -> ImageIndex:
    path = folder / f"{key}.npz"
    if path.exists():
        return _load(path)
    index = find()
    partial = path.with_suffix(f".{os.getpid()}.partial.npz")
    _save(partial, index)
    partial.replace(path)
    return index


def _key(image: FrozenImage, truth: TruthRecipe, sights: Sequence[PassSight]) -> str:
    """What an index depends on: the image, its truth, where passes look and at what."""
    with closing(open_source(truth.path.replace(NAME, image.entry.name))) as source:
        marked = source.identity().to_dict()
    looks = [(one.plane, one.bands, one.scaled, one.holes) for one in image.plan.passes]
    parts = (image.plan.identity, marked, truth.model_dump_json(), looks, sights)
    return hashlib.blake2b(repr(parts).encode(), digest_size=12).hexdigest()


def _save(path: Path, index: ImageIndex) -> None:
    facts = np.array([*index.shape, index.cell_px, index.look_px], np.float64)
    lesions = {f"lesion_{i}": one for i, one in enumerate(index.lesions)}
    held = {} if index.held is None else {"held": index.held}
    np.savez_compressed(
        path, allow_pickle=False, facts=facts, foreground=index.foreground, **lesions, **held
    )


def _load(path: Path) -> ImageIndex:
    with np.load(path, allow_pickle=False) as held:
        height, width, cell_px, look_px = held["facts"].tolist()
        names = sorted((n for n in held.files if n.startswith("lesion_")), key=lambda n: int(n[7:]))
        lesions, cells = tuple(held[name] for name in names), held["foreground"]
        valid = held["held"] if "held" in held.files else None
        return ImageIndex((int(height), int(width)), cell_px, lesions, cells, look_px, valid)
