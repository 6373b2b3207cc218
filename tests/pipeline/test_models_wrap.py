"""A wrapped module gives checked probabilities, whatever form its answer has."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from saccade.pipeline.errors import ModelContract
from saccade.pipeline.models.base import ModelSpec, PassModel, Prediction, Views
from saccade.pipeline.models.wrap import TorchModel


class Calls(nn.Module):
    """A module made of a function; remembers how it was called."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.inputs: dict[str, Any] = {}

    def forward(self, x: Tensor, **inputs: Any) -> Any:
        self.inputs = {"x": x, **inputs}
        return self.function(x)


def two(x: Tensor) -> Tensor:
    return torch.cat([x[:, :1] - 0.5, 0.5 - x[:, 1:2]], 1) * 7


def pixels(n: int = 2, height: int = 12, width: int = 20) -> Tensor:
    return torch.rand((n, 3, height, width), generator=torch.Generator().manual_seed(23))


def wrap(function: Callable[..., Any], **fields: Any) -> TorchModel:
    return TorchModel(Calls(function), ModelSpec(**{"classes": ("a", "b"), **fields}))


@pytest.mark.parametrize(
    "form",
    [
        lambda s: s,
        lambda s: (s, "auxiliary"),
        lambda s: [s],
        lambda s: {"scores": s},
        lambda s: {"logits": s},
        lambda s: OrderedDict(out=s, aux=s * 0),
    ],
    ids=["tensor", "tuple", "list", "scores", "logits", "torchvision"],
)
def test_every_form_of_answer_gives_the_same_scores(form: Callable[[Tensor], Any]) -> None:
    model = wrap(lambda x: form(two(x)), activation="softmax")
    assert isinstance(model, PassModel)
    torch.testing.assert_close(model(Views(pixels())).scores, two(pixels()).softmax(1))


def test_sigmoid_is_applied_to_each_class_alone() -> None:
    answer = wrap(two, activation="sigmoid")(Views(pixels()))
    torch.testing.assert_close(answer.scores, two(pixels()).sigmoid())


def test_a_prediction_is_final() -> None:
    model = wrap(lambda x: Prediction(x[:, :2], confidence=x[:, 2:]), activation="sigmoid")
    answer = model(Views(pixels()))
    assert torch.equal(answer.scores, pixels()[:, :2])
    assert answer.confidence is not None
    assert torch.equal(answer.confidence, pixels()[:, 2:])


def test_a_dictionary_may_hold_every_extra() -> None:
    def module(x: Tensor) -> dict[str, Tensor]:
        extras = {"saliency": x[:, 2:], "confidence": 1 - x[:, 2:], "features": x[..., ::2, ::2]}
        return {"scores": x[:, :2], "attention": x[..., :12], **extras}

    answer = wrap(module)(Views(pixels()))
    assert torch.equal(answer.saliency, pixels()[:, 2:])  # type: ignore[arg-type]
    assert torch.equal(answer.confidence, 1 - pixels()[:, 2:])  # type: ignore[arg-type]
    assert answer.features.shape == (2, 3, 6, 10)  # type: ignore[union-attr]
    assert answer.attention.shape == (2, 3, 12, 12)  # type: ignore[union-attr]


def test_mean_and_std_are_applied_per_channel_to_pixels_and_context() -> None:
    mean, std = (0.2, 0.3, 0.5), (0.7, 0.11, 0.13)
    model = wrap(lambda x: x[:, :2].sigmoid(), mean=mean, std=std, context=(4.0,))
    model(Views(pixels(), context=(pixels() * 0.5,)))
    seen = model.module.inputs
    by_hand = lambda x: (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)  # noqa: E731
    torch.testing.assert_close(seen["x"], by_hand(pixels()))
    torch.testing.assert_close(seen["context"][0], by_hand(pixels() * 0.5))


def test_guidance_is_passed_as_it_is_and_only_where_declared() -> None:
    guidance = pixels()[:, :2]
    guided = wrap(lambda x: x[:, :2], guidance=True)
    guided(Views(pixels(), guidance=guidance))
    assert torch.equal(guided.module.inputs["guidance"], guidance)
    alone = wrap(lambda x: x[:, :2])
    alone(Views(pixels(), guidance=guidance))
    assert set(alone.module.inputs) == {"x"}


@pytest.mark.parametrize(
    ("function", "fields", "message"),
    [
        (two, {}, "state 'activation"),
        (lambda x: x[:, :2] * float("nan"), {}, "not finite"),
        (lambda x: x, {}, r"\(2, 2, 12, 20\) expected.*\(2, 3, 12, 20\)"),
        (lambda x: x[:, :2, ::2, ::2], {}, r"'classes' or 'stride'"),
        (lambda x: x[:, :2], {"stride": 4}, r"\(2, 2, 3, 5\) expected"),
        (lambda x: {"mask": x}, {}, r"keys \['mask'\]"),
        (lambda x: "text", {}, "found str"),
        (lambda x: x[0], {}, r"shape \(3, 12, 20\)"),
        (lambda x: x[:, :2], {"guidance": True}, "guidance: true"),
        (lambda x: x[:, :2], {"context": (2.0,)}, "1 context views"),
    ],
)
def test_a_broken_declaration_is_an_error_that_says_what_to_do(
    function: Callable[[Tensor], Any], fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelContract, match=message):
        wrap(function, **fields)(Views(pixels()))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"classes": ("a",), "activation": "softmax"}, "sigmoid"),
        ({"mean": (0.1, 0.2)}, "one per channel"),
        ({"std": (0.1, 0.0, 0.2)}, "positive"),
    ],
)
def test_a_declaration_that_can_not_work_is_refused_at_once(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelContract, match=message):
        wrap(two, **fields)


def test_rounding_beyond_the_unit_range_is_cut_off() -> None:
    answer = wrap(lambda x: x[:, :2] * 0 + 1.0005)(Views(pixels()))
    assert float(answer.scores.max()) == 1


def test_a_tile_classifier_answers_once_per_tile_of_a_window() -> None:
    def classify(x: Tensor) -> Tensor:
        assert x.shape[-2:] == (4, 4)
        return x.mean((2, 3))[:, :2]

    spec = ModelSpec(("a", "b"), stride=4, multiple=4)
    answer = TorchModel(Calls(classify), spec, per_tile=True)(Views(pixels()))
    assert answer.scores.shape == (2, 2, 3, 5)
    by_hand = pixels()[1, 1, 8:12, 12:16].mean()
    assert float(answer.scores[1, 1, 2, 3]) == pytest.approx(float(by_hand))


def test_a_tile_classifier_refuses_windows_that_are_not_whole_tiles() -> None:
    spec = ModelSpec(("a", "b"), stride=8)
    model = TorchModel(Calls(lambda x: x.mean((2, 3))[:, :2]), spec, per_tile=True)
    with pytest.raises(ModelContract, match="multiple: 8"):
        model(Views(pixels()))


def test_a_tile_classifier_gives_every_map_per_tile_and_sees_context_of_one_tile_only() -> None:
    def classify(x: Tensor, context: Any = ()) -> dict[str, Tensor]:
        mean = x.mean((2, 3))
        return {"scores": mean[:, :2], "features": mean, "attention": x[:, :, :4]}

    spec = ModelSpec(("a", "b"), stride=4, multiple=4)
    answer = TorchModel(Calls(classify), spec, per_tile=True)(Views(pixels()))
    assert answer.features is not None
    assert answer.features.shape == (2, 3, 3, 5)
    assert torch.equal(answer.features[:, :2], answer.scores)
    assert answer.attention is None
    seen = TorchModel(Calls(classify), spec.with_(context=(2.0,)), per_tile=True)
    tile = pixels()[..., :4, :4]
    assert seen(Views(tile, context=(tile,))).scores.shape == (2, 2, 1, 1)
    with pytest.raises(ModelContract, match="one tile at a time"):
        seen(Views(pixels(), context=(pixels(),)))


def test_no_gradient_is_kept() -> None:
    module = nn.Conv2d(3, 2, 1)
    answer = TorchModel(module, ModelSpec(("a", "b"), activation="sigmoid"))(Views(pixels()))
    assert not answer.scores.requires_grad


EXTRAS = {"saliency": True, "confidence": True, "features": (3, 4)}


def extras_of(x: Tensor) -> dict[str, Tensor]:
    plane = x[:, :1]
    features = torch.nn.functional.avg_pool2d(x, 4)
    return {"scores": x[:, :2], "saliency": plane, "confidence": plane, "features": features}


def test_what_is_declared_besides_scores_is_answered() -> None:
    answer = wrap(extras_of, **EXTRAS)(Views(pixels()))
    assert answer.features is not None
    assert answer.features.shape == (2, 3, 3, 5)


@pytest.mark.parametrize("name", EXTRAS)
@pytest.mark.parametrize("change", [None, lambda x: x[..., 1:]])
def test_a_declared_part_that_is_missing_or_of_another_shape_is_refused(
    name: str, change: Callable[[Tensor], Tensor] | None
) -> None:
    def answer(x: Tensor) -> dict[str, Tensor]:
        parts = extras_of(x)
        part = parts.pop(name)
        return parts if change is None else parts | {name: change(part)}

    with pytest.raises(ModelContract, match=rf"^{name} of shape .* because the model declares"):
        wrap(answer, **EXTRAS)(Views(pixels()))


def test_features_of_tiles_lie_beside_those_of_their_neighbours() -> None:
    def classify(x: Tensor) -> dict[str, Tensor]:
        features = torch.nn.functional.avg_pool2d(x, 2)
        return {"scores": x.mean((2, 3))[:, :2], "features": features}

    spec = ModelSpec(("a", "b"), stride=4, multiple=4, features=(3, 2))
    model, views = TorchModel(Calls(classify), spec, per_tile=True), Views(pixels())
    found = model(views).features
    assert found is not None
    assert torch.equal(found, torch.nn.functional.avg_pool2d(views.pixels, 2))
