"""What GDAL, and QGIS with it, reads of a raster's meaning: in the file, and in one beside it.

In the file: items of metadata and the names of bands (tag GDAL_METADATA). Beside it, as
``NAME.tif.aux.xml``: names and colours of the values of labels. Pure text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from saccade.pipeline.palette import Colour

Legend = Mapping[int, tuple[str, Colour, int]]
"""Name, colour and opacity of every value."""
INTEGER, TEXT = "0", "2"
COLUMNS = (
    ("Value", INTEGER, "5"),
    ("Class", TEXT, "2"),
    ("Red", INTEGER, "6"),
    ("Green", INTEGER, "7"),
    ("Blue", INTEGER, "8"),
    ("Alpha", INTEGER, "9"),
)
"""Name, type and usage (``GDALRATFieldUsage``) of the columns of an attribute table."""


def gdal_metadata(
    facts: Mapping[str, str], resampling: str, bands: Sequence[str], legend: Legend | None
) -> str:
    """The text of the tag.

    Args:
        facts: of the result, kept in the domain 'saccade'.
        resampling: how overviews were made, as rio-cogeo has it.
        bands: their names.
        legend: of labels; None for scores.
    """
    root = ElementTree.Element("GDALMetadata")
    _item(root, "OVR_RESAMPLING_ALG", resampling)
    for key, text in facts.items():
        _item(root, key, text, domain="saccade")
    for band, name in enumerate(bands):
        _item(root, "DESCRIPTION", name, sample=str(band), role="description")
    for value, (name, _, _) in (legend or {}).items():
        _item(root, f"CLASS_{value}", name, sample="0")
    return ElementTree.tostring(root, "unicode")


def _item(root: ElementTree.Element, key: str, text: str, **said: str) -> None:
    # GDAL takes escaped text out of what its XML parser has unescaped
    ElementTree.SubElement(root, "Item", {"name": key, **said}).text = escape(text)


def auxiliary(legend: Legend) -> bytes:
    """The file beside labels: category names, and an attribute table with colours."""
    root = ElementTree.Element("PAMDataset")
    band = ElementTree.SubElement(root, "PAMRasterBand", band="1")
    names = ElementTree.SubElement(band, "CategoryNames")
    for value in range(max(legend) + 1):
        ElementTree.SubElement(names, "Category").text = legend[value][0] if value in legend else ""
    table = ElementTree.SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    for index, column in enumerate(COLUMNS):
        field = ElementTree.SubElement(table, "FieldDefn", index=str(index))
        for key, text in zip(("Name", "Type", "Usage"), column, strict=True):
            ElementTree.SubElement(field, key).text = text
    for index, (value, (name, colour, alpha)) in enumerate(legend.items()):
        row = ElementTree.SubElement(table, "Row", index=str(index))
        for cell in (value, name, *colour, alpha):
            ElementTree.SubElement(row, "F").text = str(cell)
    return as_file(root)


def as_file(root: ElementTree.Element) -> bytes:
    """A tree as the bytes of a file."""
    encoded: bytes = ElementTree.tostring(root, "utf-8")
    return encoded + b"\n"
