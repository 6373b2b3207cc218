"""The examples of choosing and leaving, each on real pixels, and what each of them promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import Lab

from saccade.pipeline.fusion import fuse
from saccade.pipeline.geometry import Box
from saccade.pipeline.recipe_file import load_recipe
from saccade.pipeline.result import Result
from saccade.pipeline.signals import margin_uncertainty
from saccade.pipeline.sources import open_source

METHODS = Path(__file__).parents[2] / "examples" / "methods"
SIDE = 768


SLIDES = {
    "cmu-1-small-region.svs": (1024, 640),
    "tcga-jpeg2000-no-mpp.svs": (2560, 3584),
}
"""Real slides, and the corner of a part of them with tissue and glass."""


@pytest.fixture(params=SLIDES)
def pixels(data: Path, request: pytest.FixtureRequest) -> np.ndarray:
    """A part of a real slide, ``(768, 768, 3)``."""
    path = data / "slides" / request.param
    if not path.is_file():
        pytest.skip(f"{path} not found; set SACCADE_TEST_DATA")
    y, x = SLIDES[request.param]
    source = open_source(str(path))
    try:
        return np.asarray(source.read(0, Box(y, x, y + SIDE, x + SIDE)))
    finally:
        source.close()


def tree(name: str) -> dict[str, Any]:
    """An example as a recipe that tests may change, stored in small chunks."""
    found = load_recipe(METHODS / f"{name}.yaml").model_dump(mode="json", exclude_none=True)
    found["output"] |= {"chunk": 128, "shard": 128}
    return found


def reason_of(result: Result, name: str) -> list[str]:
    selection = result.passes[name].selection
    assert selection is not None
    return list(selection.reasons)


PROPOSALS: dict[str, Any] = {
    "passes": [
        {"name": "glance", "resolution": {"downsample": 8}, "model": "builtin:hematoxylin"},
        {
            "name": "refine",
            "resolution": {"downsample": 1},
            "model": "builtin:hematoxylin",
            "tile": 128,
            "select": {"by": "proposals", "alpha": 1.3, "min_area": 0.5, "cells": 2},
        },
    ],
    "output": {"chunk": 128, "shard": 128},
}
"""The selector of rams-trans.yaml over a map that means something without training."""


def test_proposals_are_whole_boxes_and_say_which(lab: Lab, pixels: np.ndarray) -> None:
    result = lab.run(PROPOSALS, pixels)
    chosen = result.passes["refine"].status > 0
    reasons = reason_of(result, "refine")
    assert chosen.any()
    assert all(reason.startswith("proposal") for reason in reasons)
    assert not chosen.all()
    selection = result.passes["refine"].selection
    assert selection is not None
    threshold = selection.thresholds["proposals"]
    glance = np.asarray(result.passes["glance"].scores)[0] / 255
    highest = np.unravel_index(glance.argmax(), glance.shape)
    assert glance.max() > threshold
    assert chosen[tuple(np.array(highest) * 8 // 128)]


def test_what_left_early_has_the_answer_of_its_pass(lab: Lab, pixels: np.ndarray) -> None:
    recipe = tree("early-exit")
    result = lab.run(recipe, pixels)
    visited = {name: one.status > 0 for name, one in result.passes.items()}
    assert visited["glance"].all()
    assert not (visited["refine"] & ~visited["focus"]).any()
    left = ~visited["focus"]
    assert 0 < left.sum() < left.size
    glance = np.asarray(result.passes["glance"].scores)[0] / 255
    doubt = margin_uncertainty(glance[None]).reshape(SIDE // 128, 16, SIDE // 128, 16)
    most = np.sort(doubt.swapaxes(1, 2).reshape(*left.shape, -1))[..., -6:].mean(axis=-1)
    assert (left == (most <= np.float32(0.1))).all()
    recipe["passes"][1]["select"] = {"by": "top_k", "k": 0}
    kept = lab.run(recipe, pixels)
    where = np.kron(left, np.ones((128, 128))).astype(bool)
    assert (np.asarray(result.fused)[0][where] == np.asarray(kept.fused)[0][where]).all()


def test_what_is_fused_follows_the_gate(lab: Lab, pixels: np.ndarray) -> None:
    recipe = tree("magnet")
    result = lab.run(recipe, pixels)
    chosen = result.passes["refine"].status > 0
    assert chosen.sum() == -(-chosen.size * 3 // 10)
    doubt = margin_uncertainty(np.asarray(result.passes["glance"].scores) / np.float32(255))
    top = np.sort(doubt.reshape(SIDE // 128, 16, SIDE // 128, 16).swapaxes(1, 2).reshape(36, -1))
    top = top[:, -6:].mean(axis=-1)
    flat = chosen.reshape(-1)
    assert top[flat].min() >= top[~flat].max() - 1e-6
    recipe["passes"][1]["select"] = {"by": "top_k", "k": 0}
    coarse = np.asarray(lab.run(recipe, pixels).fused) / np.float32(255)
    fine = np.asarray(result.passes["refine"].scores) / np.float32(255)
    where = np.kron(chosen, np.ones((128, 128))).astype(bool)
    expected = fuse("confidence_gated", coarse, fine, where)
    np.testing.assert_allclose(np.asarray(result.fused) / 255, expected, atol=2.5 / 255)


@pytest.mark.parametrize("above", [0.0, 1.0])
def test_the_share_of_an_image_follows_its_doubt(
    lab: Lab, pixels: np.ndarray, above: float
) -> None:
    recipe = tree("escalate")
    recipe["passes"][1]["select"]["when"]["above"] = above
    result = lab.run(recipe, pixels)
    share = (result.passes["refine"].status > 0).mean()
    escalated = any(r.startswith("escalated") for r in reason_of(result, "refine"))
    selection = result.passes["refine"].selection
    assert selection is not None
    assert escalated == (selection.thresholds["escalate.when"] > above)
    assert share == 0.5 if escalated else 0.1 <= share <= 0.62


@pytest.mark.parametrize("path", sorted(METHODS.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_example_of_a_method_is_a_recipe_and_says_where_it_comes_from(path: Path) -> None:
    assert load_recipe(path).passes
    head = path.read_text().partition("version:")[0]
    assert head.startswith("# ")
    assert f"saccade run examples/methods/{path.name} IMAGES" in head
