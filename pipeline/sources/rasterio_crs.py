"""Coordinate reference systems as PROJ knows them. With its siblings, all that imports rasterio."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

from saccade.pipeline.errors import UnsupportedImage
from saccade.pipeline.georeference import Crs

EXTRA = "pip install 'saccade[geo]'"


def import_rasterio(why: str) -> Any:
    """The package rasterio.

    Raises:
        UnsupportedImage: it is not installed.
    """
    try:
        rasterio = import_module("rasterio")
    except ImportError as error:
        raise UnsupportedImage(f"{why}, which is not installed: {EXTRA}") from error
    # an image without a place on the ground is nothing to warn of
    warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
    return rasterio


def crs_of(crs: Any) -> Crs | None:
    """One of rasterio's, by its EPSG number or else by its WKT; None where it is none.

    Nor is a local one, as GDAL makes it up for coordinates of nothing in particular.
    """
    if not crs or not (crs.is_geographic or crs.is_projected):
        return None
    number = crs.to_epsg(confidence_threshold=100)
    text = None if number is not None else crs.to_wkt(version="WKT2_2019")
    geographic = bool(crs.is_geographic)
    unit_m = float(crs.linear_units_factor[1]) if crs.is_projected else 1.0
    return Crs(number, text, geographic, unit_m)


def crs_in(tiff: bytes, uri: str) -> Crs | None:
    """The CRS that a GeoTIFF's keys define.

    Args:
        tiff: a whole small file.
        uri: of the image that the keys are from, for messages.

    Raises:
        UnsupportedImage: rasterio is not installed.
    """
    rasterio = import_rasterio(
        f"{uri}: its GeoTIFF keys define a coordinate system without an EPSG number, which is "
        "read with rasterio"
    )
    with rasterio.MemoryFile(tiff) as memory, memory.open() as dataset:
        return crs_of(dataset.crs or dataset.gcps[1])
