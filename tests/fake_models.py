"""Models whose answers a test can predict; recipes name them as ``fake_models.py:NAME``."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from saccade.pipeline.models.base import ModelSpec, Prediction, Views


class Answering:
    """A model made of a declaration and a function."""

    def __init__(self, spec: ModelSpec, answer: Callable[[Views], Prediction]) -> None:
        self.spec, self._answer = spec, answer

    def __call__(self, views: Views) -> Prediction:
        return self._answer(views)


def constant(value: float = 0.7, stride: int = 1, multiple: int = 1, halo: int = 0) -> Answering:
    """The same score everywhere."""

    def answer(views: Views) -> Prediction:
        n, _, height, width = views.pixels.shape
        return Prediction(torch.full((n, 1, height // stride, width // stride), value))

    spec = ModelSpec(("it",), halo, stride, multiple, channels=None)
    return Answering(spec, answer)


def echo(scale: float | None = None, classes: int = 1) -> Answering:
    """The pixels themselves, their first channels as classes."""
    names = tuple(f"channel {i}" for i in range(classes))
    spec = ModelSpec(names, channels=None, scale=scale)
    return Answering(spec, lambda views: Prediction(views.pixels[:, :classes]))


def echo_valid() -> Answering:
    """1 where the image has data."""

    def answer(views: Views) -> Prediction:
        everywhere = torch.ones_like(views.pixels[:, :1])
        return Prediction(everywhere if views.valid is None else views.valid.float())

    return Answering(ModelSpec(("valid",), channels=None), answer)


def echo_guidance(classes: int = 1) -> Answering:
    """The guidance itself."""

    def answer(views: Views) -> Prediction:
        assert views.guidance is not None
        return Prediction(views.guidance)

    names = tuple(f"channel {i}" for i in range(classes))
    return Answering(ModelSpec(names, channels=None, guidance=True), answer)


def echo_context(factors: tuple[float, ...] = (4.0,), which: int = 0) -> Answering:
    """Two channels of one of the wider views."""
    spec = ModelSpec(("y", "x"), channels=None, scale=1, context=tuple(factors))
    return Answering(spec, lambda views: Prediction(views.context[which][:, :2]))


def window_mean(halo: int = 0) -> Answering:
    """The mean of all that the model sees, everywhere: as far from local as can be."""

    def answer(views: Views) -> Prediction:
        mean = views.pixels.mean((1, 2, 3), keepdim=True)
        return Prediction(mean.expand(-1, 1, *views.pixels.shape[-2:]))

    return Answering(ModelSpec(("mean",), halo, channels=None, local=False), answer)


def with_saliency() -> Answering:
    """Red as the score, green as the saliency."""
    spec = ModelSpec(("red",), channels=None, saliency=True)
    return Answering(spec, lambda v: Prediction(v.pixels[:, :1], saliency=v.pixels[:, 1:2]))


def encoder(channels: int = 3, stride: int = 4, limit: float = 1.0) -> Answering:
    """Red as the score, its rest as the confidence, and features that float16 has to round."""

    def answer(views: Views) -> Prediction:
        red = views.pixels[:, :1]
        shares = limit / torch.arange(3, 3 + channels).view(1, -1, 1, 1)
        features = functional.avg_pool2d(red, stride) * shares
        return Prediction(red, confidence=1 - red, features=features)

    spec = ModelSpec(("red",), multiple=stride, channels=None, confidence=True)
    return Answering(spec.with_(features=(channels, stride)), answer)


def echo_features(channels: int = 3, stride: int = 4) -> Answering:
    """The features that it is given, one class each."""

    def answer(views: Views) -> Prediction:
        assert views.features is not None
        return Prediction(views.features, features=views.features)

    names = tuple(f"feature {i}" for i in range(channels))
    spec = ModelSpec(names, stride=stride, multiple=stride, channels=None)
    return Answering(spec.with_(features=(channels, stride), takes_features=channels), answer)


def failing(message: str = "the model is broken") -> Answering:
    """Fails on any window with a bright first pixel."""

    def answer(views: Views) -> Prediction:
        if views.pixels.max() > 0.99:
            raise ArithmeticError(message)
        return Prediction(views.pixels[:, :1])

    return Answering(ModelSpec(("it",), channels=None), answer)


def hungry(fits: int = 2) -> Answering:
    """Runs out of memory with more windows at once than fit."""

    def answer(views: Views) -> Prediction:
        if len(views.pixels) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return Prediction(views.pixels[:, :1])

    return Answering(ModelSpec(("it",), channels=None), answer)


class ConvNet(nn.Module):
    """Three convolutions with zero padding; sees 1 + 2 + 1 pixels in every direction."""

    saccade = ModelSpec(("a", "b"), halo_px=4, activation="softmax")

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 5, 3, padding=1)
        self.second = nn.Conv2d(5, 7, 3, padding=2, dilation=2)
        self.third = nn.Conv2d(7, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.relu(self.first(x))
        return self.third(functional.relu(self.second(hidden)))


class UNet(nn.Module):
    """The shape of a small U-Net: three poolings, three upsamplings, skips; multiple of 8."""

    saccade = ModelSpec(("it",), halo_px=32, multiple=8, activation="sigmoid")

    def __init__(self) -> None:
        super().__init__()
        widths = (4, 6, 8, 8)
        self.down = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1) for a, b in zip((3, *widths), widths, strict=False)
        )
        self.up = nn.ModuleList(
            nn.Conv2d(a + b, b, 3, padding=1)
            for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(widths[0], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level, convolution in enumerate(self.down):
            x = functional.relu(convolution(functional.max_pool2d(x, 2) if level else x))
            skips.append(x)
        x = skips.pop()
        for convolution in self.up:
            x = functional.interpolate(x, scale_factor=2, mode="nearest")
            x = functional.relu(convolution(torch.cat([x, skips.pop()], 1)))
        return self.head(x)


class TileClassifier(nn.Module):
    """One answer per tile: the mean of its red and of its green."""

    def __init__(self, stride: int = 32) -> None:
        super().__init__()
        self.saccade = ModelSpec(("red", "green"), stride=stride, multiple=stride)

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :2].mean((2, 3))


def scaled(factor: float) -> Answering:
    """The first channel of the pixels, so many times as bright."""
    spec = ModelSpec(("it",), channels=None)
    return Answering(spec, lambda views: Prediction(views.pixels[:, :1] * factor))


def with_confidence() -> Answering:
    """Red as the score, green as the confidence."""
    spec = ModelSpec(("red",), channels=None, confidence=True)
    return Answering(spec, lambda v: Prediction(v.pixels[:, :1], confidence=v.pixels[:, 1:2]))


FIRST, DEADLY = (1.0, 0.0, 1.0), (0.0, 1.0, 1.0)
"""Colours of a window's first pixel: of the window that waits for help, and of one that kills."""


def waits_for_help(folder: str = "", dies: str = "") -> Answering:
    """Echoes; whoever gets to the first window waits until somebody's answer lies in scratch.

    Args:
        folder: of runs; empty waits for nobody and never dies.
        dies: 'owner' ends the process that has waited there, 'helper' the one that meets a deadly
            window; the first time only.
    """

    def answer(views: Views) -> Prediction:
        corners = [tuple(pixel.tolist()) for pixel in views.pixels[:, :, 0, 0]]
        if folder and FIRST in corners:
            _wait_for_an_answer(Path(folder))
            _die_once(Path(folder) / "died", dies == "owner")
        if folder and DEADLY in corners and dies == "helper":
            _wait_for_an_answer(Path(folder))  # of its own: it dies with something given
            _die_once(Path(folder) / "died", True)
        return Prediction(views.pixels[:, :1])

    return Answering(ModelSpec(("it",), channels=None), answer)


def _wait_for_an_answer(folder: Path) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and not list(folder.rglob("scratch/**/*.npz")):
        time.sleep(0.01)


def _die_once(flag: Path, deadly: bool) -> None:
    if deadly and not flag.exists():
        flag.touch()
        os._exit(9)
