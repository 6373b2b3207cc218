"""Files that describe a mosaic or a stack: ``*.mosaic.yaml``; YAML or JSON.

    mosaic: {files: [a.tif, b.tif], overlap: first}       one image of several files
    stack:  {files: ["2024-*/*.tif"]}                      bands of several dates side by side
    mosaic: {items: items.json, asset: visual}             of STAC items

Paths begin at the description's own folder. Opens the files' headers, several at once.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from saccade.pipeline.errors import RecipeError, SourceError
from saccade.pipeline.geometry import Box
from saccade.pipeline.recipe_file import load_tree
from saccade.pipeline.remote_stores import is_remote
from saccade.pipeline.sources.base import file_identity
from saccade.pipeline.sources.mosaic import Composition, MosaicSource
from saccade.pipeline.sources.mosaic_members import Open, facts_of
from saccade.pipeline.sources.mosaic_parts import (
    ALIGNED_PX,
    MOST_OFF_PX,
    Canvas,
    Overlap,
    Part,
    PartFacts,
    check_channels,
    lay_out,
)
from saccade.pipeline.sources.suffixes import RASTERS, ZARR
from saccade.pipeline.stac_assets import chosen_asset, date_of

MOST_FILES = 100_000
MOST_NESTED = 8
"""Mosaics within mosaics."""
AT_ONCE = 8
"""Headers that are read at a time."""
_ABOVE: ContextVar[tuple[str, ...]] = ContextVar("above", default=())
"""Files whose parts are being opened, outermost first."""


class _Node(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class FileOf(_Node):
    """One file."""

    file: str
    """Path or URL; ``*`` and ``**`` stand for any part of a path."""
    date: str = ""
    """When it was taken, as ISO 8601."""

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        return {"file": value} if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _plain_date(cls, value: Any) -> Any:
        if isinstance(value, dict) and hasattr(value.get("date"), "isoformat"):
            return value | {"date": value["date"].isoformat()}
        return value


class Members(_Node):
    """Which files, and who wins where they overlap."""

    files: Annotated[tuple[FileOf, ...], Field(max_length=MOST_FILES)] = ()
    """In the order that the rule goes by."""
    items: str | None = None
    """A STAC item, a FeatureCollection of items, or a folder of items."""
    asset: str | None = None
    """Of STAC items, the key of the asset that is the image; None goes by its roles."""
    overlap: Overlap = "first"
    """Whose sample counts where several files have data: first, last, newest, mean."""
    tolerance: float = Field(ALIGNED_PX, gt=0, le=MOST_OFF_PX)
    """How many pixels a file may lie off the grid of the first; it is put at the nearest pixel."""
    nodata: float | None = None
    """Sample value where no file has data; None takes that of the first file that states one."""

    @model_validator(mode="before")
    @classmethod
    def _one_file(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("files"), str):
            return value | {"files": [value["files"]]}
        return value

    @model_validator(mode="after")
    def _some(self) -> Members:
        if bool(self.files) == (self.items is not None):
            raise ValueError("either files or items expected")
        return self


class Description(_Node):
    """What a ``*.mosaic.yaml`` says."""

    mosaic: Members | None = None
    """One image whose files lie side by side and over each other."""
    stack: Members | None = None
    """One image whose bands are those of every date, named DATE:BAND; files without a date are a
    layer each, named as the file is."""

    @model_validator(mode="after")
    def _one(self) -> Description:
        if (self.mosaic is None) == (self.stack is None):
            raise ValueError("either mosaic or stack expected")
        return self

    @property
    def members(self) -> Members:
        """Of whichever it is."""
        members = self.mosaic or self.stack
        assert members is not None
        return members


@dataclass(frozen=True, slots=True)
class Listed:
    """A file that a description names."""

    uri: str
    """Where it lies."""
    date: str
    """When it was taken; empty where nobody says."""


def open_mosaic(path: Path, open_file: Open) -> MosaicSource:
    """The image that a description stands for.

    Raises:
        SourceError: the description is wrong, a file is missing, or the files don't fit.
    """
    tree, listed = read_description(path)
    files = tuple(headers([one.uri for one in listed], open_file))
    canvas = lay_out(files, tree.members.tolerance)
    layers = _layers(listed) if tree.stack else [list(range(len(files)))]
    parts, names = _parts(listed, files, canvas, layers, stacked=tree.stack is not None)
    kind = f"stack of {len(layers)} dates" if tree.stack else f"mosaic of {len(files)} files"
    made_of = Composition(
        uri=str(path),
        format=kind,
        files=files,
        parts=tuple(parts),
        shape=canvas.shape,
        georeference=canvas.georeference,
        channel_names=tuple(names),
        described=file_identity(path),
        overlap=tree.members.overlap,
        nodata=tree.members.nodata,
    )
    return MosaicSource(made_of, open_file)


def read_description(path: Path) -> tuple[Description, list[Listed]]:
    """What a description says, and the files that it names, in order.

    Raises:
        SourceError: it can't be understood, or names no file.
    """
    try:
        tree = load_tree(path, Description)
    except (RecipeError, StopIteration) as error:
        why = str(error) or f"{path}: a mapping with 'mosaic' or 'stack' expected"
        raise SourceError(why.replace("the recipe", "it")) from error
    listed = list(_listed(tree.members, path))
    if not listed:
        raise SourceError(f"{path}: the files of a mosaic expected; found none that match")
    if len(listed) > MOST_FILES:
        raise SourceError(f"{path}: at most {MOST_FILES} files expected; found {len(listed)}")
    return tree, listed


def local_files(path: Path) -> list[Path]:
    """Files on a disk that a description names.

    Raises:
        SourceError: it can't be understood.
    """
    return [Path(one.uri) for one in read_description(path)[1] if not is_remote(one.uri)]


def headers(uris: Sequence[str], open_file: Open) -> Iterator[PartFacts]:
    """What the headers of files say, several read at once.

    Raises:
        SourceError: one does not open, or is made of what it is a part of.
    """
    above = _ABOVE.get()

    def look(uri: str) -> PartFacts:
        _ABOVE.set((*above, _no_ring(uri, above)))  # threads have a context each
        with closing(open_file(uri)) as source:
            return facts_of(source)

    with ThreadPoolExecutor(AT_ONCE, "headers") as pool:
        yield from pool.map(look, uris)


def _no_ring(uri: str, above: Sequence[str]) -> str:
    """The file, whatever it is called, where it is not being opened already."""
    same = uri if is_remote(uri) else os.path.realpath(uri)
    if same in above or len(above) == MOST_NESTED:
        raise SourceError(
            f"{uri}: mosaics within mosaics, {MOST_NESTED} deep at most and none in itself, "
            f"expected; found {' > '.join((*above, same))}"
        )
    return same


# ------------------------------------------------------------------------------------------- files


def _listed(members: Members, path: Path) -> Iterator[Listed]:
    folder = path.parent
    if members.items is not None:
        yield from _of_items(folder / members.items, members.asset)
    for one in members.files:
        for uri in _matching(one.file, folder):
            yield Listed(uri, one.date)


def _matching(stated: str, folder: Path) -> list[str]:
    if is_remote(stated):
        return [stated]
    path = str(folder / stated)
    if glob.has_magic(stated) and not Path(path).exists():
        return sorted(glob.glob(path, recursive=True))  # noqa: PTH207 - as manifests match
    return [path]


def _of_items(place: Path, wanted: str | None) -> Iterator[Listed]:
    """The files of STAC items; of a folder in the order of names."""
    documents = sorted(place.rglob("*.json")) if place.is_dir() else [place]
    for document in documents:
        for item in _items_in(document):
            try:
                asset = chosen_asset(item, wanted, RASTERS | {ZARR})
            except ValueError as error:
                told = str(error).replace("with --asset NAME", "one with 'asset: NAME'")
                raise SourceError(f"{document}: item {item.get('id')!r}: {told}") from error
            href = str(asset["href"])
            uri = href if is_remote(href) else str(document.parent / href)
            yield Listed(uri, date_of(item))


def _items_in(document: Path) -> list[dict[str, Any]]:
    """The items of a document; catalogues and collections beside them have none."""
    try:
        tree = json.loads(document.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{document}: STAC items as JSON expected; {error}") from error
    found = tree.get("features", [tree]) if isinstance(tree, dict) else []
    return [
        one
        for one in found
        if isinstance(one, dict)
        and isinstance(one.get("assets"), dict)
        and one.get("type") != "Collection"
    ]


# ------------------------------------------------------------------------------------------- parts


def _layers(listed: Sequence[Listed]) -> list[list[int]]:
    """Files that make one date each, in the order of dates; those without stay as listed."""
    layers: dict[str, list[int]] = {}
    for index, one in enumerate(listed):
        layers.setdefault(one.date or f"/{index:09}", []).append(index)
    return [layers[key] for key in (sorted(layers) if all(one.date for one in listed) else layers)]


def _parts(
    listed: Sequence[Listed],
    files: Sequence[PartFacts],
    canvas: Canvas,
    layers: Sequence[Sequence[int]],
    *,
    stacked: bool,
) -> tuple[list[Part], list[str]]:
    """Every file as a part, and the names of the whole's channels."""
    parts: list[Part] = []
    names: list[str] = []
    for layer in layers:
        first = files[layer[0]]
        for index in layer:
            check_channels(files[index], first)
            window, bands = Box.of(files[index].shape), tuple(range(first.channels))
            nodata, date = files[index].nodata, listed[index].date
            corner = canvas.corners[index]
            parts.append(Part(index, window, corner, bands, len(names), nodata, date))
        label = listed[layer[0]].date or Path(listed[layer[0]].uri).stem
        prefix = f"{label}:" if stacked else ""
        names += [f"{prefix}{name}" for name in first.channel_names]
    return parts, names
