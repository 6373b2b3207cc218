"""Which scanner a TIFF is from, told as OpenSlide tells it. For files that it can't be shown whole.

The rules are those of OpenSlide 4's own drivers (``openslide-vendor-*.c``).
"""

from __future__ import annotations

from collections.abc import Sequence

from tifffile import TiffFile, TiffPage

from saccade.pipeline.geometry import Shape
from saccade.pipeline.sources.tiff_levels import shape_of

SOFTWARE, XMP, NDPI_FORMAT = 305, 700, 65420
LEICA = "http://www.leica-microsystems.com/scn/"


def vendor(tif: TiffFile) -> str | None:
    """OpenSlide's name for the format of a TIFF; None where no driver for a scanner takes it."""
    pages = _pages(tif)
    first = pages[0]
    said, software = first.description or "", str(_text(first, SOFTWARE))
    if NDPI_FORMAT in first.tags:
        return "hamamatsu"
    if first.is_tiled and said.startswith("Aperio"):
        return "aperio"
    if LEICA in said:
        return "leica"
    if software.startswith("Philips"):
        return "philips"
    if software.startswith("MedScan"):
        return "trestle"
    return "ventana" if any("iScan" in _text(page, XMP) for page in pages) else None


def drawn_alike(tif: TiffFile, levels: Sequence[Shape], *, sized: bool) -> bool:
    """Whether OpenSlide would take these levels, and a pixel size or none, from an Aperio slide.

    It takes every tiled directory as a level, and a pixel size from the description alone.
    """
    tiled = [shape_of(page) for page in _pages(tif) if page.is_tiled]
    ordered = sorted(tiled, reverse=True)
    return list(levels) == ordered and sized == ("MPP" in _pages(tif)[0].description)


def _pages(tif: TiffFile) -> list[TiffPage]:
    return [page for page in tif.pages if isinstance(page, TiffPage)]


def _text(page: TiffPage, code: int) -> str:
    value = page.tags[code].value if code in page.tags else ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
