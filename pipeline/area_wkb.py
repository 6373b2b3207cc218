"""Polygons in well-known binary (OGC 06-103r4, ISO 13249-3), as GeoPackages hold them. Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from saccade.pipeline.area import Polygon

POLYGON, MULTIPOLYGON, COLLECTION = 3, 6, 7
EWKB_Z, EWKB_M, EWKB_SRID = 0x80000000, 0x40000000, 0x20000000
KINDS = {1: "Point", 2: "LineString", 4: "MultiPoint", 5: "MultiLineString"}
ENVELOPE_NBYTES = (0, 32, 48, 48, 64)
HEADER_NBYTES = 8


def polygons_of_geopackage(blob: bytes) -> list[Polygon]:
    """Polygons of a GeoPackage's geometry (OGC 12-128r18, 2.1.3); none of an empty one.

    Raises:
        ValueError: it is something else, or damaged.
    """
    if blob[:2] != b"GP" or len(blob) < HEADER_NBYTES:
        raise ValueError("a GeoPackage geometry expected; found other bytes")
    flags = blob[3]
    envelope = flags >> 1 & 7
    if envelope >= len(ENVELOPE_NBYTES):
        raise ValueError("a GeoPackage geometry expected; found an unknown envelope")
    return [] if flags & 16 else polygons_of_wkb(blob[HEADER_NBYTES + ENVELOPE_NBYTES[envelope] :])


def polygons_of_wkb(data: bytes) -> list[Polygon]:
    """Polygons of a polygon, a multipolygon or a collection of them.

    Raises:
        ValueError: it is something else, or damaged.
    """
    try:
        return _Reader(data).geometry()
    except (struct.error, RecursionError) as error:
        raise ValueError(f"well-known binary expected; found damage ({error})") from error


@dataclass
class _Reader:
    data: bytes
    at: int = 0

    def geometry(self) -> list[Polygon]:
        order = "<" if self._take("<B") else ">"
        code = self._take(f"{order}I")
        if code & EWKB_SRID:
            self._take(f"{order}I")
        kind = (code & 0xFFFF) % 1000
        flagged = bool(code & EWKB_Z) + bool(code & EWKB_M)
        axes = 2 + (flagged or (0, 1, 1, 2)[min((code & 0xFFFF) // 1000, 3)])
        if kind == POLYGON:
            return self._polygon(order, axes)
        if kind in (MULTIPOLYGON, COLLECTION):
            return [one for _ in range(self._take(f"{order}I")) for one in self.geometry()]
        raise ValueError(f"polygons expected; found {KINDS.get(kind, f'geometry {kind}')}")

    def _polygon(self, order: str, axes: int) -> list[Polygon]:
        rings = tuple(self._ring(order, axes) for _ in range(self._take(f"{order}I")))
        return [rings] if rings else []

    def _ring(self, order: str, axes: int) -> np.ndarray:
        count = self._take(f"{order}I")
        if self.at + count * axes * 8 > len(self.data):
            raise ValueError("well-known binary expected; found it cut short")
        numbers = np.frombuffer(self.data, f"{order}f8", count * axes, self.at)
        self.at += numbers.nbytes
        return numbers.reshape(count, axes)[:, :2].astype(np.float64)

    def _take(self, what: str) -> int:
        (value,) = struct.unpack_from(what, self.data, self.at)
        self.at += struct.calcsize(what)
        return int(value)
