"""Some of an image's bands, in the order that a model wants them, as stored or as measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from saccade.pipeline.errors import RecipeError
from saccade.pipeline.geometry import Box
from saccade.pipeline.sources.averaged import AveragedSource, Unrounded
from saccade.pipeline.sources.bands import Samples
from saccade.pipeline.sources.base import Source
from saccade.pipeline.sources.wrapped import Wrapped


def find_channels(source: Source, asked: Sequence[int | str]) -> tuple[int, ...]:
    """The channels, counted from 0, that a recipe asks for by name or by number from 1.

    Raises:
        RecipeError: the image has no such band.
    """
    return tuple(_channel(source, one) for one in asked)


def _channel(source: Source, asked: int | str) -> int:
    names = list(source.channel_names)
    if isinstance(asked, str) and asked in names:
        return names.index(asked)
    if isinstance(asked, int) and 1 <= asked <= source.channels:
        return asked - 1
    listed = ", ".join(f"{number} {name!r}" for number, name in enumerate(names[:32], 1))
    raise RecipeError(
        f"{source.uri}: band {asked!r} is asked for; bands are named, or numbered from 1: {listed}"
    )


def seen_through(source: Source, channels: Sequence[int] | None, *, scaled: bool) -> Source:
    """What a pass reads of an image: the image itself, where nothing is chosen or scaled.

    Args:
        source: the image.
        channels: counted from 0, in this order; None for all.
        scaled: whether samples are multiplied by their band's scale, plus its offset.
    """
    if channels is None and not scaled:
        return source
    if scaled and isinstance(source, AveragedSource):
        source = Unrounded(source)
    return SomeBands(source, range(source.channels) if channels is None else channels, scaled)


class SomeBands(Wrapped):
    """Some bands of an image; scaled ones are float32, and NaN where they hold no data."""

    def __init__(self, inner: Source, channels: Sequence[int], scaled: bool) -> None:
        super().__init__(inner)
        self._which, self._scaled = tuple(channels), scaled
        chosen = [inner.bands[channel] for channel in self._which]
        self.channels = len(chosen)
        self.channel_names = tuple(band.name for band in chosen)
        self._scale = np.array([band.scale for band in chosen])
        self._offset = np.array([band.offset for band in chosen])
        if scaled:
            self.dtype, self.nodata, self.palette = np.dtype(np.float32), math.nan, None
            chosen = [replace(b, nodata=math.nan, scale=1.0, offset=0.0) for b in chosen]
        self._bands = tuple(chosen)

    def _decode(self, level: int, box: Box) -> np.ndarray:
        return self._decode_valid(level, box, None).pixels

    def _decode_valid(self, level: int, box: Box, channels: Sequence[int] | None) -> Samples:
        asked = range(self.channels) if channels is None else channels
        samples = self.inner.read_valid(level, box, [self._which[index] for index in asked])
        if not self._scaled:
            return samples
        pixels, valid = samples
        which = list(asked)
        measured = (pixels * self._scale[which] + self._offset[which]).astype(np.float32)
        if valid is not None:
            np.copyto(measured, np.float32(math.nan), where=~valid)
        return Samples(measured, valid)
