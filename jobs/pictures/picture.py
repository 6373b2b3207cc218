"""``saccade show``: one picture per image that tells what a run did, finished or not.

Which images, the heading, and the file; what is in the panels is decided elsewhere.
"""

from __future__ import annotations

import difflib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from saccade.jobs.pictures.ground import Ground
from saccade.jobs.pictures.page import PageLayout, draw_page
from saccade.jobs.pictures.panels import Scene, panels
from saccade.jobs.pictures.thumbnail import thumbnail
from saccade.jobs.pictures.words import pixel_text, resolution, size_text
from saccade.pipeline.errors import SourceError, UsageError
from saccade.pipeline.geometry import Shape
from saccade.pipeline.result import Result, open_result
from saccade.pipeline.store import ImageStore
from saccade.pipeline.store_shelf import LocalShelf
from saccade.workers.folder import RunFolder

PANEL_PX = 900
"""Longer side of a panel's image, where the page has room for it."""
MAX_LISTED = 20


def draw_pictures(
    folder: Path, image: str | None = None, *, panel_px: int = PANEL_PX
) -> Iterator[Path]:
    """Draw one image of a run, or all that are prepared; gives each file as it is written.

    Args:
        folder: the run's.
        image: its name; all of them if left out.
        panel_px: longer side of a panel's image.

    Raises:
        UsageError: not a run's folder, no image of that name, or nothing to draw yet.
        StoreError: a result can't be read.
    """
    run = RunFolder(folder)
    if not run.identity.is_file():
        raise UsageError(f"{folder}: a run's folder expected (no {run.identity.name} in it)")
    names = _chosen(run, open_result(folder).images, image)
    return (draw_picture(run, name, panel_px=panel_px) for name in names)


def _chosen(run: RunFolder, prepared: Sequence[str], image: str | None) -> Sequence[str]:
    if not prepared:
        raise UsageError(
            f"{run.root}: nothing to draw yet: no image of this run is prepared; draw again once "
            "the first glance has begun"
        )
    if image is None:
        return prepared
    if image not in prepared:
        near = difflib.get_close_matches(image, prepared, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        more = "" if len(prepared) <= MAX_LISTED else f", and {len(prepared) - MAX_LISTED} more"
        known = ", ".join(prepared[:MAX_LISTED]) + more
        raise UsageError(f"{run.root}: no image {image!r} is prepared; {hint}there are: {known}")
    return (image,)


def draw_picture(run: RunFolder, image: str, *, panel_px: int = PANEL_PX) -> Path:
    """Draw one prepared image of a run; returns where.

    Raises:
        StoreError: its result can't be read.
    """
    scene, layout = open_scene(run.result(image), panel_px)
    ground = Ground.of(scene.plan, scene.shape)
    page = draw_page(layout, heading(scene.result), panels(scene), ground)
    encoded = io.BytesIO()
    page.save(encoded, "PNG", compress_level=6)
    path = run.picture(image)
    LocalShelf(path.parent).put(path.name, encoded.getvalue())
    return path


def open_scene(path: Path | str, panel_px: int = PANEL_PX) -> tuple[Scene, PageLayout]:
    """What the panels of one image are drawn from, and how they will stand on the page.

    Args:
        path: the image's result, ``NAME.ome.zarr``.
        panel_px: longer side wanted of a panel's image.

    Raises:
        StoreError: it can't be read.
    """
    result, store = open_result(path), ImageStore.open(path)
    layout = PageLayout.of(result.plan.level_shapes[0], panel_px)
    return make_scene(result, store, layout.panel_shape), layout


def make_scene(result: Result, store: ImageStore, shape: Shape) -> Scene:
    """What panels of some height and width are drawn from; without the image if that is gone."""
    try:
        return Scene(result, store, thumbnail(result.plan, shape), result.plan.format)
    except SourceError:
        # What was found in an image can be shown even after the image itself is gone.
        blank = np.zeros((*shape, 4), np.uint8)
        return Scene(result, store, blank, "the image can't be opened")


def heading(result: Result) -> tuple[str, str, str]:
    """Name of the image, state of its result, and a line on its size and the passes."""
    plan = result.plan
    passes = ", ".join(f"{one.name} {resolution(plan, one)}" for one in plan.passes)
    scale = "" if plan.pixel_size is None else f", {pixel_text(plan.pixel_size)}"
    state = "complete" if result.complete else "unfinished"
    return plan.name, state, f"{size_text(plan)}{scale}   |   {passes}"
