"""The OME-XML of a TIFF file, schema 2016-06: one image, one plane per channel. Pure text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

import numpy as np

from saccade.pipeline.geometry import Shape
from saccade.pipeline.palette import Colour
from saccade.pipeline.sources.base import PixelSize

NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
SCHEMA = f"{NAMESPACE} {NAMESPACE}/ome.xsd"
XSI = "http://www.w3.org/2001/XMLSchema-instance"
TYPES = {"uint8": "uint8", "float32": "float"}
UNITS = {"um": "µm", "m": "m"}


def ome_xml(
    name: str,
    shape: Shape,
    dtype: np.dtype[np.generic],
    channels: Sequence[tuple[str, Colour]],
    pixel_size: PixelSize | None,
    facts: Mapping[str, str],
) -> bytes:
    """What the first page's ImageDescription says.

    Args:
        name: of the image.
        shape: height and width of the finest level.
        dtype: uint8 or float32.
        channels: name and colour of every plane; plane ``k`` is page ``k`` of the file.
        pixel_size: of the finest level.
        facts: kept as a map annotation of the namespace 'saccade'.
    """
    root = ElementTree.Element(
        "OME",
        {"xmlns": NAMESPACE, "xmlns:xsi": XSI, "xsi:schemaLocation": SCHEMA, "Creator": "saccade"},
    )
    image = ElementTree.SubElement(root, "Image", ID="Image:0", Name=name)
    pixels = ElementTree.SubElement(image, "Pixels", _pixels(shape, dtype, len(channels)))
    pixels.attrib.update({} if pixel_size is None else _physical(pixel_size))
    for index, (label, colour) in enumerate(channels):
        attributes = {"ID": f"Channel:0:{index}", "Name": label, "SamplesPerPixel": "1"}
        ElementTree.SubElement(pixels, "Channel", attributes | {"Color": str(_rgba(colour))})
    for index in range(len(channels)):
        plane = {"FirstC": str(index), "IFD": str(index), "PlaneCount": "1"}
        ElementTree.SubElement(pixels, "TiffData", plane)
    ElementTree.SubElement(image, "AnnotationRef", ID="Annotation:0")
    _annotate(root, facts)
    text: bytes = ElementTree.tostring(root, "utf-8", xml_declaration=True)
    return text


def _pixels(shape: Shape, dtype: np.dtype[np.generic], count: int) -> dict[str, str]:
    sizes = {"X": shape[1], "Y": shape[0], "Z": 1, "C": count, "T": 1}
    return {
        "ID": "Pixels:0",
        "DimensionOrder": "XYZCT",
        "Type": TYPES[dtype.name],
        "BigEndian": "false",
        **{f"Size{axis}": str(size) for axis, size in sizes.items()},
    }


def _physical(size: PixelSize) -> dict[str, str]:
    sides = {"X": size.x, "Y": size.y}
    values = {f"PhysicalSize{axis}": repr(side) for axis, side in sides.items()}
    return values | {f"PhysicalSize{axis}Unit": UNITS[size.unit] for axis in sides}


def _rgba(colour: Colour) -> int:
    """Red, green, blue and full opacity as the signed number that the schema has."""
    return int.from_bytes(bytes((*colour, 255)), "big", signed=True)


def _annotate(root: ElementTree.Element, facts: Mapping[str, str]) -> None:
    parts = ElementTree.SubElement(root, "StructuredAnnotations")
    note = ElementTree.SubElement(parts, "MapAnnotation", ID="Annotation:0", Namespace="saccade")
    value = ElementTree.SubElement(note, "Value")
    for key, text in facts.items():
        ElementTree.SubElement(value, "M", K=key).text = text
