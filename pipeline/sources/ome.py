"""What OME metadata (XML in a TIFF, JSON in a zarr group) says of one image. Opens no file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any
from xml.etree import ElementTree

from saccade.pipeline.errors import UnsupportedImage
from saccade.pipeline.sources.base import PixelSize

UM_PER_UNIT = {
    "pm": 1e-6, "picometer": 1e-6,
    "å": 1e-4, "angstrom": 1e-4,
    "nm": 1e-3, "nanometer": 1e-3,
    "um": 1.0, "µm": 1.0, "μm": 1.0, "micrometer": 1.0, "micron": 1.0,
    "mm": 1e3, "millimeter": 1e3,
    "cm": 1e4, "centimeter": 1e4,
    "in": 25400.0, "inch": 25400.0,
}  # fmt: skip
M_PER_UNIT = {"m": 1.0, "meter": 1.0, "km": 1e3, "kilometer": 1e3}


def physical_size(y: float, x: float, y_unit: str, x_unit: str) -> PixelSize | None:
    """A pixel size from lengths with units, names or symbols; None where either makes no sense."""
    for unit, factors in (("um", UM_PER_UNIT), ("m", M_PER_UNIT)):
        factor_y, factor_x = factors.get(y_unit.lower(), 0.0), factors.get(x_unit.lower(), 0.0)
        if y * factor_y > 0 and x * factor_x > 0:
            return PixelSize(y * factor_y, x * factor_x, "um" if unit == "um" else "m")
    return None


def one_plane(uri: str, axes: str, lengths: Sequence[int]) -> None:
    """Refuse an image that is more than one ``(y, x, channel)`` picture."""
    for axis, length in zip(axes, lengths, strict=True):
        if axis not in "yxc" and length != 1:
            raise UnsupportedImage(
                f"{uri}: axis '{axis}' has length {length}, 1 expected; "
                "write the plane that is wanted to a file of its own"
            )


@dataclass(frozen=True, slots=True)
class OmeXml:
    """The first image that an OME-XML document describes."""

    channels: int
    """Samples per pixel over all planes."""
    names: tuple[str, ...]
    """One per ``Channel`` element, '' where it has none."""
    pixel_size: PixelSize | None
    """Of level 0, where stated."""
    ifds: Mapping[int, int]
    """Channel number to the number of the IFD that holds it, where the document says so."""

    @classmethod
    def parse(cls, text: str, uri: str) -> OmeXml:
        """Read a document; ``uri`` names the file that holds it.

        Raises:
            UnsupportedImage: z-stacks, time series, pixels or metadata in other files.
        """
        pixels = _first_pixels(ElementTree.fromstring(text), uri)
        one_plane(uri, "zt", [int(pixels.get(f"Size{axis}", "1")) for axis in "ZT"])
        _refuse_other_files(pixels, uri)
        size = [float(pixels.get(f"PhysicalSize{axis}", "0")) for axis in "YX"]
        units = [pixels.get(f"PhysicalSize{axis}Unit", "µm") for axis in "YX"]
        return cls(
            channels=int(pixels.get("SizeC", "1")),
            names=tuple(c.get("Name", "") for c in pixels.iterfind("{*}Channel")),
            pixel_size=physical_size(size[0], size[1], units[0], units[1]),
            ifds=_ifds(pixels),
        )


def _first_pixels(root: ElementTree.Element, uri: str) -> ElementTree.Element:
    pixels = root.find("{*}Image/{*}Pixels")
    if pixels is None:
        raise UnsupportedImage(
            f"{uri}: its OME-XML describes no pixels (they or their metadata are in another file); "
            "open the file that holds both"
        )
    return pixels


def _refuse_other_files(pixels: ElementTree.Element, uri: str) -> None:
    for uuid in pixels.iterfind("{*}TiffData/{*}UUID"):
        name = uuid.get("FileName")
        if name and PurePath(name).name != PurePath(uri).name:
            raise UnsupportedImage(
                f"{uri}: its OME-XML says that pixels are in '{name}'; "
                "an OME-TIFF in one file is expected (a renamed one must be written again)"
            )


def _ifds(pixels: ElementTree.Element) -> dict[int, int]:
    ifds: dict[int, int] = {}
    for block in pixels.iterfind("{*}TiffData"):
        if (first := block.get("IFD")) is None:
            continue
        channel, count = int(block.get("FirstC", "0")), int(block.get("PlaneCount", "1"))
        ifds |= {channel + i: int(first) + i for i in range(count)}
    return ifds


def json_pixel_size(axes: Sequence[Mapping[str, Any]], scale: Sequence[float]) -> PixelSize | None:
    """A pixel size from OME-Zarr axes and the scale of a dataset; None where no unit is stated."""
    by_name = {str(axis["name"]): index for index, axis in enumerate(axes)}
    units = [str(axes[by_name[name]].get("unit", "")) for name in "yx"]
    y, x = (float(scale[by_name[name]]) for name in "yx")
    return physical_size(y, x, units[0], units[1])
