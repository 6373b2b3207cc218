"""Areas of interest as files: GeoJSON (RFC 7946) and GeoPackage. Knows no image.

GeoJSON is in longitude and latitude unless a ``crs`` member, as older programs write it, says
otherwise. A GeoPackage says its CRS per layer; polygons of all its layers count.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from saccade.pipeline.area import MOST_VERTICES, Edges, Polygon, signed_area
from saccade.pipeline.area_warp import in_pixels
from saccade.pipeline.area_wkb import polygons_of_geopackage
from saccade.pipeline.errors import AccessDenied, NoSuchObject, UsageError
from saccade.pipeline.georeference import Crs, Georeference
from saccade.pipeline.remote_stores import is_remote

LONGITUDE_LATITUDE = Crs(4326, geographic=True)
SQLITE = b"SQLite format 3\0"
EPSG_NAME = re.compile(r"(?:urn:ogc:def:crs:)?EPSG:(?:[^:]*:)?(\d+)", re.IGNORECASE)
CRS84 = re.compile(r"(?:urn:ogc:def:crs:)?OGC:[^:]*:?CRS84", re.IGNORECASE)


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """Polygons in one CRS."""

    crs: Crs
    """Of their coordinates."""
    polygons: tuple[Polygon, ...]
    """In its coordinates, x first."""


@dataclass(frozen=True, slots=True, eq=False)
class Area:
    """What an area file says."""

    path: str
    """Where it lies."""
    layers: tuple[Layer, ...]
    """One per CRS."""

    def over(self, place: Georeference | None, uri: str) -> Edges:
        """The area's edges in pixels of level 0 of an image.

        Raises:
            UsageError: the image does not say where it lies, or not in a CRS.
        """
        if place is None or place.affine is None or place.crs is None:
            found = "no georeference" if place is None else "control points or no CRS"
            raise UsageError(
                f"{uri}: an area of interest needs an image with an affine and a CRS; found "
                f"{found}: warp it with gdalwarp, or leave the area out"
            )
        pixels = [one for la in self.layers for one in in_pixels(la.polygons, la.crs, place)]
        return Edges.of(pixels)


def area_place(base: Path, file: str) -> str:
    """Where an area's file lies: a URL as it is, a path from a folder."""
    return file if is_remote(file) else str(base / file)


def _fetched(uri: str) -> bytes:
    """An object as a whole.

    Raises:
        UsageError: it can't be read.
        StorageGone: the object store does not answer.
    """
    from saccade.pipeline.remote import get_whole

    try:
        return get_whole(uri)
    except (NoSuchObject, AccessDenied) as error:
        raise UsageError(str(error)) from error


def _digest_of(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def area_digest(path: Path | str) -> str:
    """32 hexadecimal digits of the bytes of a file, or of an object behind a URL.

    Raises:
        UsageError: it can't be read.
        StorageGone: the object store does not answer.
    """
    if is_remote(str(path)):
        return _digest_of(_fetched(str(path)))
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise UsageError(
            f"{path}: an area of interest is a GeoJSON or GeoPackage, on this disk or behind a "
            f"URL; it can't be read: {error.strerror}"
        ) from error


@lru_cache(2)
def read_area(path: str, digest: str) -> Area:
    """An area, checked; the last ones are kept.

    Args:
        path: of the file, or its URL.
        digest: what ``area_digest`` gives of it.

    Raises:
        UsageError: another file than the digest's, neither of the two formats, or polygons that
            are none.
    """
    data = _fetched(path) if is_remote(path) else None
    now = area_digest(path) if data is None else _digest_of(data)
    if now != digest:
        raise UsageError(
            f"{path}: the area changed while the run was going on; put the old file back, or run "
            "again with --force"
        )
    try:
        layers = tuple(_layers(path, data))
        _check(layers)
    except (ValueError, sqlite3.Error) as error:
        raise UsageError(f"{path}: {error}") from error
    return Area(path, layers)


def _layers(path: str, data: bytes | None) -> Iterator[Layer]:
    """Of a file of either format; ``data`` are its bytes where it lies behind a URL."""
    if data is None:
        with Path(path).open("rb") as file:
            magic = file.read(len(SQLITE))
    else:
        magic = data[: len(SQLITE)]
    if magic == SQLITE:
        yield from _geopackage(path, data)
    else:
        yield from _geojson(Path(path).read_bytes() if data is None else data)


# ----------------------------------------------------------------------------------------- GeoJSON


def _geojson(data: bytes) -> Iterator[Layer]:
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"an area is GeoJSON or a GeoPackage; found neither ({error})") from error
    if not isinstance(tree, dict):
        raise ValueError("GeoJSON is an object; found something else")
    yield Layer(_stated_crs(tree), tuple(_polygons(tree)))


def _stated_crs(tree: Mapping[str, Any]) -> Crs:
    stated = tree.get("crs")
    if stated is None:
        return LONGITUDE_LATITUDE
    name = str(stated.get("properties", {}).get("name")) if isinstance(stated, dict) else "?"
    if CRS84.fullmatch(name):
        return LONGITUDE_LATITUDE
    if number := EPSG_NAME.fullmatch(name):
        return Crs(int(number[1]))
    raise ValueError(f"a crs member that names an EPSG number or CRS84 expected; found {name!r}")


def _polygons(tree: Any) -> Iterator[Polygon]:
    """Polygons of any GeoJSON object; features without a geometry have none."""
    kind = tree.get("type") if isinstance(tree, dict) else None
    if kind == "FeatureCollection":
        for feature in _list(tree, "features"):
            yield from _polygons(feature)
    elif kind == "Feature":
        if tree.get("geometry") is not None:
            yield from _polygons(tree["geometry"])
    elif kind == "GeometryCollection":
        for part in _list(tree, "geometries"):
            yield from _polygons(part)
    elif kind == "Polygon":
        yield _rings(_list(tree, "coordinates"))
    elif kind == "MultiPolygon":
        yield from map(_rings, _list(tree, "coordinates"))
    else:
        raise ValueError(f"polygons and multipolygons expected; found {kind}")


def _list(tree: Mapping[str, Any], key: str) -> list[Any]:
    if not isinstance(tree.get(key), list):
        raise ValueError(f"GeoJSON has a list of {key}; found {str(tree.get(key))[:80]!r}")
    found: list[Any] = tree[key]
    return found


def _rings(coordinates: Sequence[Any]) -> Polygon:
    try:
        return tuple(np.array([point[:2] for point in ring], np.float64) for ring in coordinates)
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise ValueError("rings of positions expected; found something else") from error


# -------------------------------------------------------------------------------------- GeoPackage


def _geopackage(path: str, data: bytes | None) -> Iterator[Layer]:
    """Of a file, or of the bytes of one that lies elsewhere."""
    uri = ":memory:" if data else f"{Path(path).absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=data is None)) as base:
        if data:
            base.deserialize(data)
        columns = "table_name, column_name, srs_id"
        for table, column, srs in base.execute(f"SELECT {columns} FROM gpkg_geometry_columns"):
            found = base.execute(f"SELECT {_quoted(column)} FROM {_quoted(table)}")
            blobs = (blob for (blob,) in found if blob is not None)
            polygons = tuple(one for blob in blobs for one in polygons_of_geopackage(blob))
            if polygons:
                yield Layer(_crs_of(base, srs, table), polygons)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _crs_of(base: sqlite3.Connection, srs: int, table: str) -> Crs:
    what = "organization, organization_coordsys_id, definition"
    query = f"SELECT {what} FROM gpkg_spatial_ref_sys WHERE srs_id = ?"
    row = base.execute(query, (srs,)).fetchone()
    if row is None or srs in (-1, 0):
        raise ValueError(f"layer {table!r} states a CRS; found srs_id {srs}, which is undefined")
    if str(row[0]).upper() == "EPSG":
        return Crs(int(row[1]))
    return Crs(None, str(row[2]))


# ------------------------------------------------------------------------------------------ checks


def _check(layers: Sequence[Layer]) -> None:
    """Refuse what is no area.

    Raises:
        ValueError: no polygon, too many vertices, or a polygon that is none; says which.
    """
    polygons = [one for layer in layers for one in layer.polygons]
    vertices = sum(len(ring) for polygon in polygons for ring in polygon)
    if not polygons:
        raise ValueError("an area has a polygon; found none")
    if vertices > MOST_VERTICES:
        raise ValueError(f"at most {MOST_VERTICES} vertices expected; found {vertices}; simplify")
    for number, polygon in enumerate(polygons, 1):
        if why := next(filter(None, map(_no_ring, polygon)), "" if polygon else "it has no ring"):
            raise ValueError(f"polygon {number} of {len(polygons)} is not valid: {why}")
    _check_crossings(polygons)


def _no_ring(ring: np.ndarray) -> str:
    """Why a ring encloses nothing; empty where it does."""
    if ring.ndim != 2 or len(ring) < 4:
        return f"a ring has 4 positions or more; found {len(ring)}"
    if not np.isfinite(ring).all():
        return "a position is not a number"
    if (ring[0] != ring[-1]).any():
        return f"a ring ends where it begins; found {ring[0].tolist()} and {ring[-1].tolist()}"
    return "" if signed_area(ring) else "a ring encloses no ground"


def _check_crossings(polygons: Sequence[Polygon]) -> None:
    """Refuse rings that cross themselves or each other, where shapely is there to find them."""
    try:
        import shapely
    except ImportError:
        return
    for number, (outer, *holes) in enumerate(polygons, 1):
        shape = shapely.Polygon(outer, holes)
        if not shapely.is_valid(shape):
            why = shapely.is_valid_reason(shape)
            raise ValueError(
                f"polygon {number} of {len(polygons)} is not valid: {why}; repair it, as with "
                "shapely.make_valid or the GIS's 'fix geometries'"
            )
