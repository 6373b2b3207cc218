"""PNG and JPEG files: small enough to be decoded whole, once. Knows no pyramid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from saccade.pipeline.errors import UnsupportedImage
from saccade.pipeline.geometry import Box
from saccade.pipeline.sources.base import Level
from saccade.pipeline.sources.reader import Reader, colour_names, native, numbered, opening
from saccade.pipeline.sources.tile_cache import TileCache

COLOUR_MODES = frozenset({"L", "LA", "RGB", "RGBA"})


class PhotoSource(Reader):
    """A PNG or JPEG, read as stored.

    An EXIF orientation is not applied, a palette is read as its index, and the density that such
    files state is a printing default, so it is not taken for a pixel size. The whole image is
    decoded at the first read and kept until it is closed.

    Raises:
        UnsupportedImage: more pixels than Pillow agrees to decode whole (about 179 million).
        BrokenImage: the header is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.uri = str(path)
        with opening(self.uri, "PNG or JPEG"), self._open() as image:
            width, height = image.size
            self.format = image.format or "photo"
            # the type of one pixel, without decoding any
            sample = np.asarray(Image.new(image.mode, (1, 1)))
            colour = image.mode in COLOUR_MODES
        self.channels = 1 if sample.ndim == 2 else sample.shape[2]
        self.dtype = native(sample.dtype, self.uri)
        self.channel_names = (colour_names if colour else numbered)(self.channels)
        self.levels = (Level((height, width), 1.0, None, self.format),)
        self._cache = TileCache(height * width * self.channels * self.dtype.itemsize)

    def _open(self) -> Image.Image:
        try:
            return Image.open(self.uri, formats=("PNG", "JPEG"))
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise UnsupportedImage(
                f"{self.uri}: too many pixels to decode at once; convert it to a tiled TIFF, "
                "for instance with `vips tiffsave --tile --pyramid --bigtiff`"
            ) from error

    def _decode(self, level: int, box: Box) -> np.ndarray:
        return self._cache.get("whole", self._whole)[box.slices].copy()

    def _whole(self) -> np.ndarray:
        with self._open() as image:
            pixels = np.array(image, self.dtype)
        return pixels.reshape(*self.levels[0].shape, self.channels)

    def close(self) -> None:
        """Drop the decoded image; closing twice is allowed."""
        super().close()
        self._cache.clear()
