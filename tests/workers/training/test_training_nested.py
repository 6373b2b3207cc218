"""Guidance in training is guidance in a run; what is pooled back is what lies under a pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saccade.pipeline.geometry import Box
from saccade.pipeline.resampling import coarse_box_for
from saccade.pipeline.resampling import upsample as in_a_run
from saccade.workers.training.batch import Turn
from saccade.workers.training.nested import pool, upsample


@given(
    ratio=st.sampled_from([1.0, 2.0, 8 / 3, 3.7, 16.0]),
    corner=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    size=st.tuples(st.integers(1, 23), st.integers(1, 29)),
)
def test_upsampling_is_that_of_a_run(
    ratio: float, corner: tuple[int, int], size: tuple[int, int]
) -> None:
    shape = (31, 37)
    plane = np.random.default_rng(7).random((2, *shape)).astype(np.float32)
    fine = Box(*corner, corner[0] + size[0], corner[1] + size[1])
    need = coarse_box_for(fine, ratio, shape)
    part = plane[(slice(None), *need.slices)]
    expected = in_a_run(part, (need.y0, need.x0), ratio, fine, shape)
    have = need.grow(3).clip(shape)
    given_ = torch.from_numpy(plane[(slice(None), *have.slices)])
    found = upsample(given_, have, ratio, fine, shape)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("ratio", [1.0, 2.0, 8 / 3, 5.3])
@pytest.mark.parametrize("how", ["max", "mean"])
def test_pooling_takes_the_fine_scores_whose_centre_lies_in_a_coarse_pixel(
    ratio: float, how: str
) -> None:
    fine_box, coarse_box = Box(11, 7, 40, 36), Box(1, 0, 13, 11)
    fine = np.random.default_rng(3).random((2, 29, 29)).astype(np.float32)
    found, whole = pool(torch.from_numpy(fine), fine_box, ratio, coarse_box, how)  # type: ignore[arg-type]
    rows = ((np.arange(0, 300) + 0.5) // ratio).astype(int)
    for y in range(coarse_box.height):
        for x in range(coarse_box.width):
            ys = np.flatnonzero(rows == y + coarse_box.y0)
            xs = np.flatnonzero(rows == x + coarse_box.x0)
            inside = ys[0] >= 11 and ys[-1] < 40 and xs[0] >= 7 and xs[-1] < 36
            assert bool(whole[y, x]) == inside
            if inside:
                cell = fine[:, ys[0] - 11 : ys[-1] - 10, xs[0] - 7 : xs[-1] - 6]
                expected = cell.max((1, 2)) if how == "max" else cell.mean((1, 2))
                np.testing.assert_allclose(found[:, y, x].numpy(), expected, rtol=1e-5)


@given(flips=st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_every_turn_can_be_taken_back(flips: tuple[bool, bool, bool]) -> None:
    turn, x = Turn(*flips), torch.arange(15.0).view(1, 3, 5)
    assert torch.equal(turn.back(turn.there(x)), x)


def test_the_eight_turns_differ() -> None:
    x = torch.arange(9.0).view(3, 3)
    turns = [Turn(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)]  # type: ignore[arg-type]
    assert len({tuple(turn.there(x).flatten().tolist()) for turn in turns}) == 8
