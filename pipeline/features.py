"""Features of one pass as the next one takes them: geometry, and reading them back.

Stored as float16, 0 where nobody answered. A pass on the same grid gets exactly what is stored;
one on another grid gets it between the centres of the places that were answered. Knows no model.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from saccade.pipeline.answers import answered_pixels
from saccade.pipeline.compose import Reads
from saccade.pipeline.errors import StoreError
from saccade.pipeline.feature_grid import FeatureGrid, feature_key
from saccade.pipeline.geometry import Box, Shape
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.resampling import coarse_box_for, upsample
from saccade.pipeline.store_layout import feature_shape, pass_path

KEY = "features"
"""Name of the stored array, and of the attribute that says whose features they are."""


class Keyed(Reads, Protocol):
    """What checking needs of a store, besides reading."""

    def attributes(self, array: str) -> dict[str, Any]:
        """An array's attributes under this package's own key."""
        ...


def read_features(store: Reads, plan: ImagePlan, layout: PassLayout, box: Box) -> np.ndarray:
    """The previous pass's features on a pass's own grid.

    Args:
        store: holds the previous pass's features and status.
        plan: of the image.
        layout: of the pass that takes them.
        box: in its input pixels, multiples of the stride of ``layout.takes``; may reach past the
            image, where the outermost places are repeated.

    Returns:
        ``(F, h, w)``, 0 where the previous pass did not answer: float16 as stored where both passes
        have one grid, else float32.
    """
    before = plan.passes[layout.index - 1]
    if layout.takes is None or before.gives is None:
        raise StoreError(f"pass {layout.name!r} takes no features of {before.name!r}")
    shape = feature_shape(before, before.gives)
    wanted = box.reduce(layout.takes.stride)
    ratio = _ratio(before, before.gives, layout, layout.takes)
    if ratio != 1:
        return _between(store, before, before.gives, wanted, ratio)
    inside = _nearest(wanted, shape)
    found = store.read(pass_path(before.name, KEY), inside)
    return _repeated(found, inside, wanted)


def _ratio(before: PassLayout, given: FeatureGrid, layout: PassLayout, taken: FeatureGrid) -> float:
    """Places of the pass that takes per place of the one that gives, along each axis."""
    return (before.plane.downsample * given.stride) / (layout.plane.downsample * taken.stride)


def _between(
    store: Reads, before: PassLayout, given: FeatureGrid, wanted: Box, ratio: float
) -> np.ndarray:
    """Mixed bilinearly; what was not answered is left out in favour of its neighbours."""
    shape = feature_shape(before, given)
    need = coarse_box_for(wanted, ratio, shape)
    found = store.read(pass_path(before.name, KEY), need).astype(np.float32)
    found[:, ~answered_pixels(store, before, need, given.stride)] = np.nan
    mixed = upsample(found, (need.y0, need.x0), ratio, wanted, shape)
    np.nan_to_num(mixed, copy=False, nan=0.0)
    return mixed


def _nearest(wanted: Box, shape: Shape) -> Box:
    """The part of a box inside an array; its outermost place where there is none."""
    height, width = shape
    y0, x0 = min(wanted.y0, height - 1), min(wanted.x0, width - 1)
    return Box(y0, x0, max(y0 + 1, min(wanted.y1, height)), max(x0 + 1, min(wanted.x1, width)))


def _repeated(found: np.ndarray, have: Box, want: Box) -> np.ndarray:
    if have == want:
        return found
    rows, columns = want.y1 - have.y1, want.x1 - have.x1
    wide = np.pad(found, ((0, 0), (0, max(0, rows)), (0, max(0, columns))), mode="edge")
    return wide[:, -want.height :, -want.width :]


def check_features(store: Keyed, plan: ImagePlan, layout: PassLayout) -> None:
    """Refuse features that are not those that a pass was planned to take.

    Raises:
        StoreError: another image, resolution, model or arithmetic made them.
    """
    before = plan.passes[layout.index - 1]
    expected = feature_key(plan, before)
    found = store.attributes(pass_path(before.name, KEY)).get(KEY)
    model = layout.takes.model if layout.takes else None
    if found != expected or expected["model"] != model:
        raise StoreError(
            f"pass {layout.name!r} takes features of {before.name!r} keyed {expected} by model "
            f"{model}; found {found}: start this image over with --force"
        )
