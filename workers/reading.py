"""What a window's pixels are, also where part of them can't be read.

A bad tile costs a tile: when a window can't be read, its tiles are read one by one, the unreadable
ones are filled, and the window is still computed with the shape that its plan says. The engine
marks what was lost; nothing is silently white.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from saccade.pipeline.errors import NoSuchObject, ReadError, StorageGone
from saccade.pipeline.geometry import Box
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.plan import Window
from saccade.pipeline.sources.bands import Samples
from saccade.pipeline.sources.plane import Plane, PlaneSpec, locate

log = logging.getLogger(__name__)

Got = TypeVar("Got")
Read = Callable[[Box], Got]


@dataclass(frozen=True, slots=True)
class WindowPixels:
    """One window as read."""

    pixels: np.ndarray
    """``(H, W, C)`` in the source's dtype; H and W as the plan says."""
    valid: np.ndarray | None = None
    """``(H, W)`` bool, False where no band of the image has data; None when all of it is valid."""
    lost: tuple[Box, ...] = ()
    """Boxes that could not be read, in the pass's pixels; their pixels are filled."""
    reasons: tuple[str, ...] = ()
    """Why, one per lost box or view."""
    context_lost: bool = False
    """Whether one of the wider views could not be read."""
    guidance: np.ndarray | None = None
    """``(K, H, W)`` float32: the previous pass's scores, upsampled."""
    context: tuple[np.ndarray, ...] = ()
    """Per factor, ``(H, W, C)``: the wider and coarser views."""
    features: np.ndarray | None = None
    """``(F, H / s, W / s)`` float16 or float32: the previous pass's features."""

    def led_by(self, guidance: np.ndarray | None, features: np.ndarray | None) -> WindowPixels:
        """The same, with what the previous pass answered and what its encoder found."""
        return replace(self, guidance=guidance, features=features)


def read_window(plane: Plane, layout: PassLayout, window: Window) -> WindowPixels:
    """Read one window of a pass as its model sees it: where there is no data stands the fill.

    It is padded by repetition where the plan reaches past the image.
    """
    inside = window.read.clip(layout.plane.shape)
    samples, lost = read_or_repair(plane, inside, layout)
    samples = padded(samples, inside, window.read)
    context, context_errors = _contexts(plane, layout, window, samples)
    filled = layout.inputs.filled
    return WindowPixels(
        pixels=filled(*samples),
        valid=samples.where_any(),
        lost=tuple(box for box, _ in lost),
        reasons=(*(reason for _, reason in lost), *context_errors),
        context_lost=bool(context_errors),
        context=tuple(filled(*view) for view in context),
    )


def read_or_repair(
    plane: Plane, box: Box, layout: PassLayout
) -> tuple[Samples, list[tuple[Box, str]]]:
    """A box of a pass as stored, and the parts of it that can't be read, with reasons."""
    lost: list[tuple[Box, str]] = []
    try:
        return _read_twice(plane.read_valid, box), lost
    except ReadError:
        check_present(plane.source.uri)
        pieces = _read_by_tiles(plane.read_valid, box, layout, lost)
        if lost:
            log.warning("%d tiles of a window can't be read: %s", len(lost), lost[0][1])
        whole = np.empty((*box.shape, plane.source.channels), plane.source.dtype)
        return _assemble(whole, box, pieces), lost


def _read_twice(read: Read[Got], box: Box) -> Got:
    """A storage hiccup is not damage: one more try."""
    try:
        return read(box)
    except ReadError as error:
        log.warning("a read failed and is tried once more: %s", error)
        return read(box)


def check_present(uri: str) -> None:
    """Tell damage from absence: what is not there must not count as tiles that can't be read.

    Args:
        uri: of an image that could not be opened or read; only absolute paths are looked for.

    Raises:
        StorageGone: neither the image nor its folder is there: a mount vanished.
        NoSuchObject: the image alone was removed.
    """
    path = Path(uri)
    if not path.is_absolute() or path.exists():
        return
    if path.parent.is_dir():
        raise NoSuchObject(f"{uri}: the file was removed while the run was going on; put it back")
    raise StorageGone(
        f"{path.parent}: not there any more, so {path.name} can't be read; mount it again and run "
        "the same command: what is done is kept"
    )


def _read_by_tiles(
    read: Read[Samples], box: Box, layout: PassLayout, lost: list[tuple[Box, str]]
) -> dict[Box, Samples]:
    cells = layout.tiles.cells_touching(box)
    pieces: dict[Box, Samples] = {}
    for index in layout.tiles.indices(cells):
        part = layout.tiles.box(index).intersect(box)
        try:
            pieces[part] = _read_twice(read, part)
        except ReadError as error:
            lost.append((part, str(error)))
    return pieces


def _assemble(whole: np.ndarray, box: Box, pieces: dict[Box, Samples]) -> Samples:
    """The readable pieces in place; what is missing gets their mean colour, and counts as data."""
    means = [p.pixels.reshape(-1, whole.shape[-1]).mean(axis=0) for p in pieces.values()]
    whole[...] = np.mean(means, axis=0).astype(whole.dtype) if means else 0
    absent = any(piece.valid is not None for piece in pieces.values())
    valid = np.ones(whole.shape, bool) if absent else None
    for part, (pixels, known) in pieces.items():
        whole[part.relative_to(box).slices] = pixels
        if valid is not None and known is not None:
            valid[part.relative_to(box).slices] = known
    return Samples(whole, valid)


def pad_to(pixels: np.ndarray, have: Box, want: Box) -> np.ndarray:
    """Extend an array that covers ``have`` to ``want`` by repeating its outermost pixels."""
    if have == want:
        return pixels
    rows = (have.y0 - want.y0, want.y1 - have.y1)
    columns = (have.x0 - want.x0, want.x1 - have.x1)
    return np.pad(pixels, (rows, columns, (0, 0)), mode="edge")


def padded(samples: Samples, have: Box, want: Box) -> Samples:
    """Samples over ``have``, extended to ``want`` like their pixels."""
    pixels, valid = samples
    known = None if valid is None else pad_to(valid, have, want)
    return Samples(pad_to(pixels, have, want), known)


def _contexts(
    plane: Plane, layout: PassLayout, window: Window, samples: Samples
) -> tuple[tuple[Samples, ...], tuple[str, ...]]:
    """Every wider view; the window itself stands in for one that can't be read."""
    views, errors = [], []
    for factor in layout.context:
        try:
            views.append(read_context(plane, window.read, factor))
        except ReadError as error:
            views.append(samples)
            errors.append(str(error))
    return tuple(views), tuple(errors)


def read_context(plane: Plane, box: Box, factor: float) -> Samples:
    """The view of a box's shape and centre whose pixels are ``factor`` times coarser."""
    wide = Plane(plane.source, context_spec(plane, factor))
    want = centred(box, wide.spec.downsample / plane.spec.downsample)
    have = want.clip(wide.spec.shape)
    return padded(_read_twice(wide.read_valid, have), have, want)


def context_spec(plane: Plane, factor: float) -> PlaneSpec:
    """The plane from which a context view is read."""
    return locate(plane.source, downsample=plane.spec.downsample * factor)


def centred(box: Box, factor: float) -> Box:
    """The box of the same shape around the same centre in pixels ``factor`` times coarser."""
    y0 = round((box.y0 + box.y1) / 2 / factor - box.height / 2)
    x0 = round((box.x0 + box.x1) / 2 / factor - box.width / 2)
    return Box(y0, x0, y0 + box.height, x0 + box.width)


def tiles_lost(layout: PassLayout, window: Window, read: WindowPixels) -> tuple[set[int], set[int]]:
    """Tiles of a window that can't be answered, and those whose surroundings are incomplete."""
    failed: set[int] = set()
    degraded: set[int] = set()
    for index in layout.tiles.indices(layout.tiles.cells_touching(window.core)):
        core = layout.tiles.box(index)
        seen = core.grow(layout.halo_px) if layout.local else window.read
        if any(core.overlaps(box) for box in read.lost):
            failed.add(index)
        elif read.context_lost or any(seen.overlaps(box) for box in read.lost):
            degraded.add(index)
    return failed, degraded


def scores_without_data(layout: PassLayout, read: WindowPixels) -> np.ndarray | None:
    """``(h, w)`` bool of a window's scores: no pixel below has data; None where all have some."""
    if read.valid is None:
        return None
    height, width = (side // layout.stride for side in read.valid.shape)
    blocks = read.valid.reshape(height, layout.stride, width, layout.stride)
    holes: np.ndarray = np.logical_not(blocks.any(axis=(1, 3)))
    return holes if holes.any() else None
