"""A torch module as a pass runs it: normalised input in, checked probabilities out.

Applies what the declaration says (mean, std, activation, guidance, context) and holds the module to
it at the first call. Knows no file and no recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from saccade.pipeline.errors import ModelContract
from saccade.pipeline.models.answers import Answer, read_answer
from saccade.pipeline.models.base import ModelSpec, Prediction, Views

RANGE_SLACK = 1e-3
"""Probabilities may leave [0, 1] by this much before the declaration is doubted; they are cut."""


class TorchModel:
    """A ``torch.nn.Module`` behind the ``PassModel`` protocol.

    The module is called as ``module(x)``, with ``guidance=`` and ``context=`` where it declares
    them. A module that answers ``(N, classes)`` is a tile classifier: a window of several tiles of
    ``stride`` pixels is cut into them, and each tile becomes one output pixel.
    """

    def __init__(
        self,
        module: nn.Module,
        spec: ModelSpec,
        *,
        per_tile: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Wrap a module that is in eval mode and on its device already.

        Args:
            module: takes ``(N, C, H, W)`` of ``dtype``.
            spec: what it declares.
            per_tile: whether it is a tile classifier.
            dtype: of its weights; pixels are normalised in float32 and converted afterwards.
        """
        _check_normalisation(spec)
        self.module, self.spec, self.per_tile, self.dtype = module, spec, per_tile, dtype
        self._checked = False

    @torch.inference_mode()
    def __call__(self, views: Views) -> Prediction:
        """Answer for one batch.

        Raises:
            ModelContract: at the first call, when the answer breaks the declaration.
        """
        whole = tuple(views.pixels.shape[-2:])
        tiles = _cut(views, self.spec) if self.per_tile else views
        answer = self.raw(tiles)
        scores = _activated(answer, self.spec)
        if not self._checked:
            self._check(answer, scores, tiles)
            check_extras(answer, tiles.pixels, self.spec)
            self._checked = True
        prediction = _prediction(scores, answer.extras)
        return _pasted(prediction, whole, self.spec) if self.per_tile else prediction

    def raw(self, views: Views) -> Answer:
        """The module's own answer, before activation and checks."""
        spec = self.spec
        inputs: dict[str, Any] = {}
        if spec.guidance:
            if views.guidance is None:
                raise ModelContract(
                    "the model takes guidance and was given none; set 'guidance: true' on its "
                    "pass, or 'guidance: false' on the model"
                )
            inputs["guidance"] = views.guidance.to(self.dtype)
        if spec.context:
            if len(views.context) != len(spec.context):
                raise ModelContract(
                    f"the model takes {len(spec.context)} context views {spec.context}; "
                    f"found {len(views.context)}"
                )
            inputs["context"] = tuple(self._input(view) for view in views.context)
        if spec.takes_features and views.features is not None:
            inputs["features"] = views.features.to(self.dtype)
        if spec.pixel_size != "none":
            inputs["pixel_size"] = _pixel_sizes(views, spec)
        return read_answer(self.module(self._input(views.pixels), **inputs))

    def _input(self, pixels: Tensor) -> Tensor:
        return normalised(pixels, self.spec).to(self.dtype)

    def _check(self, answer: Answer, scores: Tensor, views: Views) -> None:
        check_shape(answer, views.pixels, self.spec)
        low, high = float(scores.min()), float(scores.max())
        if not (low >= -RANGE_SLACK and high <= 1 + RANGE_SLACK):
            raise ModelContract(
                f"scores in [0, 1] expected; found {low:.4g} to {high:.4g} with activation "
                f"{self.spec.activation!r}: "
                "state 'activation: softmax' or 'activation: sigmoid' where the module gives "
                "logits, and check scale, mean and std where the scores are not finite"
            )


def normalised(pixels: Tensor, spec: ModelSpec) -> Tensor:
    """Pixels minus mean, divided by std, per channel; as they are where neither is declared."""
    if spec.mean is not None:
        pixels = pixels - per_channel(spec.mean, pixels.device, pixels.dtype)
    if spec.std is not None:
        pixels = pixels / per_channel(spec.std, pixels.device, pixels.dtype)
    return pixels


def _pixel_sizes(views: Views, spec: ModelSpec) -> Tensor:
    """``(N,)`` float32: the size of every window's pixels, in the unit that the model wants."""
    if views.pixel_sizes is not None:
        return views.pixel_sizes
    size = views.pixel_size_um if spec.pixel_size == "um" else views.downsample
    if size is None:
        raise ModelContract(
            f"the model wants to be told its pixel size as {spec.pixel_size!r}; the image states "
            "none: give it in the manifest's column 'mpp' or 'gsd'"
        )
    return views.pixels.new_full((len(views.pixels),), size, dtype=torch.float32)


@lru_cache(64)  # copying from the host would make it wait for the device at every batch
def per_channel(
    values: tuple[float, ...], device: torch.device, dtype: torch.dtype = torch.float32
) -> Tensor:
    """``(1, C, 1, 1)``: one number per channel, on a device."""
    with torch.inference_mode(mode=False):
        return torch.tensor(values, dtype=dtype, device=device).view(1, -1, 1, 1)


def _check_normalisation(spec: ModelSpec) -> None:
    for name, values in (("mean", spec.mean), ("std", spec.std)):
        if values is not None and len(values) not in (1, spec.channels or len(values)):
            raise ModelContract(
                f"{name} needs one value, or one per channel ({spec.channels}); found {values}"
            )
    if spec.std is not None and min(spec.std) <= 0:
        raise ModelContract(f"std is positive; found {spec.std}")
    if spec.activation == "softmax" and len(spec.classes) == 1:
        raise ModelContract(
            "softmax over one class is always 1; state 'activation: sigmoid', or name two classes"
        )


def _activated(answer: Answer, spec: ModelSpec) -> Tensor:
    raw = answer.scores.float()
    if answer.final or spec.activation == "none":
        return raw
    return raw.softmax(1) if spec.activation == "softmax" else raw.sigmoid()


def _prediction(scores: Tensor, extras: Mapping[str, Tensor]) -> Prediction:
    def unit(key: str) -> Tensor | None:
        return extras[key].float().clamp(0, 1) if key in extras else None

    return Prediction(
        scores.clamp(0, 1),
        unit("saliency"),
        unit("confidence"),
        extras.get("features"),
        extras.get("attention"),
    )


def check_shape(answer: Answer, pixels: Tensor, spec: ModelSpec) -> None:
    """Refuse an answer whose shape is not what the declaration says for these pixels."""
    height, width = pixels.shape[-2:]
    cells = (height // spec.stride, width // spec.stride)
    expected = (pixels.shape[0], len(spec.classes), *cells)
    found = tuple(answer.scores.shape)
    if answer.per_tile and cells == (1, 1):
        found = (*found, 1, 1)
    if found != expected:
        raise ModelContract(
            f"scores of shape {expected} expected for an input of {tuple(pixels.shape)} with "
            f"{len(spec.classes)} classes {spec.classes} and stride {spec.stride}; found "
            f"{tuple(answer.scores.shape)}: correct 'classes' or 'stride' of the model"
        )


def check_extras(answer: Answer, pixels: Tensor, spec: ModelSpec) -> None:
    """Refuse an answer that lacks what is declared besides scores, or has it in another shape."""
    n, _, height, width = pixels.shape
    cells = (height // spec.stride, width // spec.stride)
    expected = {name: (n, 1, *cells) for name in ("saliency", "confidence") if getattr(spec, name)}
    if spec.features is not None:
        channels, stride = spec.features
        expected["features"] = (n, channels, height // stride, width // stride)
    for name, shape in expected.items():
        given = answer.extras.get(name)
        found = None if given is None else tuple(given.shape)
        if found != shape:
            raise ModelContract(
                f"{name} of shape {shape} expected for an input of {tuple(pixels.shape)}, because "
                f"the model declares {name!r}; found {found}: correct the declaration, or answer "
                f"with a dictionary that has {name!r}"
            )


def _cut(views: Views, spec: ModelSpec) -> Views:
    """Every tile of every window as a window of its own, row by row."""
    side = spec.stride
    context = tuple(_context_tiles(v, views.pixels, side) for v in views.context)
    guidance = None if views.guidance is None else _tiles(views.guidance, side, side)
    return replace(
        views,
        pixels=_tiles(views.pixels, side, side),
        valid=None,
        guidance=guidance,
        context=context,
        features=_feature_tiles(views.features, spec),
    )


def _feature_tiles(features: Tensor | None, spec: ModelSpec) -> Tensor | None:
    if features is None or spec.features is None:
        return None
    cells = spec.stride // spec.features[1]
    return _tiles(features, cells, cells)


def _tiles(x: Tensor, height: int, width: int) -> Tensor:
    n, c, rows, columns = x.shape[0], x.shape[1], x.shape[2] // height, x.shape[3] // width
    if (rows * height, columns * width) != tuple(x.shape[-2:]):
        raise ModelContract(
            f"windows of whole {height} x {width} tiles expected by a tile classifier; found "
            f"{tuple(x.shape)}: state 'multiple: {height}'"
        )
    grid = x.view(n, c, rows, height, columns, width).permute(0, 2, 4, 1, 3, 5)
    return grid.reshape(n * rows * columns, c, height, width)


def _context_tiles(view: Tensor, pixels: Tensor, side: int) -> Tensor:
    if tuple(pixels.shape[-2:]) == (side, side):
        return view
    raise ModelContract(
        "a tile classifier with context views sees one tile at a time; set the pass's 'window' "
        f"and 'tile' to its stride, {side}; found windows of {tuple(pixels.shape[-2:])}"
    )


def _pasted(p: Prediction, whole: tuple[int, ...], spec: ModelSpec) -> Prediction:
    rows, columns = whole[0] // spec.stride, whole[1] // spec.stride

    def paste(x: Tensor | None) -> Tensor | None:
        if x is None:
            return None
        flat = x.reshape(-1, rows, columns, x[0].numel())
        return flat.permute(0, 3, 1, 2).contiguous()

    def laid_out(x: Tensor | None) -> Tensor | None:
        """Features of every tile beside those of its neighbours."""
        if x is None or x.ndim != 4:
            return paste(x)
        _, channels, height, width = x.shape
        grid = x.reshape(-1, rows, columns, channels, height, width).permute(0, 3, 1, 4, 2, 5)
        return grid.reshape(-1, channels, rows * height, columns * width)

    scores = p.scores.reshape(-1, rows, columns, len(spec.classes)).permute(0, 3, 1, 2)
    attention = p.attention if rows * columns == 1 else None
    return Prediction(
        scores.contiguous(), paste(p.saliency), paste(p.confidence), laid_out(p.features), attention
    )
