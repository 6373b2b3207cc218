"""GDAL's VRT where it only places files: no resampling, no scaling, no masks, no warping.

Of a VRT that does more nothing is read here, so that another reader can have it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from saccade.pipeline.errors import BrokenImage
from saccade.pipeline.geometry import Box, Shape
from saccade.pipeline.georeference import Affine, Crs, Georeference
from saccade.pipeline.remote_stores import is_remote
from saccade.pipeline.sources.base import file_identity
from saccade.pipeline.sources.mosaic import Composition, MosaicSource
from saccade.pipeline.sources.mosaic_file import headers
from saccade.pipeline.sources.mosaic_members import Open
from saccade.pipeline.sources.mosaic_parts import Part, PartFacts
from saccade.pipeline.sources.reader import distinct
from saccade.pipeline.sources.tiff_bands import nodata_in

SUFFIX = ".vrt"
MOST_NBYTES = 256 << 20
DATASET = {"SRS", "GeoTransform", "Metadata", "VRTRasterBand", "OverviewList", "BlockXSize"}
DATASET |= {"BlockYSize"}
BAND = {"Description", "ColorInterp", "NoDataValue", "Metadata", "Histograms", "UnitType"}
BAND |= {"CategoryNames", "ColorTable", "HideNoDataValue", "SimpleSource", "ComplexSource"}
SOURCE = {"SourceFilename", "SourceBand", "SourceProperties", "SrcRect", "DstRect", "NODATA"}
TYPES = {"Byte": "uint8", "Int8": "int8", "UInt16": "uint16", "Int16": "int16"}
TYPES |= {"UInt32": "uint32", "Int32": "int32", "Float32": "float32", "Float64": "float64"}
AUTHORITY = re.compile(r'(?:AUTHORITY\["EPSG","(\d+)"\]|ID\["EPSG",(\d+)\])\s*\]\s*$')
GEOGRAPHIC = ("GEOGCS", "GEOGCRS", "GEODCRS")


@dataclass(frozen=True, slots=True)
class Placed:
    """One source of one band."""

    uri: str
    """The file."""
    band: int
    """Of the file, from 0."""
    window: Box
    """Of the file, in its pixels."""
    corner: tuple[int, int]
    """Of the window in the VRT."""
    nodata: float | None
    """Sample value that is left out."""


@dataclass(frozen=True, slots=True)
class Vrt:
    """What a VRT says."""

    shape: Shape
    """Height and width."""
    affine: Affine | None
    """From its pixels to coordinates."""
    srs: str
    """Its CRS as text; empty where it has none."""
    dtype: np.dtype[np.generic]
    """Of all its bands."""
    nodata: float | None
    """Of all its bands."""
    names: tuple[str, ...]
    """Of its bands; empty where they have none."""
    bands: tuple[tuple[Placed, ...], ...]
    """Of each band its sources, the uppermost last."""


class Unplain(Exception):
    """A VRT that does more than to place files."""


def open_plain_vrt(path: Path, open_file: Open) -> MosaicSource | None:
    """The image that a VRT stands for; None where it does more than to place files.

    Raises:
        BrokenImage: not a VRT.
        SourceError: a file of it is missing, or does not fit.
    """
    try:
        vrt = parse_vrt(path)
        uris = list(dict.fromkeys(one.uri for band in vrt.bands for one in band))
        files = tuple(headers(uris, open_file))
        return MosaicSource(_composed(path, vrt, files), open_file)
    except Unplain:
        return None


def local_files(path: Path) -> list[Path]:
    """Files on a disk that a plain VRT places; none of another."""
    try:
        bands = parse_vrt(path).bands
    except (Unplain, BrokenImage):
        return []
    uris = dict.fromkeys(one.uri for band in bands for one in band)
    return [Path(uri) for uri in uris if not is_remote(uri)]


def parse_vrt(path: Path) -> Vrt:
    """What a plain VRT says.

    Raises:
        BrokenImage: not XML, or not a VRT.
        Unplain: it does more than to place files.
    """
    try:
        root = ElementTree.fromstring(path.read_bytes()[:MOST_NBYTES])
    except ElementTree.ParseError as error:
        raise BrokenImage(f"{path}: a VRT is XML; found something else ({error})") from error
    if root.tag != "VRTDataset":
        raise BrokenImage(f"{path}: a VRTDataset expected; found {root.tag}")
    try:
        return _parsed(root, path)
    except ValueError as error:  # a number that is none: GDAL knows whether it matters
        raise Unplain from error


def _parsed(root: ElementTree.Element, path: Path) -> Vrt:
    _only(root, DATASET)
    bands = root.findall("VRTRasterBand")
    types = {band.get("dataType", "Byte") for band in bands}
    if root.get("subClass") or len(types) != 1 or not types <= TYPES.keys():
        raise Unplain
    dtype = np.dtype(TYPES[types.pop()])
    height, width = int(root.get("rasterYSize", 0)), int(root.get("rasterXSize", 0))
    return Vrt(
        shape=(height, width),
        affine=_affine(root.findtext("GeoTransform")),
        srs=(root.findtext("SRS") or "").strip(),
        dtype=dtype,
        nodata=_nodata(bands, dtype),
        names=tuple(band.findtext("Description") or "" for band in bands),
        bands=tuple(_sources(band, path, (height, width), dtype) for band in bands),
    )


def _only(element: ElementTree.Element, known: set[str]) -> None:
    if any(child.tag not in known for child in element):
        raise Unplain


def _nodata(bands: Sequence[ElementTree.Element], dtype: np.dtype[Any]) -> float | None:
    texts = {band.findtext("NoDataValue") for band in bands}
    if len(texts) != 1:
        raise Unplain
    return _sample(texts.pop(), dtype)


def _sample(text: str | None, dtype: np.dtype[Any]) -> float | None:
    """A value that samples may have."""
    value = None if text is None else nodata_in(float(text), dtype)
    if text is not None and value is None:
        raise Unplain
    return value


def _affine(text: str | None) -> Affine | None:
    if text is None:
        return None
    c, a, b, f, d, e = (float(number) for number in text.split(","))
    return Affine(a, b, c, d, e, f)


def _sources(
    band: ElementTree.Element, path: Path, shape: Shape, dtype: np.dtype[Any]
) -> tuple[Placed, ...]:
    _only(band, BAND)
    if band.get("subClass"):
        raise Unplain
    found = [one for one in band if one.tag in ("SimpleSource", "ComplexSource")]
    placed = (_placed(one, path, shape, dtype) for one in found)
    return tuple(one for one in placed if one.window.area)


def _placed(source: ElementTree.Element, path: Path, shape: Shape, dtype: np.dtype[Any]) -> Placed:
    _only(source, SOURCE)
    name, number = source.find("SourceFilename"), source.findtext("SourceBand") or "1"
    if name is None or not name.text or int(number) < 1:
        raise Unplain
    window, place = _rectangle(source.find("SrcRect")), _rectangle(source.find("DstRect"))
    if window.shape != place.shape:
        raise Unplain
    inside = place.clip(shape)
    moved = inside.shift(window.y0 - place.y0, window.x0 - place.x0) if inside.area else inside
    relative = name.get("relativeToVRT") == "1"
    uri = str(path.parent / name.text) if relative else name.text
    corner, nodata = (inside.y0, inside.x0), _sample(source.findtext("NODATA"), dtype)
    return Placed(uri, int(number) - 1, moved, corner, nodata)


def _rectangle(element: ElementTree.Element | None) -> Box:
    """Whole pixels; what lies between them would have to be resampled."""
    if element is None:
        raise Unplain
    x, y, width, height = (float(element.get(k, "nan")) for k in ("xOff", "yOff", "xSize", "ySize"))
    if not all(number.is_integer() for number in (x, y, width, height)):
        raise Unplain
    return Box(int(y), int(x), int(y + height), int(x + width))


# ------------------------------------------------------------------------------------ composition


def _composed(path: Path, vrt: Vrt, files: tuple[PartFacts, ...]) -> Composition:
    if not files or any(one.dtype != vrt.dtype for one in files):
        raise Unplain
    place = None
    if vrt.affine is not None:
        place = Georeference(_crs(vrt.srs, files[0]), vrt.affine)
    return Composition(
        uri=str(path),
        format=f"VRT of {len(files)} files",
        files=files,
        parts=tuple(_parts(vrt, files)),
        shape=vrt.shape,
        georeference=place,
        channel_names=distinct(_names(vrt, files), len(vrt.bands)),
        described=file_identity(path),
        overlap="last",
        nodata=vrt.nodata,
        may_gap=True,
    )


def _names(vrt: Vrt, files: Sequence[PartFacts]) -> tuple[str, ...]:
    """The bands' own, else those of files that have as many."""
    if all(vrt.names) or files[0].channels != len(vrt.bands):
        return vrt.names
    return files[0].channel_names


def _crs(srs: str, first: PartFacts) -> Crs | None:
    """By its number where it has one; the unit of length is that of its files."""
    if not srs:
        return None
    found = AUTHORITY.search(srs) or re.fullmatch(r"EPSG:(\d+)()", srs)
    epsg = int(found[1] or found[2]) if found else None
    own = first.georeference.crs if first.georeference else None
    if own is not None and epsg is not None and own.epsg == epsg:
        return own
    return Crs(epsg, None if epsg is not None else srs, srs.startswith(GEOGRAPHIC))


def _parts(vrt: Vrt, files: Sequence[PartFacts]) -> Iterator[Part]:
    """Sources as parts; what neighbouring bands take from one place of one file is one part.

    Raises:
        Unplain: bands lay files over each other in different orders, or a window lies outside its
            file.
    """
    index = {one.uri: number for number, one in enumerate(files)}
    for place, taken in _places(vrt).items():
        file, window = files[index[place.uri]], place.window
        if not Box.of(file.shape).contains(window) or max(taken.values()) >= file.channels:
            raise Unplain
        for channels in _runs(sorted(taken)):
            bands = tuple(taken[channel] for channel in channels)
            yield Part(index[place.uri], window, place.corner, bands, channels[0], place.nodata)


def _places(vrt: Vrt) -> dict[Placed, dict[int, int]]:
    """Of each place in a file, which band of the VRT takes which of the file; lowest first."""
    places: dict[Placed, dict[int, int]] = {}
    for channel, band in enumerate(vrt.bands):
        keys = [replace(one, band=0) for one in band]
        for key, one in zip(keys, band, strict=True):
            places.setdefault(key, {})[channel] = one.band
        ranks = {key: rank for rank, key in enumerate(places)}
        order = [ranks[key] for key in keys]
        if order != sorted(set(order)):
            raise Unplain
    return places


def _runs(channels: Sequence[int]) -> Iterator[list[int]]:
    """Numbers in runs without gaps."""
    run: list[int] = []
    for channel in channels:
        if run and channel != run[-1] + 1:
            yield run
            run = []
        run.append(channel)
    yield run
