"""Losses, schedule, hard negatives and reading ahead, each by itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from saccade.pipeline.errors import ReadError
from saccade.workers.training.config import LossRecipe, Optimiser, Stage
from saccade.workers.training.feeding import Errand, Feeder
from saccade.workers.training.groups import Draw, Group, Visit
from saccade.workers.training.losses import (
    answer_loss,
    gain_between,
    is_right,
    own_loss,
    squashed,
)
from saccade.workers.training.schedule import Schedule
from saccade.workers.training.state import Average
from saccade.workers.training.teaching import edges

LOGITS = torch.linspace(-3, 3, 60).view(1, 2, 5, 6)
TRUTH = (torch.arange(60).view(1, 2, 5, 6) % 7 == 0).float()
ALL = torch.ones(1, 1, 5, 6, dtype=torch.bool)


@pytest.mark.parametrize("recipe", [LossRecipe(), LossRecipe(kind="focal"), LossRecipe(dice=1.0)])
def test_what_does_not_count_changes_no_loss(recipe: LossRecipe) -> None:
    counts = ALL.clone()
    counts[..., 3:, :] = False
    changed = LOGITS.clone()
    changed[..., 3:, :] = 50.0
    a = answer_loss(LOGITS, TRUTH, counts, recipe)
    b = answer_loss(changed, TRUTH, counts, recipe)
    assert torch.equal(a, b)


@pytest.mark.parametrize("recipe", [LossRecipe(), LossRecipe(kind="focal"), LossRecipe(dice=1.0)])
def test_the_right_answer_loses_least(recipe: LossRecipe) -> None:
    right = (TRUTH * 2 - 1) * 20
    assert answer_loss(right, TRUTH, ALL, recipe) < 1e-4
    assert answer_loss(-right, TRUTH, ALL, recipe) > 1


def test_a_focal_loss_of_no_focus_is_cross_entropy() -> None:
    plain = answer_loss(LOGITS, TRUTH, ALL, LossRecipe())
    focal = answer_loss(LOGITS, TRUTH, ALL, LossRecipe(kind="focal", gamma=0))
    torch.testing.assert_close(plain, focal)


def test_nothing_that_counts_is_no_loss_and_no_nan() -> None:
    logits = LOGITS.clone().requires_grad_()
    loss = answer_loss(logits, TRUTH, ~ALL, LossRecipe(dice=1.0))
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0
    assert not logits.grad.isnan().any()  # type: ignore[union-attr]


def test_a_positive_weight_per_class_counts_each_class_so() -> None:
    one = answer_loss(LOGITS, torch.ones_like(LOGITS), ALL, LossRecipe(positive_weight=(1, 3)))
    each = [
        answer_loss(LOGITS[:, [k]], torch.ones_like(LOGITS[:, [k]]), ALL, LossRecipe())
        for k in (0, 1)
    ]
    torch.testing.assert_close(one, (each[0] + 3 * each[1]) / 2)


def test_the_gain_is_what_the_finer_answer_is_nearer_by() -> None:
    truth = torch.tensor([[[1.0, 0.0]]])
    unsure, sure = torch.full((1, 1, 2), 0.5), torch.tensor([[[0.9, 0.1]]])
    gain = gain_between(unsure, sure, truth)
    torch.testing.assert_close(gain, torch.full((1, 1, 2), float(np.log(0.9 / 0.5))))
    assert float(squashed(torch.tensor(-1.0), 0.1)) == 0
    assert float(squashed(torch.tensor(0.1), 0.1)) == pytest.approx(1 - np.exp(-1))


def test_confidence_is_taught_whether_every_class_is_right() -> None:
    scores = torch.tensor([[[[0.9]], [[0.2]]], [[[0.9]], [[0.7]]]])
    truth = torch.tensor([[[[1.0]], [[0.0]]], [[[1.0]], [[0.0]]]])
    right = is_right(scores, truth)
    assert right.flatten().tolist() == [1.0, 0.0]
    counts = torch.ones(2, 1, 1, 1, dtype=torch.bool)
    assert own_loss(right, right, counts) < 1e-4 < own_loss(1 - right, right, counts)


def test_a_schedule_says_who_learns_and_runs_no_pass_for_nothing() -> None:
    stages = (Stage(steps=3, train=("b",)), Stage(steps=5, train=("a", "c")))
    schedule = Schedule(("a", "b", "c"), stages, Optimiser(warmup=2, freeze_norm_after=0.5))
    assert schedule.steps == 8
    assert [schedule.at(step).learns for step in (0, 2, 3)] == [
        (False, True, False),
        (False, True, False),
        (True, False, True),
    ]
    assert [schedule.at(step).count for step in (0, 3)] == [2, 3]
    assert [schedule.at(step).norms_frozen for step in (3, 4)] == [False, True]
    rates = [schedule.at(step).rate for step in range(8)]
    assert max(rates) == rates[2] == pytest.approx(2e-3)
    assert rates == sorted(rates[:3]) + sorted(rates[3:], reverse=True)


def test_the_running_mean_of_what_stands_still_is_that() -> None:
    state = {"a": torch.tensor([2.0]), "n": torch.tensor(3)}
    average = Average(0.9, {"a": torch.tensor([0.0]), "n": torch.tensor(0)})
    for step in range(300):
        average.follow(state, step)
    assert float(average.held["a"]) == pytest.approx(2.0, abs=1e-3)
    assert int(average.held["n"]) == 3


@pytest.mark.parametrize("ratio", [1.5, 2.0, 5.3])
def test_a_teachers_scores_go_to_the_cell_their_centre_lies_in(ratio: float) -> None:
    found = edges(2, 6, ratio, 1000)
    cells = ((np.arange(1000) + 0.5) // ratio).astype(int)
    expected = [np.flatnonzero(cells == cell)[0] for cell in range(2, 7)]
    assert found.tolist() == expected


def errand(first: int, size: int) -> Errand:
    draws = tuple(Draw(0, (float(first + i), 0.0)) for i in range(size))
    return Errand(Visit(0, 1.0, draws), (0, first), (1,) * size)


def test_no_more_groups_wait_than_the_pool_holds() -> None:
    begun: list[Any] = []
    three = threading.Event()

    def read(visit: Visit, passes: Sequence[int]) -> Iterator[Group]:
        begun.append(visit)
        if len(begun) == 3:
            three.set()
        yield from (Group(draw, ()) for draw in visit.draws)

    with Feeder(read, most=6, threads=2) as feeder:
        feeder.submit(errand(3 * i, 3) for i in range(5))
        for position in (4, 0):
            assert feeder.take((0, position)).draw.centre[0] == position
        assert len(begun) == 2
        feeder.take((0, 5))
        assert three.wait(60)
        assert len(begun) == 3


def test_what_goes_wrong_while_reading_is_raised_where_the_group_is_taken() -> None:
    def read(visit: Visit, passes: Sequence[int]) -> Iterator[Group]:
        raise ReadError("the file is damaged there")
        yield  # pragma: no cover

    with Feeder(read, most=6, threads=1) as feeder:
        feeder.submit([errand(0, 2)])
        with pytest.raises(ReadError, match="damaged"):
            feeder.take((0, 1))
