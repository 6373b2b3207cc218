"""Draws are decided beforehand, by seed and round alone, and land where they should."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import plane_spec
from hypothesis import given
from hypothesis import strategies as st

from saccade.pipeline.errors import PlanError
from saccade.pipeline.geometry import Box
from saccade.workers.training.config import Augment, Sampling
from saccade.workers.training.groups import Hardest, check_nested, place_crop
from saccade.workers.training.indexing import foreground
from saccade.workers.training.sampling import (
    ImageIndex,
    keeps_guidance,
    plan_round,
    shuffled,
    steps_per_round,
    survey,
)

CELLS = np.argwhere(np.ones((13, 17), bool))
LESION = np.array([[3, 5]])


def index(*lesions: np.ndarray) -> ImageIndex:
    return ImageIndex((13 * 16, 17 * 16), 16.0, lesions, CELLS, look_px=32.0)


def planned(number: int = 0, seed: int = 0, hardest: Hardest | None = None, **sampling: object):  # type: ignore[no-untyped-def]
    asked = Sampling(**{"groups": 3, "per_image": 5, **sampling})
    indices = [index(LESION), index(), index(LESION), index()]
    return plan_round(seed, number, indices, hardest or Hardest(), asked, Augment(), 7)


def test_a_round_is_a_function_of_seed_and_number() -> None:
    assert planned(2, 5) == planned(2, 5)
    assert planned(2, 5) != planned(3, 5)
    assert planned(2, 5) != planned(2, 6)


def test_every_image_is_visited_once_and_every_group_taken_once() -> None:
    plan = planned()
    assert sorted(visit.image for visit in plan.visits) == [0, 1, 2, 3]
    taken = [position for step in plan.steps for position in step]
    assert sorted(taken) == list(range(len(plan.draws)))
    assert len(plan.steps) == steps_per_round(4, Sampling(groups=3, per_image=5)) == 6


def test_a_step_larger_than_all_images_visits_them_again() -> None:
    plan = planned(groups=50)
    assert [len(step) for step in plan.steps] == [50]
    assert len(plan.visits) > 4


@given(total=st.integers(1, 60), pool=st.integers(1, 70), seed=st.integers(0, 9))
def test_no_group_is_taken_before_the_pool_can_hold_it(total: int, pool: int, seed: int) -> None:
    order = shuffled(np.random.default_rng(seed), total, pool)
    assert sorted(order) == list(range(total))
    assert all(position < turn + pool for turn, position in enumerate(order))


def test_lesion_draws_lie_on_truth_within_the_jitter() -> None:
    plan = planned(lesion_share=1.0, hard_share=0.0, jitter=0.25)
    for draw in plan.draws:
        assert draw.kind == ("lesion" if draw.image in (0, 2) else "any")
        if draw.kind == "lesion":
            y, x = draw.centre
            assert 48 - 8 <= y <= 64 + 8
            assert 80 - 8 <= x <= 96 + 8


def test_hard_draws_lie_where_the_glance_was_wrong() -> None:
    hardest = Hardest().updated(1, {(0, 0): (0.9, 100.0, 50.0)}, None)
    plan = planned(hardest=hardest, lesion_share=0.0, hard_share=1.0, jitter=0.0)
    kinds = {draw.image: draw.kind for draw in plan.draws}
    assert kinds == {0: "any", 1: "hard", 2: "any", 3: "any"}
    assert {draw.centre for draw in plan.draws if draw.kind == "hard"} == {(100.0, 50.0)}


def test_processes_share_a_round_without_sharing_an_image() -> None:
    asked, indices = Sampling(groups=4, per_image=4), [index()] * 6
    parts = [plan_round(0, 1, indices, Hardest(), asked, Augment(), 7, rank, 2) for rank in (0, 1)]
    seen = [{visit.image for visit in part.visits} for part in parts]
    assert not seen[0] & seen[1]
    assert len(parts[0].steps) == len(parts[1].steps) == steps_per_round(6, asked, 2)
    assert {len(step) for part in parts for step in part.steps} == {2}


def test_a_mistake_is_forgotten_once_the_glance_no_longer_makes_it() -> None:
    known = Hardest().updated(0, {(0, 0): (0.9, 10.0, 10.0), (5, 5): (0.8, 90.0, 90.0)}, None)
    again = known.updated(0, {}, (0.0, 0.0, 50.0, 50.0))
    assert again.of(0) == ((0.8, 90.0, 90.0),)


def test_guidance_is_dropped_at_its_share() -> None:
    kept = np.concatenate([keeps_guidance(0, step, 10, 1, 0.3) for step in range(200)])
    assert 0.65 < kept.mean() < 0.75
    assert keeps_guidance(0, 3, 10, 1, 0.0).all()


def test_the_survey_is_the_same_at_every_look() -> None:
    assert survey(1, [index(), index()], 3) == survey(1, [index(), index()], 3)


@given(
    y=st.floats(-50, 900),
    x=st.floats(-50, 900),
    crop=st.sampled_from([32, 64, 256]),
    height=st.integers(5, 300),
)
def test_a_crop_lies_as_a_window_of_a_run_does(y: float, x: float, crop: int, height: int) -> None:
    plane = plane_spec(height, 211, downsample=3.0)
    place = place_crop(plane, (y, x), crop, multiple=16, stride=2)
    padded = Box(0, 0, -(-height // 16) * 16, 224)
    assert padded.contains(place.box)
    assert place.box.y0 % 16 == place.box.x0 % 16 == 0
    assert place.box.shape == (min(crop, padded.y1), min(crop, 224))
    rows = place.box.y0, place.box.y1
    if rows[0] > 0 and rows[1] < padded.y1:
        assert abs((rows[0] + rows[1]) / 2 - y / 3) <= 16


def test_crops_that_do_not_nest_are_refused() -> None:
    check_nested((4000, 4000), (4096, 1536, 512), ("a", "b", "c"))
    check_nested((300, 300), (350, 600), ("a", "b"))  # both hold the whole image
    with pytest.raises(PlanError, match="'b'"):
        check_nested((4000, 4000), (512, 1536), ("a", "b"))


@pytest.mark.parametrize("ground", [0, 255])
def test_foreground_is_what_differs_from_the_commonest_brightness(ground: int) -> None:
    image = np.full((40, 50, 3), ground, np.uint8)
    image[10:20, 5:25] = np.random.default_rng(0).integers(90, 150, (10, 20, 3), np.uint8)
    found = foreground(image)
    assert found[10:20, 5:25].all()
    assert found.sum() == 200


def test_where_no_foreground_is_found_all_of_the_image_is() -> None:
    assert foreground(np.full((7, 9, 1), 33, np.uint8)).all()
