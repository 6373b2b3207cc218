"""Which settings are tried, and which is taken."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
from fakes import plane_spec
from hypothesis import given
from hypothesis import strategies as st

from saccade.pipeline.capacity import Capacity
from saccade.pipeline.execution import (
    BATCH_MOST_PX,
    WINDOW_MOST_PX,
    WORTHWHILE,
    Calibration,
    ExecutionSetting,
    SearchSpace,
    Trial,
    choose,
    search,
)
from saccade.pipeline.layout import PassLayout, lay_out
from saccade.pipeline.models.base import ModelSpec
from saccade.pipeline.recipe import Output, PassRecipe, Tolerance

REFERENCE = ExecutionSetting("float32", False, 512, 1)
EXECUTION = ("precision", "channels_last", "fused", "graphed")
settings = st.builds(
    ExecutionSetting,
    st.sampled_from(["float32", "bfloat16", "float16"]),
    st.booleans(),
    st.sampled_from([0, 256, 512, 1024]),
    st.integers(1, 64),
    st.booleans(),
    st.booleans(),
)
trials = st.builds(
    Trial,
    settings,
    st.floats(0.01, 10),
    st.floats(0, 0.01),
    st.floats(0.99, 1),
    st.none(),
    st.sampled_from(["", "", "", "no kernel"]),
)
references = st.builds(Trial, st.just(REFERENCE), st.floats(0.01, 10), st.just(0.0), st.just(1.0))
tolerances = st.builds(Tolerance, mean=st.floats(0, 0.01), labels=st.floats(0.99, 1))


def pass_recipe(**details: Any) -> PassRecipe:
    tree = {"name": "one", "resolution": {"level": 0}, "model": "builtin:tissue"}
    return PassRecipe.model_validate(tree | details)


def layout_of(recipe: PassRecipe, index: int = 1, side: int = 5003, **spec: Any) -> PassLayout:
    declared = ModelSpec(("it",), **({"halo_px": 32, "multiple": 8} | spec))
    return lay_out(recipe, index, plane_spec(side, side), declared, Output())


def space_of(kind: str = "cpu", index: int = 1, side: int = 5003, **details: Any) -> SearchSpace:
    recipe = pass_recipe(**details)
    return SearchSpace.of(layout_of(recipe, index, side), recipe, kind, Capacity(512**2))


# ------------------------------------------------------------------------------------- the choice


@given(references, st.lists(trials, max_size=12), tolerances)
def test_the_choice_is_within_the_tolerance_or_the_reference(
    reference: Trial, others: list[Trial], tolerance: Tolerance
) -> None:
    chosen = choose([reference, *others], tolerance)
    assert chosen is reference or chosen.within(tolerance)


@given(references, st.lists(trials, max_size=12), tolerances)
def test_nothing_that_may_be_chosen_is_faster_by_more_than_what_is_noise(
    reference: Trial, others: list[Trial], tolerance: Tolerance
) -> None:
    chosen = choose([reference, *others], tolerance)
    fit = [reference, *(trial for trial in others if trial.within(tolerance))]
    best = min(trial.seconds_per_megapixel for trial in fit)
    assert chosen.seconds_per_megapixel <= best * (1 + WORTHWHILE)
    earlier = fit[: [id(trial) for trial in fit].index(id(chosen))]
    assert all(one.seconds_per_megapixel > best * (1 + WORTHWHILE) for one in earlier)


def test_the_first_of_equals_is_taken_so_that_noise_does_not_leave_the_reference() -> None:
    reference = Trial(REFERENCE, 1.0, 0.0, 1.0)
    other = Trial(replace(REFERENCE, precision="bfloat16"), 0.97, 0.0, 1.0)
    assert choose([reference, other], Tolerance()) is reference
    assert choose([reference, other], Tolerance(), worthwhile=0.0) is other


def test_the_reference_is_taken_where_no_tolerance_is_left() -> None:
    reference = Trial(REFERENCE, 1.0, 0.0, 1.0)
    other = Trial(replace(REFERENCE, precision="bfloat16"), 0.1, 1e-9, 1.0)
    assert choose([reference, other], Tolerance(mean=0)) is reference


def test_a_setting_that_failed_is_never_within_a_tolerance() -> None:
    anything = Tolerance(mean=1, labels=0)
    assert not Trial.failed(REFERENCE, "").within(anything)


@pytest.mark.parametrize(
    "wrong", [{"precision": "float8"}, {"window_px": -1}, {"batch": 0}, {"precision": "auto"}]
)
def test_a_setting_that_can_t_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected; found"):
        replace(REFERENCE, **wrong)


# ------------------------------------------------------------------------------------- the search


def test_graphs_are_tried_last_and_only_where_batches_repeat_on_a_gpu() -> None:
    made = search(
        space_of("cuda"), Tolerance(), measured({"float32": 7, "bfloat16": 3, "float16": 5})
    )
    assert [trial.setting.graphed for trial in made].index(True) == len(made) - 1
    assert not space_of("cpu").graphs
    assert not space_of("cuda", index=0, side=503).graphs


def test_a_setting_of_another_version_is_not_understood() -> None:
    said = asdict(
        Calibration(
            (Trial(REFERENCE, 1.0, 0.0, 1.0),), Trial(REFERENCE, 1.0, 0.0, 1.0), 1.0, "", ""
        )
    )
    assert Calibration.from_dict(said).chosen.setting == REFERENCE
    del said["chosen"]["setting"]["fused"]
    with pytest.raises(ValueError, match="found"):
        Calibration.from_dict(said)


def measured(paces: dict[str, float]) -> Any:
    """A measure by arithmetic, exact whatever is asked."""

    def measure(setting: ExecutionSetting) -> Trial:
        return Trial(setting, paces[setting.precision] / setting.window_px, 0.0, 1.0)

    return measure


def test_every_property_is_tried_from_the_best_setting_so_far() -> None:
    space = space_of()
    made = search(space, Tolerance(), measured({"float32": 7, "bfloat16": 3}))
    bfloat16 = replace(REFERENCE, precision="bfloat16")
    assert [trial.setting for trial in made] == [
        REFERENCE,
        bfloat16,
        replace(bfloat16, channels_last=True),
        replace(bfloat16, fused=True),
        replace(bfloat16, window_px=256, batch=2),
        replace(bfloat16, window_px=1024),
    ]
    assert choose(made, Tolerance()).setting == ExecutionSetting("bfloat16", False, 1024, 1)


def test_an_arithmetic_beyond_the_tolerance_is_not_searched_further() -> None:
    def measure(setting: ExecutionSetting) -> Trial:
        error = 0.0 if setting.precision == "float32" else 0.01
        return Trial(setting, 1.0 if error == 0 else 0.1, error, 1.0)

    made = search(space_of(), Tolerance(), measure)
    assert sum(t.setting.precision == "bfloat16" for t in made) == 1
    assert choose(made, Tolerance()).setting.precision == "float32"


def test_a_setting_for_which_there_is_no_time_is_passed_over_and_the_rest_goes_on() -> None:
    exact = measured({"float32": 7, "bfloat16": 3})

    def measure(setting: ExecutionSetting) -> Trial | None:
        return None if setting.window_px == 256 else exact(setting)

    sides = [t.setting.window_px for t in search(space_of(), Tolerance(), measure)]
    assert 256 not in sides
    assert 1024 in sides


def test_no_setting_is_tried_twice() -> None:
    made = search(
        space_of("cuda"), Tolerance(), measured({"float32": 7, "bfloat16": 3, "float16": 5})
    )
    assert len({t.setting for t in made}) == len(made)


@given(st.sampled_from(["cpu", "cuda"]), st.sampled_from([97, 503, 5003]), st.integers(0, 1))
def test_what_is_tried_nests_with_the_layout(kind: str, side: int, index: int) -> None:
    recipe = pass_recipe()
    layout = layout_of(recipe, index, side)
    space = SearchSpace.of(layout, recipe, kind, Capacity(512**2))
    for stage in space.stages():
        for setting in stage(space.reference):
            applied = setting.applied_to(layout)
            assert ExecutionSetting.of(applied) == setting
            assert applied.shard_px == layout.shard_px
            assert setting.window_px % layout.tile_px == 0
            # a shard that is wider than a window holds whole ones: no narrow rest is left over
            tiles = applied.window_tiles or 1
            assert layout.shard_tiles % tiles == 0 or tiles % layout.shard_tiles == 0
            assert setting.window_px <= max(WINDOW_MOST_PX[kind], space.reference.window_px)


@pytest.mark.parametrize(
    ("details", "spec"),
    [
        ({"window": 768}, {}),
        ({"blend": "hann"}, {}),
        ({"context": [2.0]}, {}),
        ({}, {"local": False}),
    ],
)
def test_a_window_that_is_stated_or_may_not_merge_is_kept(
    details: dict[str, Any], spec: dict[str, Any]
) -> None:
    recipe = pass_recipe(**details)
    assert SearchSpace.of(layout_of(recipe, **spec), recipe, "cpu", Capacity(512**2)).windows == ()


def test_a_pass_that_goes_through_at_once_keeps_its_window() -> None:
    recipe = pass_recipe()
    layout = layout_of(recipe, 0, 503)
    assert layout.window_tiles == 0
    space = SearchSpace.of(layout, recipe, "cuda", Capacity(512**2))
    assert space.windows == space.batches == ()
    assert len(space.precisions) == 3


def test_windows_larger_than_the_image_are_not_tried() -> None:
    assert [side for side, _ in space_of(side=300).windows] == [256, 512]
    assert [side for side, _ in space_of(side=5003).windows] == [256, 512, 1024]


def test_a_batch_is_searched_on_a_gpu_alone_and_within_its_limit() -> None:
    assert space_of("cpu").batches == ()
    assert space_of("cuda", batch=3).batches == ()
    space = space_of("cuda")
    *_, batches, _ = space.stages()
    tried = [one.batch for one in batches(replace(REFERENCE, window_px=1024))]
    assert tried[:3] == [1, 2, 4]
    assert tried[-1] * (1024 + 2 * 32) ** 2 <= BATCH_MOST_PX["cuda"]


def test_a_stated_batch_stays_whatever_the_window() -> None:
    assert {batch for _, batch in space_of(batch=3).windows} == {3}


def test_a_layout_without_a_setting_of_its_own_computes_in_float32_as_loaded() -> None:
    tree = layout_of(pass_recipe()).to_dict()
    older = {k: v for k, v in tree.items() if k not in EXECUTION}
    layout = PassLayout.from_dict(older)
    assert (layout.precision, layout.channels_last) == ("float32", False)
    assert layout == PassLayout.from_dict(tree)


# ------------------------------------------------------------------------------------ the record


@given(references, st.lists(trials, max_size=5))
def test_a_calibration_survives_json(reference: Trial, others: list[Trial]) -> None:
    made = Calibration((reference, *others), reference, 1.5, "a device", "an image")
    assert Calibration.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    assert made.to_dict() == asdict(made)
