"""An array in memory as an image of one level. Knows no file."""

from __future__ import annotations

import hashlib

import numpy as np

from saccade.pipeline.errors import UnsupportedImage
from saccade.pipeline.geometry import Box
from saccade.pipeline.sources.base import Identity, Level, PixelSize
from saccade.pipeline.sources.reader import Reader, colour_names, native


class ArraySource(Reader):
    """A numpy array ``(H, W)`` or ``(H, W, C)``; it must not be changed while it is in use."""

    format = "array"

    def __init__(
        self,
        array: np.ndarray,
        uri: str = "array",
        pixel_size: PixelSize | None = None,
        nodata: float | None = None,
    ) -> None:
        if array.ndim not in (2, 3) or not array.size:
            raise UnsupportedImage(
                f"{uri}: a non-empty array of axes (y, x) or (y, x, channel) expected, "
                f"found shape {array.shape}"
            )
        self.uri = uri
        self.dtype = native(array.dtype, uri)
        self._pixels = array[:, :, None] if array.ndim == 2 else array
        height, width, self.channels = self._pixels.shape
        self.levels = (Level((height, width), 1.0),)
        self.channel_names = colour_names(self.channels)
        self.pixel_size = pixel_size
        self.nodata = nodata

    def _decode(self, level: int, box: Box) -> np.ndarray:
        return self._pixels[box.slices].astype(self.dtype, order="C", copy=True)

    def identity(self) -> Identity:
        """Hash of shape, type and all bytes."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(f"{self._pixels.shape} {self._pixels.dtype.str}".encode())
        for row in self._pixels:
            digest.update(np.ascontiguousarray(row).data)
        return Identity(self.uri, self._pixels.nbytes, 0, digest.hexdigest())
