"""What TIFF tags say of channels: descriptions, scale, nodata, colours, palette, resampling.

Tag numbers: TIFF 6.0; GDAL's private tags 42112 (metadata as XML) and 42113 (nodata).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from tifffile import TiffPage

from saccade.pipeline.sources.bands import ALPHA, Band, Palette
from saccade.pipeline.sources.reader import colour_names, distinct

GDAL_METADATA, GDAL_NODATA = 42112, 42113
RGB, PALETTE, YCBCR = 2, 3, 6
GREYS = (0, 1)
ASSOCIATED_ALPHA, UNASSOCIATED_ALPHA = 1, 2
COLOURS = {"gray": "grey", "undefined": None}
"""GDAL's names of colours where ours differ."""
OF_THE_FILE = ("OVR_RESAMPLING_ALG", "OVERVIEW_RESAMPLING", "resampling")
OF_A_LEVEL = "RESAMPLING"


class Item(NamedTuple):
    """One entry of GDAL's metadata."""

    name: str
    sample: int | None
    role: str | None
    text: str


def items(page: TiffPage) -> list[Item]:
    """GDAL's metadata of a directory; none where there is none that can be read."""
    xml = str(_value(page, GDAL_METADATA) or "").strip("\x00 \n")
    try:
        found = list(ElementTree.fromstring(xml).iterfind("Item"))
    except ElementTree.ParseError:
        return []
    return [
        Item(one.get("name", ""), _whole(one.get("sample")), one.get("role"), one.text or "")
        for one in found
    ]


def nodata(page: TiffPage, dtype: np.dtype[Any]) -> float | None:
    """The sample value that GDAL's tag declares, where a sample of this type can have it."""
    if (stated := _value(page, GDAL_NODATA)) is None:
        return None
    text = str(stated).strip("\x00 ")
    return nodata_in(_number(text, whole=dtype.kind in "iu"), dtype)


def nodata_in(value: float | None, dtype: np.dtype[Any]) -> float | None:
    """A stated nodata value as samples of this type hold it; None where none can."""
    if value is None:
        return None
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            held = float(dtype.type(value))  # -3.4e38 is written with more digits than it has
        return held if not math.isinf(held) or math.isinf(value) else None
    limits = np.iinfo(dtype)
    whole = isinstance(value, int) or value.is_integer()
    return value if whole and limits.min <= value <= limits.max else None


def bands(page: TiffPage, channels: int, dtype: np.dtype[Any]) -> tuple[Band, ...]:
    """What a directory says of each of its channels."""
    said, value = items(page), nodata(page, dtype)
    names, colours = _names(page, said, channels), _colours(page, said, channels)
    scales, offsets = _per_sample(said, "scale"), _per_sample(said, "offset")
    units = _per_sample(said, "unittype")
    return tuple(
        Band(
            name,
            None if colour == ALPHA else value,
            _number(scales.get(index)) or 1.0,
            _number(offsets.get(index)) or 0.0,
            colour,
            units.get(index) or None,
        )
        for index, (name, colour) in enumerate(zip(names, colours, strict=True))
    )


def palette(page: TiffPage) -> Palette | None:
    """The colours that samples are indices of, as 8 bits; nodata is transparent."""
    table = page.colormap if page.photometric == PALETTE else None
    if table is None:
        return None
    eight = np.asarray(table, np.uint16) // _step(np.asarray(table))
    clear = nodata(page, np.dtype(page.dtype))
    rows = enumerate(eight.T.tolist())
    return tuple((r, g, b, 0 if index == clear else 255) for index, (r, g, b) in rows)


def level_resampling(page: TiffPage, file: Sequence[Item]) -> str | None:
    """How a level was made, in capitals; None where neither it nor the file says."""
    own = [one.text for one in items(page) if one.name == OF_A_LEVEL]
    said = own + [one.text for one in file if one.name in OF_THE_FILE]
    words = said[0].split() if said else []
    return words[0].upper() if words else None


def _names(page: TiffPage, said: Sequence[Item], channels: int) -> tuple[str, ...]:
    """Descriptions, else colours where the file says that it is RGB."""
    colour = colour_names(channels) if page.photometric in (RGB, YCBCR) else distinct((), channels)
    described = _per_sample(said, "description")
    names = tuple(described.get(index) or name for index, name in enumerate(colour))
    return names if len(set(names)) == channels else colour


def _colours(page: TiffPage, said: Sequence[Item], channels: int) -> list[str | None]:
    main = {RGB: ("red", "green", "blue"), YCBCR: ("red", "green", "blue")}
    usual = main.get(page.photometric, ("grey",) if page.photometric in GREYS else ("palette",))
    extra = [
        ALPHA if kind in (ASSOCIATED_ALPHA, UNASSOCIATED_ALPHA) else None
        for kind in page.extrasamples or ()
    ]
    first = channels - len(extra)
    colours = [usual[index] if index < len(usual) else None for index in range(max(0, first))]
    colours = [*colours, *extra][:channels]
    for index, name in _per_sample(said, "colorinterp").items():
        if index < channels:
            colours[index] = COLOURS.get(name.lower(), name.lower())
    return colours


def _per_sample(said: Sequence[Item], role: str) -> dict[int, str]:
    return {one.sample: one.text for one in said if one.role == role and one.sample is not None}


def _step(table: np.ndarray) -> int:
    """What 8-bit colours were multiplied by: 257 as TIFF wants it, 256, or nothing."""
    if not (table % 257).any():
        return 257
    return 1 if table.max() < 256 else 256


def _number(text: str | None, *, whole: bool = False) -> float | None:
    for kind in (int, float) if whole else (float,):
        try:
            return kind(text) if text is not None else None
        except ValueError:
            continue
    return None


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _value(page: TiffPage, code: int) -> Any:
    return page.tags[code].value if code in page.tags else None
