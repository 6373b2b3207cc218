"""What left after a pass: its stored answer read strip by strip, and what plans say of it.

``pipeline.exits`` decides; here stands where its numbers come from.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from saccade.pipeline.answers import read_answers, read_confidence
from saccade.pipeline.change import read_change
from saccade.pipeline.exit_rules import ExitRule
from saccade.pipeline.exits import CHANGE, Leaving, exit_columns, from_runs, leave
from saccade.pipeline.geometry import Box
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.saliency import ReadSignal, score_tiles
from saccade.pipeline.signals import DOUBT
from saccade.pipeline.store import ImageStore
from saccade.workers.folder import RunFolder


def left_earlier(folder: RunFolder, plan: ImagePlan, layout: PassLayout) -> np.ndarray:
    """``(tile rows, tile columns)`` bool: tiles of a pass on ground that left before it."""
    shape = layout.tiles.rows, layout.tiles.columns
    exits = folder.read_pass_plan(plan.name, layout).get("exits")
    return from_runs(exits["left_runs"], shape) if exits else np.zeros(shape, bool)


def leaving_after(
    store: ImageStore, plan: ImagePlan, layout: PassLayout, rule: ExitRule, asked: np.ndarray
) -> Leaving:
    """Which tiles of a pass leave.

    Args:
        store: holds the pass's answer, and that of the pass before it.
        plan: of the image.
        layout: of the pass.
        rule: its exit.
        asked: ``(tile rows, tile columns)`` bool, tiles that were answered and had not left before.
    """
    table = score_tiles(
        exit_columns(rule),
        grid=layout.tiles,
        ratio=layout.stride,
        coarse_shape=layout.score_shape,
        read_strip=lambda box: read_answers(store, layout, box),
        classes=layout.classes,
        own=own_signals(store, plan, layout),
        known=asked,
    )
    return leave(rule, table, asked)


def own_signals(store: ImageStore, plan: ImagePlan, layout: PassLayout) -> Mapping[str, ReadSignal]:
    """The signals of a pass that its scores alone do not give."""
    signals: dict[str, ReadSignal] = {}
    if layout.confidence:
        signals[DOUBT] = lambda box: _doubt(store, layout, box)
    if layout.index:
        before = plan.passes[layout.index - 1]
        signals[CHANGE] = lambda box: read_change(store, before, layout, box)
    return signals


def _doubt(store: ImageStore, layout: PassLayout, box: Box) -> np.ndarray:
    confidence = read_confidence(store, layout, box)
    assert confidence is not None
    return 1 - confidence
