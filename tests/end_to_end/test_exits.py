"""Exits in whole runs: what leaves keeps its answer, and nothing but work is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeSource, Lab, pass_of, several_passes

from saccade.pipeline.errors import ReadError
from saccade.pipeline.geometry import Box
from saccade.pipeline.result import Result
from saccade.pipeline.selection import FORCED

SIDE = 256
BLOCK = 64
"""A tile of every pass; blocks of the image are as large, so that passes agree on them."""
CONFIDENT = {"by": "confidence", "at_least": 0.9, "statistic": "mean"}


def blocks(seed: int = 3) -> np.ndarray:
    """Black, white and grey blocks of a tile each: sure, sure and unsure."""
    values = np.random.default_rng(seed).choice([0, 128, 255], (SIDE // BLOCK,) * 2)
    return np.kron(values, np.ones((BLOCK, BLOCK)))[..., None].repeat(3, -1).astype(np.uint8)


def recipe(*details: dict[str, Any], models: tuple[float, ...] = (1, 1, 1)) -> dict[str, Any]:
    """Three passes over tiles that nest, of which the later ones visit all that they may."""
    sizes = (("glance", 4), ("look", 2), ("stare", 1))
    passes = [
        pass_of(name, "scaled", step, tile=BLOCK // step, options={"factor": factor}, **more)
        for (name, step), more, factor in zip(sizes, details, models, strict=True)
    ]
    return several_passes(passes, "uint8")


def visited(result: Result, name: str) -> np.ndarray:
    return result.passes[name].status > 0


def planned(lab: Lab, run: int, index: int, name: str) -> dict[str, Any]:
    path = Path(lab.folder) / f"run-{run}" / "plans" / "one" / f"{index}-{name}.json"
    tree: dict[str, Any] = json.loads(path.read_text())
    return tree


def sure_tiles(image: np.ndarray) -> np.ndarray:
    found: np.ndarray = image[::BLOCK, ::BLOCK, 0] != 128
    return found


def test_a_sure_tile_leaves_for_good_and_keeps_the_answer_it_has(lab: Lab) -> None:
    image = blocks()
    sure = sure_tiles(image)
    assert 3 <= sure.sum() <= 13
    with_exit = lab.run(recipe({"exit": CONFIDENT}, {}, {}), image)
    without = lab.run(recipe({}, {}, {}), image)
    coarse_only = lab.run(recipe({}, {"select": {"by": "top_k", "k": 0}}, {}), image)
    for name in ("look", "stare"):
        assert (visited(with_exit, name) == ~sure).all()
        assert visited(without, name).all()
    assert (with_exit.coverage == np.where(sure, 1, 3)).all()
    where = np.kron(sure, np.ones((BLOCK, BLOCK))).astype(bool)
    found, kept, refined = (np.asarray(r.fused)[0] for r in (with_exit, coarse_only, without))
    assert (found[where] == kept[where]).all()
    assert (found[~where] == refined[~where]).all()


def test_the_frozen_plan_and_the_receipt_say_what_left_and_why(lab: Lab) -> None:
    image = blocks()
    result = lab.run(recipe({"exit": CONFIDENT}, {}, {}), image)
    assert result.complete
    sure = int(sure_tiles(image).sum())
    words = {"confidence >= 0.9 (mean of doubt)": sure}
    expected = {"left": sure, "of": 16, "agreed": words}
    assert planned(lab, 1, 1, "look")["exits"]["after"] == expected
    later = planned(lab, 1, 2, "stare")["exits"]
    assert later["after"] is None
    assert later["left_runs"] == planned(lab, 1, 1, "look")["exits"]["left_runs"] != []
    lines = (lab.folder / "run-1" / "journal" / "000001.jsonl").read_text().splitlines()
    receipts = [json.loads(line) for line in lines if '"exits"' in line]
    assert [r["exits"] for r in receipts] == [expected]


def test_nobody_brings_back_what_left(lab: Lab) -> None:
    image = blocks()
    dilated = {"select": {"by": "dilate", "of": "all", "tiles": 2}}
    found = lab.run(recipe({"exit": CONFIDENT}, dilated, dilated), image)
    for name in ("look", "stare"):
        assert (visited(found, name) == ~sure_tiles(image)).all()


@pytest.mark.parametrize(("share", "leaves"), [(0.5, True), (1.0, False)])
def test_a_sure_image_is_not_looked_at_again(lab: Lab, share: float, leaves: bool) -> None:
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[:BLOCK, :BLOCK] = 128
    rule = CONFIDENT | {"scope": "image", "share": share}
    found = lab.run(recipe({"exit": rule}, {}, {}), image)
    for name in ("look", "stare"):
        assert (visited(found, name) == (not leaves)).all()
    assert (found.coverage == (1 if leaves else 3)).all()


def test_what_could_not_be_read_is_looked_at_again_though_its_image_left(lab: Lab) -> None:
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    damaged = FakeSource(image, broken=(Box(0, 0, 8, 8),), error=ReadError("damaged"))
    rule = CONFIDENT | {"scope": "image", "share": 0.9}
    tree = recipe({"exit": rule}, {}, {}) | {"max_bad_tiles": 0.5}
    found = lab.run(tree, damaged)
    selection = found.passes["look"].selection
    assert selection is not None
    assert selection.counts() == {FORCED: 1}
    assert selection.tiles == (0,)


@pytest.mark.parametrize("value", [5, 60, 160, 255])
@pytest.mark.parametrize("q", [0.5, 0.8])
def test_leaving_by_convergence_costs_no_more_than_the_changes_that_were_to_come(
    lab: Lab, value: int, q: float
) -> None:
    # Pass k answers v (1 - q**(k + 1)): each changes the answer q times as much as the one before.
    image = np.full((SIDE, SIDE, 3), value, np.uint8)
    models = (1 - q, 1 - q**2, 1 - q**3)
    within = 0.11
    rule = {"by": "convergence", "within": within}
    left = lab.run(recipe({}, {"exit": rule}, {}, models=models), image)
    whole = lab.run(recipe({}, {}, {}, models=models), image)
    change = value / 255 * (models[1] - models[0])
    assert visited(left, "look").all()
    assert (visited(left, "stare") == (change > within)).all()
    step = 1 / 255  # scores are stored as bytes
    found = np.abs(np.asarray(left.scores) - np.asarray(whole.scores))
    assert found.max() <= q * (within + step) + step


def test_leaving_needs_what_both_passes_answer_alike(lab: Lab) -> None:
    tree = recipe({}, {"exit": {"by": "convergence", "within": 0.1}}, {})
    tree["passes"][0]["model"]["classes"] = ["other"]
    summary = lab.run_all(tree, {"one": blocks()})
    assert "convergence compares the classes it shares with 'glance'" in str(summary.quarantined)


def test_exits_take_tiles_away_and_add_none(lab: Lab) -> None:
    image = blocks(11)
    judged = {"select": {"by": "threshold", "at_least": 0.3, "statistic": "mean"}}
    for rule in (CONFIDENT, {"by": "all", "of": [CONFIDENT, CONFIDENT | {"scope": "image"}]}):
        found = lab.run(recipe({"exit": rule}, judged, judged), image)
        free = lab.run(recipe({}, judged, judged), image)
        for name in ("look", "stare"):
            assert not (visited(found, name) & ~visited(free, name)).any()


def test_a_pass_leaves_by_its_models_own_confidence_where_it_states_one(lab: Lab) -> None:
    image = blocks()
    image[..., 1] = np.kron(np.arange(16).reshape(4, 4) * 17, np.ones((BLOCK, BLOCK)))
    tree = recipe({"exit": CONFIDENT}, {}, {})
    tree["passes"][0]["model"] = {"source": "fake_models.py:with_confidence"}
    doubted = {"by": "uncertainty", "measure": "doubt", "statistic": "mean", "fraction": 0.5}
    found = lab.run(tree, image)
    sure = np.arange(16).reshape(4, 4) * 17 / 255 >= 0.9
    assert (visited(found, "look") == ~sure).all()
    del tree["passes"][0]["exit"]
    tree["passes"][1]["select"] = doubted
    found = lab.run(tree, image)
    assert (visited(found, "look") == (np.arange(16).reshape(4, 4) < 8)).all()
