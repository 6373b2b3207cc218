"""Decoding one tile or strip of a TIFF directory. Knows no file, cache or level.

What most slides and rasters use is decoded with its codec alone: prepared once per directory, into
an array allocated once, with the interpreter's lock released meanwhile. Anything else is left to
tifffile, whose pixels are the same where both have an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
from tifffile import TiffPage

from saccade.pipeline.errors import UnsupportedImage
from saccade.pipeline.sources.reader import OtherReaderNeeded

JPEG = 7
JPEG_COMPRESSIONS = frozenset({6, JPEG, 33007, 34892})
GREY, RGB, YCBCR = (0, 1), 2, 6
RAW = 1
NO_PREDICTOR, DIFFERENCE, FLOATING_POINT = 1, 2, 3

_deflate = imagecodecs.deflate_decode if imagecodecs.DEFLATE.available else imagecodecs.zlib_decode
BYTE_CODECS: Mapping[int, Callable[..., Any]] = {
    5: imagecodecs.lzw_decode,
    8: _deflate,
    32946: _deflate,
    34926: imagecodecs.zstd_decode,
    50000: imagecodecs.zstd_decode,
}
"""Compressions of plain sample bytes, which a predictor may have changed before."""
IMAGE_CODECS: Mapping[int, Callable[..., Any]] = {
    33003: imagecodecs.jpeg2k_decode,
    33004: imagecodecs.jpeg2k_decode,
    33005: imagecodecs.jpeg2k_decode,
    34712: imagecodecs.jpeg2k_decode,
    50001: imagecodecs.webp_decode,
}
"""Compressions that are pictures of their own, with samples in this machine's byte order."""

Fill = Callable[[bytes, np.ndarray], None]
"""Decodes bytes into all of a C-contiguous ``(height, width, samples)`` array, or raises."""


@dataclass(frozen=True, slots=True)
class TileDecoder:
    """How the tiles or strips of one directory become pixels."""

    dtype: np.dtype[Any]
    """Of the samples, in this machine's byte order."""
    width: int
    """Of a tile or strip, in pixels."""
    samples: int
    """Per pixel of a tile or strip."""
    fill: Fill | None
    """The codec and what it needs to know; None where only tifffile does."""
    otherwise: Callable[[bytes, int], np.ndarray]
    """Tifffile's own decoding of the bytes and number of a tile."""

    @classmethod
    def of(cls, page: TiffPage) -> TileDecoder:
        """The decoder of a directory.

        Raises:
            UnsupportedImage: no decoder for its compression or sample layout.
        """
        otherwise = _tifffile_decode(page)
        samples = int(page.samplesperpixel) if page.planarconfig == 1 else 1
        width = int(page.tilewidth if page.is_tiled else page.imagewidth)
        fill = _fill(page, samples) if _has_whole_samples(page) else None
        return cls(np.dtype(page.dtype).newbyteorder("="), width, samples, fill, otherwise)

    def decode(self, data: bytes, index: int, height: int) -> np.ndarray:
        """Pixels ``(height, width, samples)`` of tile ``index``; fewer where the file has fewer.

        Raises:
            Exception: the bytes are damaged; what the codec says of it.
        """
        if self.fill is not None:
            pixels = np.empty((height, self.width, self.samples), self.dtype)
            try:
                self.fill(data, pixels)
            except (ValueError, RuntimeError):
                # tifffile takes what writers leave incomplete, and names the damage otherwise
                return self.otherwise(data, index)
            return pixels
        return self.otherwise(data, index)


def _tifffile_decode(page: TiffPage) -> Callable[[bytes, int], np.ndarray]:
    """Tifffile's decode function; it refuses here, not at the first read."""
    name = page.parent.filehandle.path
    if page.imagedepth != 1 or page.dtype is None:
        raise UnsupportedImage(
            f"{name}: flat pixels of a known type expected, found depth {page.imagedepth} "
            f"and {page.bitspersample} bits per sample"
        )
    options = {}
    if page.compression in JPEG_COMPRESSIONS:
        options = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}
    try:
        page.decode(None, 0)
    except (ValueError, NotImplementedError, ImportError) as error:
        raise OtherReaderNeeded(f"{name}: no decoder for this TIFF: {error}") from error
    decode = page.decode
    return lambda data, index: decode(data, index, **options)[0][0]


def _has_whole_samples(page: TiffPage) -> bool:
    """Whether samples are ordinary numbers of whole bytes, stored in the ordinary order."""
    ordinary = page.sampleformat in (1, 2, 3) and page.fillorder == 1
    return bool(ordinary and page.bitspersample == np.dtype(page.dtype).itemsize * 8)


def _fill(page: TiffPage, samples: int) -> Fill | None:
    compression = int(page.compression)
    if compression == JPEG:
        return _jpeg(page, samples)
    if codec := IMAGE_CODECS.get(compression):
        return _picture(codec, samples)
    if compression == RAW or compression in BYTE_CODECS:
        return _samples(page, BYTE_CODECS.get(compression))
    return None


def _jpeg(page: TiffPage, samples: int) -> Fill | None:
    """JPEG of 8 bits, grey or colour; colour comes out as RGB."""
    usual = page.photometric in {1: GREY, 3: (RGB, YCBCR)}.get(samples, ())
    if not usual or page.extrasamples or page.bitspersample != 8:
        return None
    # a stream without a JFIF header is in the colours that the directory says
    stored = "RGB" if page.photometric == RGB and not page.is_jfif else None
    wanted, tables = ("RGB" if samples == 3 else None), page.jpegtables

    def fill(data: bytes, out: np.ndarray) -> None:
        imagecodecs.jpeg8_decode(
            data,
            tables=tables,
            colorspace=stored,
            outcolorspace=wanted,
            shape=out.shape[:2],
            out=_squeezed(out),
        )

    return fill


def _picture(codec: Callable[..., Any], samples: int) -> Fill:
    # a WebP may leave out an alpha channel that is opaque throughout
    options = {"hasalpha": True} if codec is imagecodecs.webp_decode and samples == 4 else {}

    def fill(data: bytes, out: np.ndarray) -> None:
        codec(data, out=_squeezed(out), **options)

    return fill


def _squeezed(out: np.ndarray) -> np.ndarray:
    """As codecs of pictures want one channel: without an axis for it."""
    return out[:, :, 0] if out.shape[2] == 1 else out


def _samples(page: TiffPage, decompress: Callable[..., Any] | None) -> Fill | None:
    """Samples as bytes in the file's order, perhaps as differences along a row."""
    predictor, stored = int(page.predictor), np.dtype(page.dtype)
    if predictor not in (NO_PREDICTOR, FLOATING_POINT if stored.kind == "f" else DIFFERENCE):
        return None
    stored = stored.newbyteorder(page.parent.byteorder)
    swapped = not stored.isnative and predictor != FLOATING_POINT

    def fill(data: bytes, out: np.ndarray) -> None:
        flat = out.reshape(-1).view(np.uint8)
        _unpack(data, flat, decompress)
        if swapped:
            out.byteswap(inplace=True)
        if predictor == DIFFERENCE:
            imagecodecs.delta_decode(out, axis=-2, out=out)
        elif predictor == FLOATING_POINT:
            out[...] = imagecodecs.floatpred_decode(out, axis=-2)

    return fill


def _unpack(data: bytes, flat: np.ndarray, decompress: Callable[..., Any] | None) -> None:
    if decompress is None:
        flat[...] = np.frombuffer(data, np.uint8)
        return
    found = len(decompress(data, out=flat))
    if found != flat.size:
        raise ValueError(f"{flat.size} bytes expected in a tile, found {found}")
