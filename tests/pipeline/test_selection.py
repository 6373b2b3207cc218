"""Every selector: order, ties, budgets, nesting; and the record of why."""

from __future__ import annotations

import json
from fractions import Fraction
from math import ceil
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.pipeline.choosing import best_first, dilate
from saccade.pipeline.errors import RecipeError
from saccade.pipeline.gain import GainCurve
from saccade.pipeline.geometry import Grid
from saccade.pipeline.saliency import Column, TileTable, needed_columns
from saccade.pipeline.selection import FORCED, Selection, select
from saccade.pipeline.selectors import (
    AllTiles,
    Budget,
    Dilate,
    Escalate,
    Foreground,
    Proposals,
    Selector,
    Threshold,
    TopFraction,
    TopK,
    Uncertainty,
    Union,
    When,
)

GRID = Grid((5 * 7, 11 * 7), 7)
N = len(GRID)
SALIENCY = Column("saliency", "top")


def choose(selector: Selector, scores: Any, grid: Grid = GRID, **changes: Any) -> Selection:
    """Select with every column holding the same scores and, by default, all tiles alike."""
    n = len(grid)
    table = TileTable({c: np.asarray(scores, np.float32) for c in needed_columns(selector)})
    facts = {
        "cost_px": np.full(n, 49),
        "candidates": np.ones(n, bool),
        "forced": np.zeros(n, bool),
    }
    return select(selector, table, grid=grid, **(facts | changes))


def scores_with_ties() -> st.SearchStrategy[list[float]]:
    value = st.sampled_from([0.0, 0.1, 0.5, 0.7, 1.0, float("nan")])
    return st.lists(value, min_size=N, max_size=N)


def masks() -> st.SearchStrategy[np.ndarray]:
    return st.lists(st.booleans(), min_size=N, max_size=N).map(lambda flags: np.array(flags, bool))


FRACTIONS = st.floats(0, 1)

# One of each that judges by score, with room for one tile.
WITH_ROOM_FOR_ONE: list[Selector] = [
    TopFraction(fraction=0.001),
    TopK(k=1),
    Threshold(at_least=0.9),
    Budget(pixels=49),
    Uncertainty(fraction=0.001),
    Uncertainty(fraction=0.001, measure="entropy"),
    Dilate(of=TopK(k=1)),
    Union(of=(TopK(k=1), TopFraction(fraction=0))),
    TopK(k=1, within=Threshold(at_least=0.1)),
    Foreground(share=0.9),
]


@pytest.mark.parametrize("selector", WITH_ROOM_FOR_ONE, ids=lambda s: s.by)
@pytest.mark.parametrize("planted", [0, 17, N - 1])
def test_the_highest_scored_tile_is_chosen_by_every_selector_with_room_for_one(
    selector: Selector, planted: int
) -> None:
    scores = np.linspace(0, 0.8, N)
    scores[planted] = 0.95
    chosen = choose(selector, scores).tiles
    assert planted in chosen
    assert len(chosen) < N / 2


@given(scores_with_ties(), masks(), st.integers(0, N + 3))
def test_top_k_takes_the_highest_and_of_equal_ones_the_lowest_number(
    scores: list[float], candidates: np.ndarray, k: int
) -> None:
    ranked = sorted((-s, i) for i, s in enumerate(scores) if candidates[i] and s == s)
    expected = sorted(i for _, i in ranked[:k])
    assert list(choose(TopK(k=k), scores, candidates=candidates).tiles) == expected


@given(scores_with_ties(), masks(), FRACTIONS)
def test_a_fraction_is_rounded_up_to_whole_tiles(
    scores: list[float], candidates: np.ndarray, fraction: float
) -> None:
    found = choose(TopFraction(fraction=fraction), scores, candidates=candidates)
    whole = ceil(Fraction(repr(fraction)) * int(candidates.sum()))
    valid = int((candidates & ~np.isnan(scores)).sum())
    assert len(found.tiles) == min(whole, valid)
    assert found.candidates == candidates.sum()


def test_a_decimal_fraction_of_whole_tiles_is_not_rounded_up_once_more() -> None:
    assert 0.07 * 100 > 7  # in floating point
    found = choose(TopFraction(fraction=0.07), np.linspace(0, 1, 100), grid=Grid((100, 1), 1))
    assert len(found.tiles) == 7


@given(scores_with_ties(), masks(), FRACTIONS, FRACTIONS)
@pytest.mark.parametrize("kind", [TopFraction, Uncertainty])
def test_a_larger_fraction_contains_a_smaller_one(
    kind: Any, scores: list[float], candidates: np.ndarray, a: float, b: float
) -> None:
    small, large = (
        set(choose(kind(fraction=f), scores, candidates=candidates).tiles) for f in sorted((a, b))
    )
    assert small <= large


@given(scores_with_ties(), masks(), st.floats(0, 1, width=32))
def test_a_threshold_takes_every_candidate_that_reaches_it(
    scores: list[float], candidates: np.ndarray, at_least: float
) -> None:
    found = choose(Threshold(at_least=at_least), scores, candidates=candidates).tiles
    limit = np.float32(at_least)
    assert set(found) == {
        i for i, s in enumerate(scores) if candidates[i] and np.float32(s) >= limit
    }


@pytest.mark.parametrize("value", [0.1, 0.3, 0.7, 0.9])
def test_a_score_equal_to_the_decimal_threshold_reaches_it(value: float) -> None:
    assert len(choose(Threshold(at_least=value), np.full(N, value)).tiles) == N
    assert len(choose(Foreground(share=value), np.full(N, value)).tiles) == N


COSTS = st.lists(st.integers(1, 97), min_size=N, max_size=N).map(np.array)


@given(scores_with_ties(), masks(), COSTS, st.floats(0, 2003))
def test_a_budget_is_never_exceeded_and_nothing_affordable_is_left(
    scores: list[float], candidates: np.ndarray, costs: np.ndarray, pixels: float
) -> None:
    found = choose(Budget(pixels=pixels), scores, candidates=candidates, cost_px=costs).tiles
    spent = costs[list(found)].sum()
    assert spent <= pixels
    worth = {i for i, s in enumerate(scores) if candidates[i] and s > 0}
    assert set(found) <= worth
    assert all(spent + costs[i] > pixels for i in worth - set(found))


def test_a_budget_buys_by_gain_per_cost_and_skips_what_does_not_fit() -> None:
    grid = Grid((1, 5), 1)
    scores = [0.7, 0.9, 0.5, 0.0, 0.1]
    costs = np.array([3, 13, 5, 1, 7])
    found = choose(Budget(pixels=14), scores, grid=grid, cost_px=costs)
    assert found.tiles == (0, 2)  # then 1 and 4 no longer fit, and 3 is worth nothing
    found = choose(Budget(pixels=15), scores, grid=grid, cost_px=costs)
    assert found.tiles == (0, 2, 4)  # 1 gains most, but less per pixel than 0 and 2


def test_a_budget_of_seconds_is_one_of_pixels_at_the_measured_speed() -> None:
    scores = np.linspace(0.01, 1, N)
    seconds = choose(Budget(seconds=3.0), scores, seconds_per_pixel=3 / (49 * 7)).tiles
    assert seconds == choose(Budget(pixels=49 * 7), scores).tiles
    assert len(seconds) == 7


def test_a_budget_of_seconds_needs_a_measured_speed() -> None:
    with pytest.raises(RecipeError, match="needs the model's measured speed"):
        choose(Budget(seconds=3), np.zeros(N))


@given(scores_with_ties(), masks(), st.integers(0, 7), FRACTIONS)
def test_a_union_is_that_of_its_parts(
    scores: list[float], candidates: np.ndarray, k: int, at_least: float
) -> None:
    parts: tuple[Selector, ...] = (TopK(k=k), Threshold(at_least=at_least), Foreground())
    found = choose(Union(of=parts), scores, candidates=candidates).tiles
    alone = [set(choose(part, scores, candidates=candidates).tiles) for part in parts]
    assert set(found) == set().union(*alone)


@given(scores_with_ties(), st.integers(0, 5), st.integers(1, 13))
def test_dilate_adds_every_tile_within_its_reach_and_no_other(
    scores: list[float], k: int, reach: int
) -> None:
    inner = choose(TopK(k=k), scores).tiles
    found = choose(Dilate(of=TopK(k=k), tiles=reach), scores).tiles
    cells = [GRID.cell(i) for i in inner]
    expected = {
        i
        for i in range(N)
        for y, x in cells
        if max(abs(GRID.cell(i)[0] - y), abs(GRID.cell(i)[1] - x)) <= reach
    }
    assert set(inner) <= set(found)
    assert set(found) == expected


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 97))
def test_dilating_twice_is_dilating_by_the_sum(a: int, b: int, seed: int) -> None:
    cells = np.random.default_rng(seed).random((13, 17)) < 0.02
    assert (dilate(dilate(cells, a), b) == dilate(cells, a + b)).all()


def test_dilate_may_leave_the_candidates_and_what_stands_around_it_may_not() -> None:
    candidates = np.zeros(N, bool)
    candidates[12] = True
    around = Dilate(of=TopK(k=1))
    found = choose(around, np.ones(N), candidates=candidates)
    assert found.tiles == (0, 1, 2, 11, 12, 13, 22, 23, 24)
    inside = choose(TopK(k=N, within=around), np.ones(N), candidates=candidates)
    assert inside.tiles == (12,)


@given(scores_with_ties(), masks(), FRACTIONS, FRACTIONS)
def test_within_bounds_the_choice_and_is_what_a_fraction_counts(
    scores: list[float], candidates: np.ndarray, fraction: float, at_least: float
) -> None:
    outer = Threshold(at_least=at_least)
    allowed = choose(outer, scores, candidates=candidates).tiles
    nested = TopFraction(fraction=fraction, within=outer)
    found = choose(nested, scores, candidates=candidates).tiles
    assert set(found) <= set(allowed)
    assert len(found) == ceil(Fraction(repr(fraction)) * len(allowed))


@given(masks(), masks())
def test_all_takes_every_candidate(candidates: np.ndarray, forced: np.ndarray) -> None:
    found = choose(AllTiles(), [], candidates=candidates, forced=forced).tiles
    assert set(found) == set(np.flatnonzero(candidates | forced))


# Forced tiles

NOTHING: list[Selector] = [TopK(k=0), Budget(pixels=0), Threshold(at_least=1), Foreground(share=1)]


@pytest.mark.parametrize("selector", NOTHING, ids=lambda s: s.by)
def test_forced_tiles_are_always_chosen_and_say_so(selector: Selector) -> None:
    forced = np.isin(np.arange(N), [3, 19])
    found = choose(selector, np.full(N, np.nan), forced=forced)
    assert found.tiles == (3, 19)
    assert found.counts() == {FORCED: 2}
    assert found.thresholds == {}


@given(scores_with_ties(), masks(), FRACTIONS)
def test_forced_tiles_are_judged_by_nobody(
    scores: list[float], forced: np.ndarray, fraction: float
) -> None:
    found = choose(TopFraction(fraction=fraction), scores, forced=forced)
    alone = choose(TopFraction(fraction=fraction), scores, candidates=~forced)
    assert set(found.tiles) == {*alone.tiles, *np.flatnonzero(forced).tolist()}
    assert found.candidates == alone.candidates


def test_a_budget_pays_for_forced_tiles_first() -> None:
    forced = np.isin(np.arange(N), [3, 19])
    found = choose(Budget(pixels=49 * 5), np.linspace(0.01, 1, N), forced=forced)
    assert found.tiles == (3, 19, N - 3, N - 2, N - 1)


# The record


def test_the_record_says_why_each_tile_was_chosen() -> None:
    scores = np.linspace(0, 1, N)
    tree = Union(of=(TopK(k=2), Dilate(of=Threshold(at_least=0.99)), Uncertainty(fraction=0)))
    found = choose(tree, scores, forced=np.arange(N) == 0)
    why = dict(zip(found.tiles, (found.reasons[i] for i in found.reason_of), strict=True))
    assert why == {
        0: FORCED,
        N - 1: f"top_k 2 of saliency: score >= {scores[-2]:.3g}",
        N - 2: f"top_k 2 of saliency: score >= {scores[-2]:.3g}",
        N - 13: "dilated by 1",
        N - 12: "dilated by 1",
    }
    assert found.thresholds == {
        "union[0].top_k": pytest.approx(scores[-2]),
        "union[1].dilate.threshold": 0.99,
    }


def test_thresholds_are_found_under_the_place_of_their_selector() -> None:
    tree = TopFraction(fraction=0.3, within=Foreground(share=0.5))
    found = choose(tree, np.linspace(0, 1, N))
    assert set(found.thresholds) == {"top_fraction", "top_fraction.within.foreground"}
    lowest = min(np.linspace(0, 1, N)[list(found.tiles)])
    assert found.thresholds["top_fraction"] == pytest.approx(lowest)
    assert found.reasons == (f"top_fraction 0.3 of saliency: score >= {lowest:.3g}",)


@given(scores_with_ties(), masks())
def test_a_selection_survives_json(scores: list[float], forced: np.ndarray) -> None:
    tree = Union(of=(TopK(k=3), Dilate(of=Budget(pixels=101)), Foreground(share=0.6)))
    found = choose(tree, scores, forced=forced)
    text = json.dumps(found.to_dict(), allow_nan=False)
    assert Selection.from_dict(json.loads(text)) == found


@given(scores_with_ties(), masks(), st.permutations(range(3)))
def test_the_choice_depends_neither_on_repetition_nor_on_the_order_of_a_unions_parts(
    scores: list[float], candidates: np.ndarray, order: list[int]
) -> None:
    parts: list[Selector] = [TopK(k=3), TopFraction(fraction=0.2), Threshold(at_least=0.7)]
    first = choose(Union(of=tuple(parts)), scores, candidates=candidates)
    assert choose(Union(of=tuple(parts)), scores, candidates=candidates) == first
    other = choose(Union(of=tuple(parts[i] for i in order)), scores, candidates=candidates)
    assert other.tiles == first.tiles


def test_the_mask_is_the_selection_on_the_grid() -> None:
    mask = choose(TopK(k=3), np.linspace(0, 1, N)).mask(GRID)
    assert mask.shape == (5, 11)
    assert np.argwhere(mask).tolist() == [[4, 8], [4, 9], [4, 10]]


def test_a_selection_can_not_be_changed() -> None:
    found = choose(TopK(k=3), np.linspace(0, 1, N))
    with pytest.raises(ValueError, match="read-only"):
        found.reason_of[0] = 1


def test_a_selection_out_of_order_is_refused() -> None:
    reasons = np.zeros(2, np.uint8)
    with pytest.raises(ValueError, match="ascending and differ"):
        Selection((5, 3), reasons, ("all",), {}, 7)
    with pytest.raises(ValueError, match="3 tiles, but 2 reasons"):
        Selection((2, 3, 5), reasons, ("all",), {}, 7)


@pytest.mark.parametrize("name", ["cost_px", "candidates", "forced"])
def test_facts_that_do_not_fit_the_grid_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: one value for each of {N} tiles"):
        choose(AllTiles(), [], **{name: np.ones(N - 1, int)})


def test_a_tile_that_costs_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="every tile costs at least 1; found 0"):
        choose(AllTiles(), [], cost_px=np.arange(N))


def test_more_reasons_than_a_byte_counts_are_refused() -> None:
    tree = Union(of=tuple(TopK(k=i) for i in range(1, 302)))
    grid = Grid((1, 307), 1)
    with pytest.raises(RecipeError, match="at most 256 parts; found 301"):
        choose(tree, np.linspace(0, 1, 307), grid=grid)


# Bounds on a threshold, and escalation


@given(scores_with_ties(), masks(), FRACTIONS, FRACTIONS, FRACTIONS)
def test_a_threshold_bounded_by_shares_takes_the_best_and_no_more_nor_fewer(
    scores: list[float], candidates: np.ndarray, at_least: float, a: float, b: float
) -> None:
    least, most = sorted((a, b))
    bounded = Threshold(at_least=at_least, least=least, most=most)
    found = choose(bounded, scores, candidates=candidates).tiles
    free = choose(Threshold(at_least=at_least), scores, candidates=candidates).tiles
    low, high = (ceil(Fraction(repr(share)) * int(candidates.sum())) for share in (least, most))
    valid = int((candidates & ~np.isnan(scores)).sum())
    assert len(found) == min(max(len(free), low), high, valid)
    assert found == choose(TopK(k=len(found)), scores, candidates=candidates).tiles


def test_the_record_says_which_bound_decided() -> None:
    scores = np.linspace(0, 1, N)
    raised = choose(Threshold(at_least=1, least=0.1), scores)
    assert len(raised.tiles) == 6
    assert raised.thresholds["threshold"] == pytest.approx(scores[-6])
    assert "at least a share of 0.1: score >=" in raised.reasons[0]
    cut = choose(Threshold(at_least=0, most=0.1), scores)
    assert cut.tiles == raised.tiles
    assert "at most a share of 0.1: score >=" in cut.reasons[0]
    free = choose(Threshold(at_least=0.5, least=0.1, most=0.9), scores)
    assert free.thresholds["threshold"] == 0.5


def test_a_share_at_least_that_is_above_the_share_at_most_is_refused() -> None:
    with pytest.raises(ValueError, match=r"least 0.5, most 0.3; swap them"):
        Threshold(at_least=0.5, least=0.5, most=0.3)


def escalating(above: float) -> Escalate:
    when = When(signal="entropy", statistic="mean", above=above)
    return Escalate(of=TopK(k=2), to=TopFraction(fraction=0.5), when=when)


def test_an_unsure_image_is_given_to_the_other_selector_and_says_so() -> None:
    scores = np.linspace(0, 1, N)
    found = choose(escalating(0.3), scores)
    assert found.tiles == choose(TopFraction(fraction=0.5), scores).tiles
    assert found.thresholds["escalate.when"] == pytest.approx(0.5)
    assert found.thresholds["escalate.to.top_fraction"] == pytest.approx(0.5)
    (reason,) = found.reasons
    assert reason.startswith("escalated: mean entropy 0.5 above 0.3; top_fraction 0.5 of saliency")
    sure = choose(escalating(0.7), scores)
    assert sure.tiles == (N - 2, N - 1)
    assert sure.thresholds["escalate.when"] == pytest.approx(0.5)
    assert "escalated" not in sure.reasons[0]


@given(scores_with_ties(), masks(), FRACTIONS)
def test_an_image_is_escalated_by_the_mean_of_its_candidates_alone(
    scores: list[float], candidates: np.ndarray, above: float
) -> None:
    known = [s for s, may in zip(scores, candidates, strict=True) if may and s == s]
    mean = float(np.mean(np.float32(known))) if known else 0.0
    if abs(mean - above) < 1e-6:
        return
    chosen = TopFraction(fraction=0.5) if mean > above else TopK(k=2)
    expected = choose(chosen, scores, candidates=candidates).tiles
    assert choose(escalating(above), scores, candidates=candidates).tiles == expected


def test_what_escalates_needs_the_columns_of_all_its_parts() -> None:
    assert needed_columns(escalating(0.5)) == (
        Column("entropy", "mean"),
        SALIENCY,
    )


# Gains


def test_a_calibrated_threshold_is_stated_in_gains() -> None:
    curve = GainCurve(scores=(0.2, 0.6), gains=(0.01, 0.09))
    scores = np.linspace(0, 1, N)
    found = choose(Threshold(at_least=0.05, calibration=curve), scores)
    assert list(found.tiles) == [i for i in range(N) if scores[i] >= 0.4]
    assert found.reasons == ("threshold of saliency: gain >= 0.05",)


def test_a_calibrated_budget_buys_gains() -> None:
    grid = Grid((1, 3), 1)
    scores, costs = [0.5, 0.6, 0.9], np.array([1, 1, 4])
    assert choose(Budget(pixels=1), scores, grid=grid, cost_px=costs).tiles == (1,)
    worth = GainCurve(scores=(0.6, 0.9), gains=(0.0, 0.9))
    found = choose(Budget(pixels=4, calibration=worth), scores, grid=grid, cost_px=costs)
    assert found.tiles == (2,)


# Direction


def judging(room: int) -> list[Selector]:
    """One of each selector that judges by score, with room for a few tiles of many."""
    share = room / N
    top = TopK(k=room)
    return [
        TopFraction(fraction=share),
        top,
        Threshold(at_least=0.9),
        Threshold(at_least=0.99, least=share),
        Threshold(at_least=0.01, most=share),
        Threshold(at_least=0.9, calibration=GainCurve(scores=(0, 1), gains=(0, 1))),
        Budget(pixels=49 * room),
        Budget(share=share),
        Uncertainty(fraction=share),
        Uncertainty(fraction=share, measure="doubt"),
        Proposals(alpha=1.5, cells=1, min_area=1),
        Foreground(share=0.9),
        Dilate(of=top),
        Union(of=(top, TopK(k=0))),
        Escalate(of=TopK(k=0), to=top, when=When(above=0.01)),
        Escalate(of=top, to=TopK(k=0), when=When(above=0.99)),
    ]


def finds_what_was_planted(selector: Selector, planted: int, scores: np.ndarray) -> bool:
    tiles = choose(selector, scores).tiles
    return planted in tiles and len(tiles) < N / 2


def planted_scores(planted: int) -> np.ndarray:
    scores = np.random.default_rng(planted).uniform(0.1, 0.3, N)
    scores[planted] = 0.95
    scores[(planted + N // 2) % N] = 0.01  # what ascending order would take first, far away
    return scores


@pytest.mark.parametrize("planted", [0, 17, N - 1])
@pytest.mark.parametrize("selector", judging(3), ids=lambda s: s.by)
def test_a_planted_salient_tile_is_chosen_by_every_judging_selector(
    selector: Selector, planted: int
) -> None:
    assert finds_what_was_planted(selector, planted, planted_scores(planted))


@pytest.mark.parametrize("selector", judging(1), ids=lambda s: s.by)
def test_the_rule_above_fails_where_the_order_is_ascending(selector: Selector) -> None:
    # the mirror image of the scores orders tiles the other way round, for thresholds as well
    mirrored = 1.05 - planted_scores(17)
    assert not finds_what_was_planted(selector, 17, mirrored)


def test_the_rule_above_fails_where_best_first_sorts_ascending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def worst_first(scores: np.ndarray, pool: np.ndarray) -> np.ndarray:
        return best_first(-scores, pool)

    monkeypatch.setattr("saccade.pipeline.judging.best_first", worst_first)
    ranking = [s for s in judging(3) if isinstance(s, TopK | TopFraction | Uncertainty)]
    ranking += [Budget(share=0.05), Budget(pixels=49 * 3), Threshold(at_least=0.99, least=0.05)]
    for selector in ranking:
        assert not finds_what_was_planted(selector, 17, planted_scores(17)), selector
