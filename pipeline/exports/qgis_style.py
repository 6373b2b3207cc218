"""Styles that QGIS takes up when a layer is opened: ``NAME.qml`` beside ``NAME.tif``. Pure text.

A TIFF's palette has 256 entries, and QGIS lists them all; polygons it paints in a colour of chance.
A style beside the file names the classes alone, in the colours of the result (QGIS user guide,
*QML - The QGIS Style File Format*).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from saccade.pipeline.exports.gdal_xml import Legend, as_file
from saccade.pipeline.palette import Colour

FILL_ALPHA = 96
"""Of polygons, of 255: what lies under them stays visible."""
OUTLINE_MM = "0.4"


def beside(path: Path) -> Path:
    """Where QGIS looks for the style of a file."""
    return path.with_suffix(".qml")


def raster_style(legend: Legend) -> bytes:
    """Of labels: one entry for each value that means something, and no other.

    Args:
        legend: name, colour and opacity of every value.
    """
    root = _root()
    renderer = ElementTree.SubElement(
        ElementTree.SubElement(root, "pipe"),
        "rasterrenderer",
        {"type": "paletted", "band": "1", "opacity": "1", "alphaBand": "-1"},
    )
    entries = ElementTree.SubElement(renderer, "colorPalette")
    for value, (name, colour, alpha) in legend.items():
        said = {"value": str(value), "label": name, "color": _hexadecimal(colour)}
        ElementTree.SubElement(entries, "paletteEntry", {**said, "alpha": str(alpha)})
    return as_file(root)


def regions_style(colours: Mapping[str, Colour]) -> bytes:
    """Of polygons by their column *class*: transparent, within lines of the same colour.

    Args:
        colours: by name of the class.
    """
    root = _root()
    renderer = ElementTree.SubElement(
        root, "renderer-v2", {"type": "categorizedSymbol", "attr": "class"}
    )
    categories = ElementTree.SubElement(renderer, "categories")
    symbols = ElementTree.SubElement(renderer, "symbols")
    for number, (name, colour) in enumerate(colours.items()):
        said = {"value": name, "label": name, "symbol": str(number), "render": "true"}
        ElementTree.SubElement(categories, "category", said)
        _add_symbol(symbols, str(number), ",".join(map(str, colour)))
    return as_file(root)


def _add_symbol(symbols: ElementTree.Element, name: str, colour: str) -> None:
    symbol = ElementTree.SubElement(symbols, "symbol", {"type": "fill", "name": name, "alpha": "1"})
    layer = ElementTree.SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1"})
    stated = {
        "color": f"{colour},{FILL_ALPHA}",
        "style": "solid",
        "outline_color": f"{colour},255",
        "outline_style": "solid",
        "outline_width": OUTLINE_MM,
        "outline_width_unit": "MM",
    }
    for key, value in stated.items():
        ElementTree.SubElement(layer, "prop", {"k": key, "v": value})


def _root() -> ElementTree.Element:
    return ElementTree.Element("qgis", {"version": "3.22", "styleCategories": "Symbology"})


def _hexadecimal(colour: Colour) -> str:
    return "#" + bytes(colour).hex()
