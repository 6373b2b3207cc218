"""How far a pass's answer is from that of the pass before it, at every pixel.

The earlier answer is brought to the later one's pixels as the fused result would bring it there: so
the difference is what the later pass changed in the result. Knows two passes, no tile and no rule.
"""

from __future__ import annotations

import numpy as np

from saccade.pipeline.answers import read_answers
from saccade.pipeline.compose import Reads
from saccade.pipeline.geometry import Box
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.resampling import coarse_box_for, upsample


def shared_classes(before: PassLayout, after: PassLayout) -> tuple[str, ...]:
    """The classes that both passes have, in the order of the later one."""
    return tuple(name for name in after.classes if name in before.classes)


def read_change(store: Reads, before: PassLayout, after: PassLayout, box: Box) -> np.ndarray:
    """Mean absolute difference of the scores of all shared classes.

    Args:
        store: holds both passes' arrays.
        before: the earlier pass.
        after: the later pass.
        box: in the later pass's scores.

    Returns:
        ``(h, w)`` float32 in [0, 1]; NaN where one of the two gave no answer.
    """
    ratio = before.score_downsample / after.score_downsample
    need = coarse_box_for(box, ratio, before.score_shape)
    earlier, _ = read_answers(store, before, need)
    later, _ = read_answers(store, after, box)
    total = np.zeros(box.shape, np.float32)
    names = shared_classes(before, after)
    for name in names:
        plane = earlier[before.classes.index(name)][None]
        was = upsample(plane, (need.y0, need.x0), ratio, box, before.score_shape)[0]
        total += np.abs(later[after.classes.index(name)] - was)
    return total / np.float32(len(names))
