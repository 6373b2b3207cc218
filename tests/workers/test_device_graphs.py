"""Replaying forward passes: the answer is the model's own, whatever the graph does."""

from __future__ import annotations

from dataclasses import replace

import fake_models
import pytest
import torch
from fakes import noise, plane_spec
from torch import Tensor

from saccade.pipeline.layout import lay_out
from saccade.pipeline.models.base import ModelSpec, PassModel, Prediction, Views
from saccade.pipeline.recipe import Output, PassRecipe
from saccade.workers.device import Predictor
from saccade.workers.device_graphs import SHAPES_MOST, Graphs, kept
from saccade.workers.reading import WindowPixels


class FakeGraph:
    """Reads the views it was captured with and writes to one place, as a graph does."""

    def __init__(self, model: PassModel, views: Views) -> None:
        self._model, self._views = model, views
        self.answer = model(views)
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1
        found = self._model(self._views)
        for name, part in kept(found).items():
            kept(self.answer)[name].copy_(part)


class WrongGraph(FakeGraph):
    def replay(self) -> None:
        super().replay()
        self.answer.scores.add_(1e-7)


class Made:
    """Captures fake graphs and keeps them."""

    def __init__(self, kind: type[FakeGraph] = FakeGraph) -> None:
        self.kind, self.graphs = kind, list[FakeGraph]()

    def __call__(self, model: PassModel, views: Views) -> FakeGraph:
        self.graphs.append(self.kind(model, views))
        return self.graphs[-1]


def doubling(calls: list[int] | None = None) -> PassModel:
    def answer(views: Views) -> Prediction:
        if calls is not None:
            calls.append(len(views.pixels))
        return Prediction(views.pixels[:, :1] * 0.5, saliency=views.pixels[:, 1:2] * 0.25)

    return fake_models.Answering(ModelSpec(("it",), saliency=True), answer)


def views(seed: int, count: int = 2, side: int = 7) -> Views:
    pixels = torch.rand((count, side, side, 3), generator=torch.Generator().manual_seed(seed))
    return Views(pixels.permute(0, 3, 1, 2))


def same(one: Prediction, other: Prediction) -> bool:
    assert one.saliency is not None
    assert other.saliency is not None
    return torch.equal(one.scores, other.scores) and torch.equal(one.saliency, other.saliency)


def test_every_batch_gets_the_answer_of_the_model_and_later_answers_leave_earlier_ones() -> None:
    made = Made()
    graphs = Graphs(doubling(), made)
    given = [views(seed) for seed in range(5)]
    answers = [graphs(one) for one in given]
    assert all(same(a, doubling()(one)) for a, one in zip(answers, given, strict=True))
    assert [graph.replays for graph in made.graphs] == [5]
    assert not graphs.refusals


def test_what_was_given_is_neither_changed_nor_kept() -> None:
    graphs = Graphs(doubling(), Made())
    one, before = views(1), views(1)
    graphs(one)
    graphs(views(2))
    assert torch.equal(one.pixels, before.pixels)


def test_inputs_keep_their_memory_order() -> None:
    made = Made()
    one = views(1)
    Graphs(doubling(), made)(one)
    assert made.graphs[0]._views.pixels.stride() == one.pixels.stride()


def test_every_shape_has_a_graph_of_its_own_up_to_a_limit() -> None:
    made = Made()
    graphs = Graphs(doubling(), made)
    for side in range(3, 3 + SHAPES_MOST + 2):
        one = views(side, side=side)
        assert same(graphs(one), doubling()(one))
        assert same(graphs(one), doubling()(one))
    assert len(made.graphs) == SHAPES_MOST


def mask(value: bool) -> Tensor:
    return torch.full((2, 1, 7, 7), value)


@pytest.mark.parametrize(
    "other",
    [
        replace(views(1), valid=mask(True)),
        replace(views(1), guidance=torch.zeros(2, 1, 7, 7)),
        replace(views(1), context=(torch.zeros(2, 3, 7, 7),)),
        replace(views(1), pixel_size_um=0.25),
        replace(views(1), downsample=2.0),
        replace(views(1), features=torch.zeros(2, 5, 3, 3)),
        replace(views(1), pixels=views(1).pixels.double()),
    ],
)
def test_views_that_differ_in_kind_share_no_graph(other: Views) -> None:
    made = Made()
    graphs = Graphs(doubling(), made)
    graphs(views(1))
    graphs(other)
    assert len(made.graphs) == 2


def test_all_that_a_model_sees_reaches_its_graph() -> None:
    graphs = Graphs(fake_models.echo_valid(), Made())
    for value in (True, False, True):
        found = graphs(replace(views(1), valid=mask(value)))
        assert torch.equal(found.scores, mask(value).float())


def test_features_reach_a_graph_and_all_that_a_run_stores_comes_back_from_it() -> None:
    def answer(views: Views) -> Prediction:
        assert views.features is not None
        red = views.pixels[:, :1]
        return Prediction(red, red / 2, red / 3, views.features * 2)

    graphs = Graphs(fake_models.Answering(ModelSpec(("it",)), answer), Made())
    answers = []
    for value in (1.0, 2.0, 3.0):
        given = replace(views(1), features=torch.full((2, 5, 3, 3), value))
        answers.append(graphs(given).features)
    assert [float(one.mean()) for one in answers if one is not None] == [2, 4, 6]
    assert set(kept(graphs(given))) == {"scores", "saliency", "confidence", "features"}


def test_a_graph_that_answers_otherwise_by_a_bit_is_refused_and_the_model_answers() -> None:
    made = Made(WrongGraph)
    graphs = Graphs(doubling(), made)
    for seed in range(3):
        assert same(graphs(views(seed)), doubling()(views(seed)))
    assert list(graphs.refusals.values()) == ["its graph does not answer as the model does"]
    assert [graph.replays for graph in made.graphs] == [1]


def test_a_model_that_can_t_be_captured_answers_itself_and_is_not_tried_again() -> None:
    tries: list[int] = []

    def refuse(model: PassModel, views: Views) -> FakeGraph:
        tries.append(1)
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    graphs = Graphs(doubling(), refuse)
    for seed in range(3):
        assert same(graphs(views(seed)), doubling()(views(seed)))
    assert tries == [1]
    (reason,) = graphs.refusals.values()
    assert reason == ("no graph can be captured: operation not permitted when stream is capturing")


def test_batches_that_are_not_full_are_computed() -> None:
    recipe = PassRecipe.model_validate(
        {"name": "one", "resolution": {"level": 0}, "model": "builtin:tissue", "tile": 7}
    )
    model = doubling()
    layout = replace(lay_out(recipe, 1, plane_spec(97, 89), model.spec, Output()), batch=3)
    made = Made()
    predict = Predictor(model, layout, "cpu", graphs=Graphs(model, made))
    for count in (2, 3, 1, 3):
        windows = [WindowPixels(noise(7, 7 + i)[:, :7]) for i in range(count)]
        whole = Predictor(model, layout, "cpu")(windows)
        assert (predict(windows).scores == whole.scores).all()
    assert [len(graph._views.pixels) for graph in made.graphs] == [3]
