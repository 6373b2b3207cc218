"""Styles name what there is, whatever it is called."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from saccade.pipeline.exports.qgis_style import beside, raster_style, regions_style

NAMES = st.text(st.characters(min_codepoint=32, exclude_categories=("Cs",)), min_size=1)
COLOURS = st.tuples(*[st.integers(0, 255)] * 3)
Colour = tuple[int, int, int]


@given(st.dictionaries(st.integers(0, 255), st.tuples(NAMES, COLOURS, st.integers(0, 255))))
def test_every_value_has_its_name_and_colour(
    legend: dict[int, tuple[str, Colour, int]],
) -> None:
    root = ElementTree.fromstring(raster_style(legend))
    entries = [
        (int(e.attrib["value"]), e.attrib["label"], e.attrib["color"], int(e.attrib["alpha"]))
        for e in root.iter("paletteEntry")
    ]
    assert entries == [
        (value, name, "#" + bytes(colour).hex(), alpha)
        for value, (name, colour, alpha) in legend.items()
    ]


@given(st.dictionaries(NAMES, COLOURS))
def test_every_class_has_a_symbol_of_its_colour(colours: dict[str, Colour]) -> None:
    root = ElementTree.fromstring(regions_style(colours))
    fills = {
        symbol.attrib["name"]: fill.attrib["v"]
        for symbol in root.iter("symbol")
        for fill in symbol.findall("layer/prop[@k='color']")
    }
    named = {e.attrib["value"]: fills[e.attrib["symbol"]] for e in root.iter("category")}
    assert named == {name: f"{r},{g},{b},96" for name, (r, g, b) in colours.items()}


def test_a_style_lies_where_qgis_looks_for_it() -> None:
    assert beside(Path("out/a.b.labels.tif")) == Path("out/a.b.labels.qml")
    assert beside(Path("out/a.geojson")) == Path("out/a.qml")
