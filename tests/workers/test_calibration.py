"""Measuring settings on an image's own pixels. No test looks at a real clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import fake_models
import numpy as np
import pytest
import torch
from fakes import FakeSource, noise
from torch import Tensor, nn

from saccade.pipeline.capacity import Capacity
from saccade.pipeline.execution import ExecutionSetting, SearchSpace, Trial, choose
from saccade.pipeline.geometry import Box
from saccade.pipeline.layout import PassLayout, lay_out
from saccade.pipeline.models.base import ModelForm, ModelSpec, PassModel, Prediction, Views
from saccade.pipeline.models.casting import in_form
from saccade.pipeline.models.wrap import TorchModel
from saccade.pipeline.recipe import Output, PassRecipe, Tolerance
from saccade.pipeline.sources.plane import Plane, locate
from saccade.workers.calibration import (
    ROUNDS,
    Bench,
    Subject,
    calibrate,
    labels_of,
)
from saccade.workers.device_graphs import Graphs
from saccade.workers.sampling import PLACES, SAMPLES, find_samples, window_at

TILE = 16
ENOUGH = 1e9
ANY = Tolerance(mean=1, labels=0)


class Ticks:
    """A clock on which every look takes one second."""

    def __init__(self) -> None:
        self.looks = 0

    def __call__(self) -> float:
        self.looks += 1
        return float(self.looks)


class Absorbing(nn.Module):
    """Adds and takes away what float32 can hold beside a sample and bfloat16 can't."""

    saccade = ModelSpec(("it",))

    def forward(self, x: Tensor) -> Tensor:
        return (x[:, :1] + 300) - 300


def conv_net() -> TorchModel:
    torch.manual_seed(2027)
    return TorchModel(
        fake_models.ConvNet().eval().requires_grad_(False), fake_models.ConvNet.saccade
    )


def subject_of(
    model: PassModel, image: np.ndarray | FakeSource, index: int = 1, **details: Any
) -> tuple[Subject, SearchSpace]:
    source = image if isinstance(image, FakeSource) else FakeSource(image)
    tile = {} if index == 0 else {"tile": TILE}
    recipe = PassRecipe.model_validate(
        {"name": "one", "resolution": {"level": 0}, "model": "builtin:tissue", **tile, **details}
    )
    plane = Plane(source, locate(source, level=0))
    layout = lay_out(recipe, index, plane.spec, model.spec, Output(chunk=16, shard=64))

    def models(form: ModelForm) -> PassModel:
        return in_form(model, form)

    return Subject(plane, layout, models), SearchSpace.of(layout, recipe, "cpu", Capacity(64**2))


def samples_of(subject: Subject, space: SearchSpace) -> list[Box]:
    return find_samples(subject.plane, subject.layout, space.largest_window_px)


def trials_of(model: PassModel, image: Any, seconds: float = ENOUGH, **details: Any) -> Any:
    subject, space = subject_of(model, image, **details)
    return calibrate(subject, space, details.pop("tolerance", ANY), seconds, Ticks())


# ------------------------------------------------------------------------------------ the answer


def test_the_reference_comes_first_and_differs_from_nothing() -> None:
    first, *others = trials_of(conv_net(), noise(131, 197))
    assert first.setting.precision == "float32"
    assert (first.mean_error, first.label_agreement) == (0, 1)
    assert {t.setting.precision for t in others} == {"float32", "bfloat16"}


def test_bfloat16_of_a_small_network_is_within_the_default_tolerance() -> None:
    trial = next(
        t for t in trials_of(conv_net(), noise(131, 197)) if t.setting.precision == "bfloat16"
    )
    assert 0 < trial.mean_error <= Tolerance().mean
    assert trial.within(Tolerance(labels=0.99))


def test_a_model_that_bfloat16_breaks_stays_in_float32() -> None:
    model = TorchModel(Absorbing(), Absorbing.saccade)
    subject, space = subject_of(model, noise(131, 197))
    trials = calibrate(subject, space, Tolerance(), ENOUGH, Ticks())
    broken = next(t for t in trials if t.setting.precision == "bfloat16")
    assert broken.mean_error > 0.1
    assert choose(trials, Tolerance()).setting.precision == "float32"


def test_scores_that_are_not_finite_count_as_wholly_wrong() -> None:
    expected = np.full((1, 2, 2), 0.25, np.float32)
    given = expected.copy()
    given[0, 0, 0] = np.nan
    assert labels_of(given, 0.5).tolist() == [[-1, 0], [0, 0]]

    def answer(views: Views) -> Prediction:
        ill = torch.is_autocast_enabled("cpu")
        return Prediction(torch.full_like(views.pixels[:, :1], np.nan if ill else 0.25))

    trials = trials_of(fake_models.Answering(ModelSpec(("it",)), answer), noise(67, 67))
    ill = next(t for t in trials if t.setting.precision == "bfloat16")
    assert (ill.mean_error, ill.label_agreement) == (1, 0)


def test_a_setting_that_the_model_refuses_is_recorded_with_its_reason() -> None:
    def answer(views: Views) -> Prediction:
        if torch.is_autocast_enabled("cpu"):
            raise RuntimeError("no kernel for BFloat16")
        return Prediction(views.pixels[:, :1])

    trials = trials_of(fake_models.Answering(ModelSpec(("it",)), answer), noise(67, 67))
    refused = next(t for t in trials if t.setting.precision == "bfloat16")
    assert "no kernel" in refused.failure
    assert not refused.within(ANY)


def test_a_model_that_fails_in_float32_fails_as_it_would_in_the_run() -> None:
    def answer(views: Views) -> Prediction:
        raise RuntimeError("the model is broken")

    with pytest.raises(RuntimeError, match="broken"):
        trials_of(fake_models.Answering(ModelSpec(("it",)), answer), noise(67, 67))


def test_windows_of_any_size_agree_where_they_answer_for_the_same_tiles() -> None:
    for trial in trials_of(conv_net(), noise(307, 401)):
        if trial.setting.precision == "float32" and not trial.failure:
            assert trial.mean_error < 1e-6


@pytest.mark.parametrize("index", [0, 1])
def test_pixels_are_counted_without_their_halo(index: int) -> None:
    first, *_ = trials_of(conv_net(), noise(307, 401), index=index)
    subject, space = subject_of(conv_net(), noise(307, 401), index=index)
    places = samples_of(subject, space)
    answered = sum(window_at(subject.layout, place).core.area for place in places)
    # each answer lies between two looks at the clock, so it takes a second
    assert first.seconds_per_megapixel == pytest.approx(len(places) / answered * 1e6)


def test_guidance_that_does_not_exist_yet_is_stood_in_for() -> None:
    subject, space = subject_of(fake_models.echo_guidance(), noise(67, 67), guidance=True)
    guided = replace(subject, guidance_classes=1)
    assert calibrate(guided, space, ANY, ENOUGH, Ticks())[0].mean_error == 0


# --------------------------------------------------------------------------------------- the time


def test_the_reference_is_measured_however_little_time_there_is() -> None:
    (only,) = trials_of(conv_net(), noise(131, 197), seconds=1e-9)
    assert only.setting.precision == "float32"


def test_no_setting_is_begun_for_which_no_time_is_left() -> None:
    subject, space = subject_of(conv_net(), noise(307, 401))
    clock = Ticks()
    bench = Bench(subject, samples_of(subject, space), 200.0, clock)
    assert bench(space.reference) is not None
    small = replace(space.reference, window_px=TILE)
    assert bench(small) is not None
    clock.looks += 200
    assert bench(replace(small, channels_last=True)) is None


def test_a_first_try_of_an_arithmetic_is_begun_although_the_reference_used_the_time_up() -> None:
    subject, space = subject_of(conv_net(), noise(307, 401))
    clock = Ticks()
    bench = Bench(subject, samples_of(subject, space), 200.0, clock)
    assert bench(space.reference) is not None
    clock.looks += 200
    other = replace(space.reference, precision="bfloat16")
    assert bench(other) is not None
    assert bench(replace(other, channels_last=True)) is None
    hasty = Bench(subject, samples_of(subject, space), 1e-9, Ticks())
    assert hasty(space.reference) is not None
    assert hasty(other) is None


def test_a_setting_answers_at_least_twice_so_that_warming_up_does_not_count() -> None:
    calls: list[int] = []

    def answer(views: Views) -> Prediction:
        calls.append(1)
        return Prediction(views.pixels[:, :1])

    subject, space = subject_of(fake_models.Answering(ModelSpec(("it",)), answer), noise(307, 401))
    places = samples_of(subject, space)
    Bench(subject, places, 1e-9, Ticks())(space.reference)
    assert len(calls) == ROUNDS[0] * len(places)


# --------------------------------------------------------------------------------- where to measure


def spotted(y: int, x: int) -> np.ndarray:
    """White but for one square of noise."""
    image = np.full((1009, 1013, 3), 240, np.uint8)
    image[y : y + 300, x : x + 300] = noise(300, 300)
    return image


@pytest.mark.parametrize(("y", "x"), [(0, 0), (512, 0), (600, 650)])
def test_samples_lie_where_the_image_has_structure(y: int, x: int) -> None:
    subject, space = subject_of(fake_models.echo(), spotted(y, x), window=128)
    places = samples_of(subject, space)
    assert len(places) == SAMPLES
    spot = Box(y, x, y + 300, x + 300)
    assert all(subject.layout.tiles.span(place).overlaps(spot) for place in places)
    assert places == samples_of(subject, space)


def test_places_that_can_t_be_read_are_not_measured_at() -> None:
    image = FakeSource(spotted(0, 0), broken=(Box(0, 0, 300, 300),))
    subject, space = subject_of(fake_models.echo(), image, window=128)
    places = samples_of(subject, space)
    assert places
    assert not any(
        subject.layout.tiles.span(place).overlaps(Box(0, 0, 300, 300)) for place in places
    )


def test_an_image_of_which_nothing_can_be_read_gives_no_trial() -> None:
    image = FakeSource(noise(67, 71), broken=(Box(0, 0, 67, 71),))
    assert trials_of(fake_models.echo(), image) == ()


@pytest.mark.parametrize("shape", [(1, 1), (17, 5), (509, 97)])
@pytest.mark.parametrize("index", [0, 1])
def test_small_images_are_measured_too(shape: tuple[int, int], index: int) -> None:
    assert trials_of(conv_net(), noise(*shape), index=index)


def test_windows_are_those_of_a_sweep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    subject, space = subject_of(conv_net(), noise(307, 401))
    seen: list[tuple[int, ...]] = []
    whole: Callable[..., Trial] = Bench._tried

    def tried(self: Bench, setting: ExecutionSetting, layout: PassLayout, batches: Any) -> Trial:
        seen.extend(one.window.read.shape for batch in batches for one in batch)
        assert all(layout.tile_px * layout.window_tiles == setting.window_px for _ in batches)
        return whole(self, setting, layout, batches)

    monkeypatch.setattr(Bench, "_tried", tried)
    calibrate(subject, space, ANY, ENOUGH, Ticks())
    halo = subject.layout.halo_px
    sides = {side for side, _ in space.windows} | {space.reference.window_px}
    grid = subject.layout.padded_shape
    assert set(seen) == {tuple(min(side + 2 * halo, edge) for edge in grid) for side in sides}


def test_looking_for_samples_does_not_grow_with_the_image() -> None:
    side = 400_000
    source = FakeSource(np.zeros((1, 1, 3), np.uint8))
    source.levels = (replace(source.levels[0], shape=(side, side)),)
    asked: list[Box] = []

    def read(level: int, box: Box) -> np.ndarray:
        asked.append(box)
        return np.zeros((*box.shape, 3), np.uint8)

    source.read = read  # type: ignore[method-assign]
    subject, space = subject_of(fake_models.echo(), source)
    samples_of(subject, space)
    assert len(asked) <= PLACES + SAMPLES
    assert sum(box.area for box in asked) <= PLACES * 64**2 + SAMPLES * 1024**2


# ----------------------------------------------------------------------------------------- graphs


class Replayed:
    """A graph that adds something from its second replay on; the first is the one checked."""

    def __init__(self, model: PassModel, views: Views, error: float) -> None:
        self._model, self._views, self._error = model, views, error
        self.answer, self._replays = model(views), 0

    def replay(self) -> None:
        self._replays += 1
        self.answer = Prediction(
            self._model(self._views).scores + self._error * (self._replays > 1)
        )


def graphed_trial(error: float, fails: str = "") -> Trial | None:
    def capture(model: PassModel, views: Views) -> Replayed:
        if fails:
            raise RuntimeError(fails)
        return Replayed(model, views, error)

    subject, space = subject_of(conv_net(), noise(307, 401))
    subject = replace(subject, graphs=lambda model: Graphs(model, capture))
    bench = Bench(subject, samples_of(subject, space), ENOUGH, Ticks())
    bench(space.reference)
    return bench(replace(space.reference, graphed=True))


def test_a_graph_is_measured_as_any_setting_and_a_wrong_one_is_beyond_the_tolerance() -> None:
    right, wrong = graphed_trial(0.0), graphed_trial(0.25)
    assert right is not None
    assert right.within(Tolerance(mean=0, labels=1))
    assert wrong is not None
    assert wrong.mean_error > 0.1
    assert not wrong.within(Tolerance())


def test_a_graph_that_can_t_be_captured_is_recorded_with_its_reason() -> None:
    refused = graphed_trial(0.0, fails="the stream is capturing")
    assert refused is not None
    assert "no graph can be captured: the stream is capturing" in refused.failure
