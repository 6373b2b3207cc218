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
from dataclasses import asdict
from pathlib import Path

import numpy as np

from saccade.pipeline.geometry import Box
from saccade.pipeline.sources import open_source
from saccade.pipeline.sources.plane import Plane
from saccade.pipeline.truth import NAME, TruthRecipe
from saccade.workers.tasks import ImageEntry
from saccade.workers.training.reading import PassSight, TrainingImage, planes_of
from saccade.workers.training.sampling import ImageIndex

BINS = 32
"""Steps of brightness that are told apart."""
LEAST_SHARE = 0.02
"""Less foreground than this is taken for a failure to find it: then all of the image is."""
LONGEST = 2048
"""Cells along the longer side of an index, at most."""


def index_images(
    entries: Sequence[ImageEntry],
    truth: TruthRecipe,
    sights: Sequence[PassSight],
    folder: Path,
    threads: int,
) -> tuple[ImageIndex, ...]:
    """Indices of all images; those found before are read from ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)

    def one(entry: ImageEntry) -> ImageIndex:
        return _known_or(
            folder,
            _key(entry, truth, sights),
            lambda: index_image(entry, truth, sights),
        )

    with ThreadPoolExecutor(threads) as pool:
        return tuple(pool.map(one, entries))


def index_image(entry: ImageEntry, truth: TruthRecipe, sights: Sequence[PassSight]) -> ImageIndex:
    """Where one image's truth and foreground lie, on the grid of the coarsest pass's pixels."""
    with TrainingImage(entry, truth, sights) as image:
        plane = image.planes[0]
        shrink = -(-max(plane.shape) // LONGEST)
        grid = plane.coarser(shrink)
        whole = Box.of(grid.shape)
        pixels = Plane(image.source, grid).read(whole)
        marked = image.truth.on(grid, whole, "max")
        kept = [marked[image.truth.classes.index(name)] for name in sights[0].classes]
        finest = sights[-1].crop_px * image.planes[-1].downsample
        shape = image.source.levels[0].shape
    lesions = tuple(np.argwhere(one) for one in kept if one.any())
    cells = np.argwhere(foreground(pixels) | np.any(kept, axis=0))
    return ImageIndex(shape, grid.downsample, lesions, cells, finest)


def foreground(pixels: np.ndarray) -> np.ndarray:
    """``(h, w)`` bool: pixels that are not of the commonest brightness, nor next to it.

    Args:
        pixels: ``(h, w, C)`` of any type; NaN is no foreground.
    """
    bright = pixels.astype(np.float32).mean(axis=-1)
    finite = np.isfinite(bright)
    if not finite.any():
        return np.ones(bright.shape, bool)
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


def _key(entry: ImageEntry, truth: TruthRecipe, sights: Sequence[PassSight]) -> str:
    """What an index depends on: the image, its truth, where passes look."""
    with closing(open_source(truth.path.replace(NAME, entry.name))) as source:
        marked = source.identity().to_dict()
    with closing(open_source(entry.uri)) as source:
        seen = source.identity().to_dict()
        planes = [asdict(plane) for plane in planes_of(source, entry, sights)]
    parts = (seen, marked, truth.model_dump_json(), planes, sights)
    return hashlib.blake2b(repr(parts).encode(), digest_size=12).hexdigest()


def _save(path: Path, index: ImageIndex) -> None:
    facts = np.array([*index.shape, index.cell_px, index.look_px], np.float64)
    lesions = {f"lesion_{i}": one for i, one in enumerate(index.lesions)}
    np.savez_compressed(
        path, allow_pickle=False, facts=facts, foreground=index.foreground, **lesions
    )


def _load(path: Path) -> ImageIndex:
    with np.load(path, allow_pickle=False) as held:
        height, width, cell_px, look_px = held["facts"].tolist()
        names = sorted((n for n in held.files if n.startswith("lesion_")), key=lambda n: int(n[7:]))
        lesions = tuple(held[name] for name in names)
        return ImageIndex((int(height), int(width)), cell_px, lesions, held["foreground"], look_px)
