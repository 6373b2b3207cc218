"""Sources of pixels, one module per family of formats; ``open_source`` chooses among them.

The choice goes by a file's content first and by its suffix second, and the package that a format
needs is imported only when such a file is opened.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from saccade.pipeline.errors import (
    AccessDenied,
    BrokenImage,
    NoSuchObject,
    SourceError,
    UnsupportedImage,
)
from saccade.pipeline.remote_stores import is_remote
from saccade.pipeline.sources.base import Source
from saccade.pipeline.sources.rasterio_crs import EXTRA
from saccade.pipeline.sources.suffixes import MOSAICS, RASTERS, SLIDES, VRT

if TYPE_CHECKING:
    from saccade.pipeline.sources.tiff import TiffSource

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
JPEG_2000 = (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
VRT_HEAD = b"<VRTData"
TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MAGIC_NBYTES = 8
GENERIC_VENDORS = frozenset({None, "generic-tiff"})
KNOWN = (
    "whole-slide formats (SVS, NDPI, MRXS, SCN, VMS, BIF, CZI, DICOM), TIFF, BigTIFF, OME-TIFF, "
    "GeoTIFF, JPEG 2000, VRT, *.mosaic.yaml, OME-Zarr 0.4 and 0.5, zarr arrays, PNG, JPEG"
)

__all__ = ["open_source"]


def open_source(uri: str | Path | np.ndarray) -> Source:
    """Open an image lazily: its headers are read, no pixel is.

    Args:
        uri: path of a file or zarr folder, ``s3://``, ``gs://``, ``az://`` or ``https://`` of the
            same, or an array ``(H, W)`` or ``(H, W, C)``.

    Raises:
        StorageGone: the object store does not answer.
        SourceError: no such file, or no permission to read it.
        UnsupportedImage: no reader for this kind of file.
        BrokenImage: a known format, but damaged.
    """
    if isinstance(uri, np.ndarray):
        from saccade.pipeline.sources.array import ArraySource

        return ArraySource(uri)
    if is_remote(str(uri)):
        return _open_remote(str(uri))
    if "://" in str(uri):
        return _open_zarr(str(uri))
    return _open_path(Path(uri))


def _open_path(path: Path) -> Source:
    if path.is_dir():
        return _open_folder(path)
    return _open_file(path, _magic(path))


def _magic(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        # opening a pipe waits for its writer, and a device may never end
        raise UnsupportedImage(f"{path}: a file or a zarr folder expected; found a pipe or device")
    try:
        with path.open("rb") as file:
            return file.read(MAGIC_NBYTES)
    except FileNotFoundError as error:
        raise NoSuchObject(f"{path}: no such file; check the path in the manifest") from error
    except PermissionError as error:
        raise AccessDenied(f"{path}: the file can't be read ({error.strerror})") from error
    except OSError as error:
        raise SourceError(f"{path}: the file can't be read ({error.strerror})") from error


def _open_file(path: Path, magic: bytes) -> Source:
    described = _open_description(path)
    if described is not None:
        return described
    # an MRXS slide is entered through a JPEG
    if magic.startswith((PNG, JPEG)) and path.suffix.lower() != ".mrxs":
        from saccade.pipeline.sources.photo import PhotoSource

        return PhotoSource(path)
    vendor = _vendor(path)
    if vendor == "aperio":
        return _open_aperio(path)
    if vendor not in GENERIC_VENDORS:
        return _open_slide(path)
    if magic.startswith(TIFFS):
        return _open_tiff(path)
    if magic.startswith((*JPEG_2000, VRT_HEAD)):
        return _open_raster(path)
    raise _unknown(path, magic)


def _open_tiff(path: Path) -> Source:
    """Read its tiles directly, or through GDAL what only GDAL reads.

    That is a mask in a file beside it, a rare compression, strips too large to decode one by one.
    """
    from saccade.pipeline.sources.reader import OtherReaderNeeded
    from saccade.pipeline.sources.tiff import TiffSource

    if path.with_name(f"{path.name}.msk").exists():
        return _open_raster(path)
    try:
        return TiffSource(path)
    except OtherReaderNeeded as error:
        if not _has_rasterio():
            raise UnsupportedImage(f"{error}; or read it with GDAL: {EXTRA}") from error
        try:
            return _open_raster(path)
        except BrokenImage:
            raise UnsupportedImage(f"{error}; GDAL does not read it either") from error


def _open_raster(path: Path) -> Source:
    from saccade.pipeline.sources.rasterio_file import RasterioSource

    return RasterioSource(path)


def _has_rasterio() -> bool:
    return find_spec("rasterio") is not None


def _open_description(path: Path) -> Source | None:
    """Of a file that names others: the image that they make together."""
    name = path.name.lower()
    if name.endswith(MOSAICS):
        from saccade.pipeline.sources.mosaic_file import open_mosaic

        return open_mosaic(path, open_source)
    if name.endswith(VRT):
        from saccade.pipeline.sources.mosaic_vrt import open_plain_vrt

        return open_plain_vrt(path, open_source)
    return None


def _vendor(path: Path) -> str | None:
    from saccade.pipeline.sources.openslide import detect

    return detect(path)


def _open_slide(path: Path) -> Source:
    from saccade.pipeline.sources.openslide import OpenSlideSource

    return OpenSlideSource(path)


def _open_aperio(path: Path) -> Source:
    """Read an Aperio slide's tiles directly where that gives what OpenSlide gives, but faster.

    OpenSlide fills tiles that a slide leaves out from another level, and reads slides that no
    other decoder does: those are left to it.
    """
    from saccade.pipeline.sources.tiff import TiffSource

    slide = _open_slide(path)
    try:
        direct = TiffSource(path)
    except (UnsupportedImage, BrokenImage):
        return slide
    refused, chosen = (slide, direct) if _interchangeable(slide, direct) else (direct, slide)
    refused.close()
    return chosen


def _interchangeable(slide: Source, direct: TiffSource) -> bool:
    """Whether a slide's tiles, decoded as they are, are the pixels that OpenSlide draws."""
    from saccade.pipeline.sources.tiff import DIRECT_CODECS

    same_levels = [a.shape for a in slide.levels] == [b.shape for b in direct.levels]
    same_samples = (slide.dtype, slide.channels) == (direct.dtype, direct.channels)
    known = all(level.codec in DIRECT_CODECS for level in direct.levels)
    same_size = slide.pixel_size == direct.pixel_size
    return same_levels and same_samples and same_size and known and not direct.has_holes


def _open_folder(path: Path) -> Source:
    from saccade.pipeline.sources.zarr import is_zarr

    if not is_zarr(path):
        raise UnsupportedImage(
            f"{path}: a folder is expected to be a zarr array or group, found no zarr metadata; "
            "name a file inside it"
        )
    return _open_zarr(str(path))


def _open_remote(uri: str) -> Source:
    from saccade.pipeline.sources.behind_uri import open_behind_uri

    return open_behind_uri(uri, _open_path)


def _open_zarr(uri: str) -> Source:
    from saccade.pipeline.sources.zarr import ZarrSource

    return ZarrSource(uri)


def _unknown(path: Path, magic: bytes) -> SourceError:
    if path.suffix.lower() in SLIDES | RASTERS | {VRT}:
        return BrokenImage(
            f"{path}: a {path.suffix} file expected, but it begins with {magic!r}; "
            "the file is damaged or is no image: copy it again"
        )
    return UnsupportedImage(f"{path}: one of {KNOWN} expected, but it begins with {magic!r}")
