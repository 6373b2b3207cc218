"""Reduced images in a file beside a TIFF, as GDAL keeps them: ``NAME.tif.ovr``. Reads no pixels."""

from __future__ import annotations

from tifffile import TiffFile, TiffPage

from saccade.pipeline.sources import tiff_bands
from saccade.pipeline.sources.reader import is_reduction
from saccade.pipeline.sources.tiff_levels import MASK, flags_of, pages_in_order, shape_of

Overview = tuple[TiffPage, str | None]
"""A directory, and how it was made, where the file says so."""


def find_overviews(tif: TiffFile, uri: str, first: TiffPage) -> list[Overview]:
    """Coarser levels of an image, finest first; what is no reduction of it is left out.

    Args:
        tif: the file beside it, open.
        uri: of that file.
        first: level 0 of the image.

    Raises:
        BrokenImage: the chain of directories has no end.
    """
    pages = list(pages_in_order(tif, uri))
    of_file = tiff_bands.items(pages[0]) if pages else []
    kept: list[Overview] = []
    smallest = shape_of(first)
    for page in sorted(pages, key=shape_of, reverse=True):
        if _is_of(first, page) and is_reduction(smallest, shape_of(page)):
            smallest = shape_of(page)
            kept.append((page, tiff_bands.level_resampling(page, of_file)))
    return kept


def _is_of(first: TiffPage, page: TiffPage) -> bool:
    """Whether a directory has an image's samples, at a size that one factor explains."""
    alike = _samples(page) == _samples(first) and not flags_of(page) & MASK
    return alike and is_reduction(shape_of(first), shape_of(page))


def _samples(page: TiffPage) -> tuple[object, ...]:
    return (page.samplesperpixel, page.dtype, page.bitspersample)
