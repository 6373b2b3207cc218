"""One network for all passes, on real photographs, and what its examples promise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import Lab
from PIL import Image
from torch import Tensor

from saccade.pipeline.geometry import Box
from saccade.pipeline.models.multipass import MultiPassNet
from saccade.pipeline.recipe_file import load_recipe
from saccade.pipeline.resampling import upsample
from saccade.pipeline.result import Result

EXAMPLES = Path(__file__).parents[2] / "examples"
SIDE = 1024
HALF_STEP = 0.5 / 255 + 1e-4
"""Scores are stored as uint8."""


@pytest.fixture
def photograph(data: Path) -> np.ndarray:
    """A piece of a fundus photograph with lesions, ``(1024, 1024, 3)``."""
    return piece(data, "IDRiD_61.jpg")


def piece(data: Path, name: str) -> np.ndarray:
    path = data / "idrid" / name
    if not path.is_file():
        pytest.skip(f"{path} not found; set SACCADE_TEST_DATA")
    with Image.open(path) as image:
        return np.asarray(image)[900 : 900 + SIDE, 1500 : 1500 + SIDE]


def tree(path: str) -> dict[str, Any]:
    """An example as a recipe that tests may change, stored in small chunks."""
    found = load_recipe(EXAMPLES / path).model_dump(mode="json", exclude_none=True)
    found["output"] |= {"chunk": 64, "shard": 64}
    return found


def reduced(pixels: np.ndarray, downsample: int) -> Tensor:
    """A normalised batch of one: block means, rounded."""
    side = SIDE // downsample
    blocks = pixels.astype(np.float64).reshape(side, downsample, side, downsample, 3)
    means = np.rint(blocks.mean((1, 3))).astype(np.float32) / 255
    return (torch.from_numpy(means).permute(2, 0, 1)[None] - 0.5) / 0.25


def scores_of(result: Result, name: str) -> np.ndarray:
    return np.asarray(result.passes[name].scores, np.float32) / 255


def visited(result: Result, name: str, score_px: int) -> np.ndarray:
    """``(h, w)`` bool: scores of tiles that a pass answered."""
    status = np.asarray(result.passes[name].status) > 0
    return status.repeat(score_px, 0).repeat(score_px, 1)


@torch.inference_mode()
def answer(model: MultiPassNet, x: Tensor, downsample: float, **given: Tensor) -> dict[str, Tensor]:
    return model.eval()(x, pixel_size=torch.tensor([downsample]), **given)


def test_each_scale_is_guided_by_the_coarser_answer_and_shares_its_weights(
    lab: Lab, photograph: np.ndarray
) -> None:
    result = lab.run(tree("methods/rmformer.yaml"), photograph)
    weights = MultiPassNet(guidance=1, depth=1, seed=1)
    glance = answer(weights, reduced(photograph, 8), 8.0)["scores"].sigmoid()[0]
    np.testing.assert_allclose(scores_of(result, "glance"), glance, atol=HALF_STEP)
    stored = scores_of(result, "glance")
    guidance = upsample(stored, (0, 0), 4.0, Box(0, 0, 256, 256), stored.shape[1:])
    focus = answer(
        MultiPassNet(guidance=1, depth=2, seed=1),
        reduced(photograph, 4),
        4.0,
        guidance=torch.from_numpy(guidance)[None],
    )["scores"].sigmoid()[0]
    where = visited(result, "focus", 32)
    assert 0 < where.mean() < 1
    np.testing.assert_allclose(
        scores_of(result, "focus")[:, where], focus.numpy()[:, where], atol=HALF_STEP
    )


def test_the_deeper_pass_goes_on_from_the_tokens_in_the_store(
    lab: Lab, photograph: np.ndarray
) -> None:
    result = lab.run(tree("methods/feature-cache.yaml"), photograph)
    x = reduced(photograph, 4)
    tokens = answer(MultiPassNet(depth=1, seed=1), x, 4.0)["features"]
    deep = MultiPassNet(start=1, depth=4, seed=1)
    whole = answer(deep, x, 4.0, features=tokens.half().float())["scores"].sigmoid()[0]
    where = visited(result, "deep", 64)
    assert 0 < where.mean() < 1
    np.testing.assert_allclose(
        scores_of(result, "deep")[:, where], whole.numpy()[:, where], atol=HALF_STEP
    )


def test_the_weights_that_ship_find_lesions_that_they_have_not_seen(
    lab: Lab, data: Path, photograph: np.ndarray
) -> None:
    """IDRiD_61 is of the test split: no weight has seen it."""
    result = lab.run(tree("retina-lesions.yaml"), photograph)
    bits = piece(data, "IDRiD_61_bits.png") & 15
    truth = bits.reshape(SIDE // 4, 4, SIDE // 4, 4).max((1, 3)) > 0
    lesion = np.asarray(result.fused[result.classes.index("lesion")], np.float32) / 255
    refined = visited(result, "refine", 128)
    assert lesion[truth & refined].mean() > 2 * lesion[~truth & refined].mean()
    assert truth[refined].mean() > 2 * truth[~refined].mean()
