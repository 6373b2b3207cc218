"""Backbones of timm (PyTorch Image Models): tile classifiers, or dense features and a linear head.

R. Wightman, PyTorch Image Models, doi:10.5281/zenodo.4414861. Among them MViTv2 (Y. Li et al.,
MViTv2: Improved Multiscale Vision Transformers, CVPR 2022, arXiv 2112.01526), EfficientFormer and
EfficientFormerV2 (Y. Li et al., NeurIPS 2022, arXiv 2206.01191; ICCV 2023, arXiv 2212.08059).
"""

from __future__ import annotations

from difflib import get_close_matches
from functools import partial
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from saccade.pipeline.errors import ModelContract, ModelNotFound
from saccade.pipeline.models.borrowing import (
    Borrowed,
    Wanted,
    activation_for,
    first_line,
    sees_all,
)
from saccade.pipeline.models.cells import InCells
from saccade.pipeline.models.dense_head import DenseHead
from saccade.pipeline.models.extras import imported

OWN = ("features", "level", "pretrained", "tile")
"""Options of this adapter; all others go to ``timm.create_model``."""


def from_timm(wanted: Wanted) -> Borrowed:
    """The backbone of this name.

    Options: ``pretrained`` takes timm's own weights; ``tile`` is the side of a classifier's tile,
    by default what it was trained on; ``features: true`` reads the feature map of ``level`` (by
    default the last) through a linear head instead of classifying tiles.

    Raises:
        ModelNotFound: timm is missing, it has no such model, or weights can't be had.
        ModelContract: an option is wrong.
    """
    timm = imported("timm", "timm")
    if not (":" in wanted.name or timm.is_model(wanted.name)):
        near = get_close_matches(wanted.name, timm.list_models(), n=5)
        raise ModelNotFound(
            f"{wanted.source}: a model of timm {timm.__version__} expected; there is none of that "
            f"name; near it: {', '.join(near) or 'nothing'}"
        )
    dense = wanted.option("features", bool, False)
    return _dense(timm, wanted) if dense else _classifier(timm, wanted)


class TileClassifier(nn.Module):
    """A backbone that says one thing of a whole tile, and the embedding that it said it from."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Logits ``(N, classes)`` and features ``(N, F, 1, 1)``."""
        features = self.model.forward_features(x)
        embedding = self.model.forward_head(features, pre_logits=True)
        scores = self.model.forward_head(features)
        return {"scores": scores, "features": embedding[:, :, None, None]}


def _classifier(timm: ModuleType, wanted: Wanted) -> Borrowed:
    given = {} if wanted.count is None else {"num_classes": wanted.count}
    model, config = _created(timm, wanted, given)
    own_count = model.pretrained_cfg.get("num_classes")
    if wanted.option("pretrained", bool, False) and wanted.count not in (None, own_count):
        raise ModelContract(
            f"{wanted.source}: {own_count} classes expected, which its pretrained head was "
            f"trained on; found {wanted.count} {wanted.classes}: name as many, or give 'weights' "
            "of a head for yours"
        )
    side = _side(wanted, config)
    declaration = _declared(config, model.num_classes)
    declaration |= {"stride": side, "multiple": side}
    embedding = getattr(model, "head_hidden_size", None) or model.num_features
    declaration["features"] = (embedding, side)
    return Borrowed(TileClassifier(model), declaration, model)


def _dense(timm: ModuleType, wanted: Wanted) -> Borrowed:
    if wanted.count is None:
        raise ModelContract(
            f"{wanted.source}: a linear head over features needs to know what it scores: state "
            "'classes'"
        )
    level = wanted.option("level", int, -1)
    given = {"features_only": True, "out_indices": (level,)}
    model, config = _created(timm, wanted, given)
    channels, stride = model.feature_info.channels()[-1], model.feature_info.reduction()[-1]
    head = DenseHead(
        model, partial(_only_map, channels_last=_is_nhwc(model)), channels, wanted.count
    )
    declaration = _declared(config, wanted.count)
    declaration |= {"stride": stride, "multiple": stride, "features": (channels, stride)}
    # pretrained: the backbone is timm's, and a file holds the head alone
    weighed = head.head if wanted.option("pretrained", bool, False) else head
    if wanted.option("tile", int, None) or model.pretrained_cfg.get("fixed_input_size"):
        side = _side(wanted, config)
        cells = {"multiple": side, "halo_px": 0}
        return Borrowed(InCells(head, side), declaration | cells, weighed)
    local = {"local": False} if sees_all(model) else {}
    return Borrowed(head, declaration | local, weighed)


def _only_map(maps: Any, *, channels_last: bool) -> Tensor:
    """The feature map that was asked for, ``(N, F, h, w)``."""
    (found,) = maps
    result: Tensor = found.permute(0, 3, 1, 2) if channels_last else found
    return result


def _is_nhwc(model: Any) -> bool:
    return str(getattr(model, "output_fmt", "")).endswith("NHWC")


def _created(timm: ModuleType, wanted: Wanted, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The module of timm and what it was trained on."""
    pretrained = wanted.option("pretrained", bool, False)
    given = {"pretrained": pretrained, **given, **wanted.others(*OWN)}
    side = wanted.option("tile", int, None)
    try:
        model = _of_size(timm, wanted.name, given, side)
    except (OSError, ImportError) as error:
        raise ModelNotFound(
            f"{wanted.source}: pretrained weights expected from timm's source or its cache; "
            f"{first_line(error)}: connect once to fill the cache, or give 'weights' and leave "
            "'pretrained' out"
        ) from error
    except Exception as error:
        raise ModelContract(
            f"{wanted.source}: timm can't build it with {given}: {first_line(error)}"
        ) from error
    return model, timm.data.resolve_model_data_config(model)


def _of_size(timm: ModuleType, name: str, given: dict[str, Any], side: int | None) -> Any:
    """Models whose tables depend on the input's size are told it; others take any."""
    if side is None or "img_size" in given:
        return timm.create_model(name, **given)
    try:
        return timm.create_model(name, img_size=side, **given)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        return timm.create_model(name, **given)


def _side(wanted: Wanted, config: dict[str, Any]) -> int:
    side = wanted.option("tile", int, None) or config["input_size"][-1]
    return int(side)


def _declared(config: dict[str, Any], count: int) -> dict[str, Any]:
    return {
        "mean": tuple(config["mean"]),
        "std": tuple(config["std"]),
        "channels": config["input_size"][0],
        "activation": activation_for(count),
    }
