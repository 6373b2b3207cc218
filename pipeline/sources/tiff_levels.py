"""Which directories (IFDs) of a TIFF are the levels of its image. Reads no pixels.

A file may also hold masks, labels, thumbnails and other pictures, and says what is what in several
ways: reduced-resolution flags, SubIFDs, or nothing but sizes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

from tifffile import TiffFile, TiffPage

from saccade.pipeline.errors import BrokenImage, UnsupportedImage
from saccade.pipeline.sources.ome import OmeXml, one_plane
from saccade.pipeline.sources.reader import is_reduction

REDUCED, MASK = 1, 4

Planes = tuple[TiffPage, ...]
"""The directories that make up one level: their samples, one after the other, are its channels."""


def pages_in_order(tif: TiffFile, uri: str) -> Iterator[TiffPage]:
    """The pages of a file, from its chain of directories.

    Raises:
        BrokenImage: the chain leads back to a directory that it has passed: it has no end.
    """
    passed: set[int] = set()
    for page in tif.pages:
        if page.offset in passed:
            raise BrokenImage(
                f"{uri}: a chain of directories that ends was expected; found one that "
                f"leads back to byte {page.offset}: the file is damaged, copy it again"
            )
        passed.add(page.offset)
        if isinstance(page, TiffPage):
            yield page


def find_levels(tif: TiffFile, uri: str, ome: OmeXml | None) -> tuple[Planes, ...]:
    """The levels of the file's image, finest first.

    Raises:
        BrokenImage: the chain of directories has no end.
        UnsupportedImage: several pictures of one size that nothing declares to be channels.
        ValueError: the chain of directories leaves the file.
    """
    pages = list(pages_in_order(tif, uri))
    _check_chain(tif, pages)
    if ome is not None:
        full = _ome_planes(pages, ome, uri)
    elif tif.is_svs:
        full = (pages[0],)
    else:
        full = _stack(tif, _candidates(pages), uri)
    reduced = _sub_levels(full) or _loose_levels(full, pages)
    return (full, *_strictly_coarser(full, reduced))


def find_masks(tif: TiffFile) -> dict[tuple[int, int], TiffPage]:
    """The directories that say which pixels hold data, by height and width."""
    masks: dict[tuple[int, int], TiffPage] = {}
    for page in tif.pages:
        if isinstance(page, TiffPage) and flags_of(page) & MASK and page.samplesperpixel == 1:
            masks.setdefault(shape_of(page), page)
    return masks


def _check_chain(tif: TiffFile, pages: Sequence[TiffPage]) -> None:
    """Refuse a file cut short before its last directory, which would just lack levels."""
    if not pages:
        raise ValueError("no directory that can be read")
    file, layout, last = tif.filehandle, tif.tiff, pages[-1].offset
    file.seek(last)
    (count,) = struct.unpack(layout.tagnoformat, file.read(layout.tagnosize))
    file.seek(last + layout.tagnosize + count * layout.tagsize)
    (following,) = struct.unpack(layout.offsetformat, file.read(layout.offsetsize))
    if following >= file.size:
        raise ValueError(f"a directory at {following} expected in a file of {file.size} bytes")


def shape_of(page: TiffPage) -> tuple[int, int]:
    """Height and width."""
    return (int(page.imagelength), int(page.imagewidth))


def _kind(page: TiffPage) -> tuple[object, ...]:
    """What two levels of one image have in common."""
    return (page.samplesperpixel, page.dtype, page.bitspersample, page.photometric)


def flags_of(page: TiffPage) -> int:
    """What a directory says of its kind: bits ``REDUCED`` and ``MASK``."""
    return int(page.subfiletype or 0)


def _candidates(pages: Sequence[TiffPage]) -> list[TiffPage]:
    """The pages that may be level 0: all that are neither reduced nor masks."""
    return [page for page in pages if not flags_of(page) & (REDUCED | MASK)] or list(pages[:1])


def _ome_planes(pages: Sequence[TiffPage], ome: OmeXml, uri: str) -> Planes:
    first = pages[ome.ifds.get(0, 0)]
    count = max(1, ome.channels // int(first.samplesperpixel))
    numbers = [ome.ifds.get(channel, first.index + channel) for channel in range(count)]
    if max(numbers) >= len(pages):
        raise UnsupportedImage(
            f"{uri}: its OME-XML states {ome.channels} channels, found {len(pages)} directories"
        )
    return tuple(pages[number] for number in numbers)


def _stack(tif: TiffFile, pages: Sequence[TiffPage], uri: str) -> Planes:
    """The first page, and the pages of its size where they are declared to be channels."""
    alike = [p for p in pages if shape_of(p) == shape_of(pages[0]) and _kind(p) == _kind(pages[0])]
    declared = _declared_stack(tif)
    lengths = [length for axis, length in declared if axis not in "yxs"]
    if len(alike) == 1 and not lengths:
        return (pages[0],)
    axes = "".join(axis for axis, _ in declared if axis not in "yxs") or "i"
    one_plane(uri, axes, lengths or [len(alike)])
    channels = dict(declared).get("c", 1)
    if channels != len(alike):
        raise UnsupportedImage(
            f"{uri}: {channels} channels declared, found {len(alike)} directories of one size"
        )
    return tuple(alike)


def _declared_stack(tif: TiffFile) -> list[tuple[str, int]]:
    """Axis and length of what a file's writer says that its pages are; empty where it says none."""
    if tif.is_imagej:
        found = tif.imagej_metadata or {}
        keys = {"c": "channels", "z": "slices", "t": "frames"}
        return [(axis, int(found[key])) for axis, key in keys.items() if key in found]
    if tif.is_shaped:
        described: dict[str, Any] = (tif.shaped_metadata or ({},))[0]
        axes, shape = str(described.get("axes", "")), described.get("shape", ())
        if len(axes) == len(shape):
            return list(zip(axes.lower(), map(int, shape), strict=True))
    return []


def _sub_levels(full: Planes) -> list[Planes]:
    """Levels kept as SubIFDs: each plane has its own."""
    trees = [list(page.pages or ()) if page.subifds else [] for page in full]
    depth = min(len(tree) for tree in trees)
    levels = [tuple(tree[number] for tree in trees) for number in range(depth)]
    return [planes for planes in levels if all(isinstance(page, TiffPage) for page in planes)]


def _loose_levels(full: Planes, pages: Sequence[TiffPage]) -> list[Planes]:
    """Levels kept as ordinary directories: same kind of samples and layout, same aspect."""
    if len(full) != 1:
        return []
    first = full[0]
    return [
        (page,)
        for page in pages
        if page is not first
        and not flags_of(page) & MASK
        and _kind(page) == _kind(first)
        and page.is_tiled == first.is_tiled
        and is_reduction(shape_of(first), shape_of(page))
    ]


def _strictly_coarser(full: Planes, reduced: Sequence[Planes]) -> list[Planes]:
    """From large to small, one of each size, and only true reductions of level 0."""
    kept: list[Planes] = []
    smallest = shape_of(full[0])
    for planes in sorted(reduced, key=lambda planes: -shape_of(planes[0])[0]):
        shape = shape_of(planes[0])
        same = all(_kind(page) == _kind(full[0]) and shape_of(page) == shape for page in planes)
        if same and is_reduction(shape_of(full[0]), shape) and is_reduction(smallest, shape):
            kept.append(planes)
            smallest = shape
    return kept
