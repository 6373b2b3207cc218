"""One image's answer against its truth: counts that add up over images. Reads no run.

Answers are compared at the result's own resolution, with the truth max-pooled onto it: a pixel
belongs to a class where any pixel of level 0 under it does. Objects and lesion pixels are counted
at level 0. The last class, ``any``, is the strongest of all against their union.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from saccade.pipeline.compose import FusedRegion
from saccade.pipeline.geometry import Box, Grid
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.quality.agreement import Agreement
from saccade.pipeline.quality.counting import ScoreCounts
from saccade.pipeline.quality.objects import ObjectFinder, Objects
from saccade.pipeline.quality.runs import grid_pixel, highest_under
from saccade.pipeline.regions import Runs
from saccade.pipeline.scores import dequantise
from saccade.pipeline.sources.plane import PlaneSpec
from saccade.pipeline.truth import Truth

ANY = "any"


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """What one answer for one image is worth, and what it cost; arrays only, to be stored."""

    negatives: np.ndarray
    """``(classes + 1, steps)`` int64, see ``quality.counting``."""
    positives: np.ndarray
    """Likewise."""
    area: np.ndarray
    """``(objects,)`` int64: pixels of level 0."""
    found: np.ndarray
    """``(objects,)`` float32: highest score over each."""
    seen: np.ndarray
    """``(objects,)`` bool: whether a chosen tile holds any of it."""
    kind: np.ndarray
    """``(objects,)`` int64: index of its class."""
    lesion_px: np.ndarray
    """``(classes + 1,)`` int64: pixels of level 0."""
    covered_px: np.ndarray
    """Of them, those in chosen tiles of the last pass."""
    agreement: np.ndarray
    """``(3,)`` float64: pixels, equal labels, sum of |dp|, against the dense run."""
    tiles: np.ndarray
    """``(passes,)`` int64: visited."""
    pixels: np.ndarray
    """``(passes,)`` int64: through the model, halos included."""
    decoded: np.ndarray
    """``(1,)`` int64: bytes of samples."""

    @property
    def counts(self) -> ScoreCounts:
        """Pixels by score and truth."""
        return ScoreCounts(self.negatives, self.positives)

    @property
    def agrees(self) -> Agreement:
        """With the dense run."""
        pixels, same, difference = self.agreement
        return Agreement(int(pixels), int(same), float(difference))

    def objects(self, kind: int | None = None) -> Objects:
        """Those of one class, or all."""
        which = np.ones(len(self.kind), bool) if kind is None else self.kind == kind
        return Objects(self.area[which], self.found[which], self.seen[which])

    def arrays(self, row: str) -> dict[str, np.ndarray]:
        """By name, for a file that holds many."""
        return {f"{row}|{one.name}": getattr(self, one.name) for one in fields(self)}


def restored(stored: Mapping[str, np.ndarray]) -> dict[str, Scored]:
    """The inverse of ``Scored.arrays``, for every row of a file."""
    rows: dict[str, dict[str, np.ndarray]] = {}
    for key in stored:
        row, _, name = key.partition("|")
        rows.setdefault(row, {})[name] = stored[key]
    return {row: Scored(**arrays) for row, arrays in rows.items()}


class ImageTruth:
    """The truth of one image as all rows need it."""

    def __init__(self, truth: Truth, plan: ImagePlan, name: str) -> None:
        """Read it once, whole: for images that fit memory, as photographs do."""
        truth.check_over(plan.level_shapes[0], name)
        self.classes = plan.classes
        self.plan = plan
        scale = plan.last.score_downsample
        spec = PlaneSpec(0, scale, plan.shape, scale, None)
        self.grid = with_any(
            _of_classes(truth.on(spec, Box.of(plan.shape)), truth.classes, self.classes)
        )
        full = _of_classes(truth.read(Box.of(truth.shape)), truth.classes, self.classes)
        self.runs = [Runs.of(mask) for mask in full]
        self._full = with_any(full)

    def pixels_per_tile(self, layout: PassLayout) -> np.ndarray:
        """``(classes + 1, tile rows, tile columns)`` int64: pixels of level 0."""
        return np.stack([_per_tile(mask, layout) for mask in self._full])


def _of_classes(masks: np.ndarray, known: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """Masks of a result's classes; of a single one that the truth does not know, the union."""
    if set(wanted) <= set(known):
        return masks[[known.index(name) for name in wanted]]
    if len(wanted) == 1:
        return np.asarray(masks.any(axis=0, keepdims=True))
    raise SystemExit(f"classes of the truth expected ({', '.join(known)}); found {wanted}")


def with_any(masks: np.ndarray) -> np.ndarray:
    """Boolean or scored classes, and after them the strongest."""
    return np.concatenate([masks, masks.max(axis=0, keepdims=True)])


def _per_tile(mask: np.ndarray, layout: PassLayout) -> np.ndarray:
    grid = layout.tiles
    side_px = grid.tile_px * layout.plane.downsample
    y, x = np.nonzero(mask)
    row = np.minimum(grid_pixel(y, side_px), grid.rows - 1)
    column = np.minimum(grid_pixel(x, side_px), grid.columns - 1)
    counts = np.bincount(row * grid.columns + column, minlength=len(grid))
    return counts.reshape(grid.rows, grid.columns)


def score(
    answer: FusedRegion,
    dense: FusedRegion,
    truth: ImageTruth,
    plan: ImagePlan,
    chosen: np.ndarray,
    per_tile: np.ndarray,
) -> dict[str, np.ndarray]:
    """All of ``Scored`` that does not concern cost.

    Args:
        answer: of the whole image.
        dense: the dense run's.
        truth: of the image.
        plan: of the run that answered.
        chosen: ``(tile rows, tile columns)`` bool of the last pass.
        per_tile: what ``truth.pixels_per_tile`` says of the last pass.
    """
    counts = ScoreCounts.none(len(truth.grid), answer.scores.dtype)
    counts = counts.counted(with_any(answer.scores), truth.grid)
    objects = [
        objects_of(runs, scores, plan, chosen)
        for runs, scores in zip(truth.runs, dequantise(answer.scores), strict=True)
    ]
    every = Objects.joined(objects)
    where = np.ones(answer.labels.shape, bool)
    agrees = Agreement.of(answer.scores, dense.scores, answer.labels, dense.labels, where)
    return {
        "negatives": counts.negatives,
        "positives": counts.positives,
        "area": every.area,
        "found": every.score,
        "seen": every.seen,
        "kind": np.repeat(np.arange(len(objects)), [len(one) for one in objects]),
        "lesion_px": per_tile.sum(axis=(1, 2)),
        "covered_px": per_tile[:, chosen].sum(axis=1),
        "agreement": np.array([agrees.pixels, agrees.same_labels, agrees.difference]),
    }


def objects_of(runs: Runs, scores: np.ndarray, plan: ImagePlan, chosen: np.ndarray) -> Objects:
    """Objects of one class, their highest scores, and whether a chosen tile holds any of them."""
    last = plan.last
    tile_px = last.tile_px * last.plane.downsample
    highest = highest_under(runs, scores, last.score_downsample)
    seen = highest_under(runs, chosen.astype(np.uint8), tile_px)
    return ObjectFinder().add(runs, highest, seen).objects()


def pooled(scored: Iterable[Scored]) -> Scored:
    """Several images as one."""
    given = list(scored)
    joined = {"area", "found", "seen", "kind"}
    values = {one.name: [getattr(s, one.name) for s in given] for one in fields(Scored)}
    return Scored(
        **{n: np.concatenate(v) if n in joined else np.sum(v, axis=0) for n, v in values.items()}
    )


def foreground_tiles(mask: np.ndarray, downsample: float, grid: Grid, plane: float) -> np.ndarray:
    """``(tile rows, tile columns)`` bool: tiles that hold any pixel of a coarse mask.

    Args:
        mask: ``(h, w)`` bool.
        downsample: of the mask, in pixels of level 0.
        grid: the tiles.
        plane: downsample of the grid's pixels.
    """
    side_px = grid.tile_px * plane / downsample
    y, x = np.nonzero(mask)
    flags = np.zeros((grid.rows, grid.columns), bool)
    row = np.minimum(((y + 0.5) / side_px).astype(np.int64), grid.rows - 1)
    column = np.minimum(((x + 0.5) / side_px).astype(np.int64), grid.columns - 1)
    flags[row, column] = True
    return flags
