"""One row of a manifest and the image that it names, both ways. Pure: opens nothing.

Columns beside overrides are ``COLUMNS``; those of ``FACTS`` are what ``saccade manifest`` writes of
an image's header, of which only its size is used. Any other column is a change to the recipe:
dotted (``passes.refine.tile``), or a whole part of it as JSON.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from saccade.jobs.manifests.naming import NAME_PATTERN, NAME_RULE, name_of
from saccade.jobs.manifests.places import resolved
from saccade.pipeline.errors import ManifestError
from saccade.pipeline.recipe import ONLY, Recipe
from saccade.workers.tasks import ImageEntry

LEAST_PIXEL, MOST_PIXEL = 1e-6, 1e6
"""Sides of pixels that are believed, in micrometres (``mpp``) or metres (``gsd``)."""
COLUMNS = ("image", "name", "mpp", "gsd", "mask", "area", "passes", "classes")
"""Columns beside overrides, which are dotted: ``passes.refine.tile``."""
FACTS = ("format", "width", "height", "levels", "bytes")
"""What a header says; read past, but for the size."""
MAX_SIDE_PX = 1 << 31
LONGEST = 200
"""Characters of a value in a message."""

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Unusable:
    """A row that could not even be read."""

    why: str
    """What was expected and found."""


def entry_of(row: Row, base: str) -> ImageEntry:
    """The image that a row names.

    Args:
        row: values by column; empty ones left out.
        base: folder or URL that relative paths start from.

    Raises:
        ManifestError: a column is missing or unknown, or a value makes no sense.
    """
    if "image" not in row:
        raise ManifestError(f"column 'image' is missing; found {', '.join(map(str, row))}")
    uri = resolved(_text("image", row["image"]), base)
    name = str(row.get("name", name_of(uri)))
    if not NAME_PATTERN.fullmatch(name):
        raise ManifestError(f"name {name[:LONGEST]!r}: {NAME_RULE}")
    return ImageEntry(
        name,
        uri,
        **{key: pixel_size(key, row[key]) for key in ("mpp", "gsd") if key in row},
        overrides=_overrides(row, base),
        pixels=_pixels(row),
    )


def unknown_column(columns: Sequence[str]) -> str:
    """What is wrong with the columns of a manifest; empty where nothing is."""
    return _unknown_column(tuple(columns))


@lru_cache(64)
def _unknown_column(columns: tuple[str, ...]) -> str:
    twice = [column for column in dict.fromkeys(columns) if columns.count(column) > 1]
    if twice:
        return f"column {twice[0]!r} is there twice; rename or remove one"
    heads = {column: column.split(".")[0] for column in columns if column}
    for column, head in heads.items():
        if column in COLUMNS or column in FACTS or column == ONLY or head in Recipe.model_fields:
            continue
        known = [*COLUMNS, *Recipe.model_fields, *FACTS]
        near = difflib.get_close_matches(head, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        return f"unknown column {column[:LONGEST]!r}; {hint}"
    return ""


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ManifestError(f"{key}: a path or URL expected; found {str(value)[:LONGEST]!r}")
    return value


def positive(key: str, value: Any) -> float:
    """A size as a number.

    Raises:
        ManifestError: not a positive, finite number.
    """
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = 0.0
    if not 0 < number < math.inf:
        raise ManifestError(f"{key}: a positive number expected; found {str(value)[:LONGEST]!r}")
    return number


def pixel_size(key: str, value: Any) -> float:
    """The side of a pixel of level 0, in the key's unit.

    Raises:
        ManifestError: no number, or one that no instrument has.
    """
    number = positive(key, value)
    if not LEAST_PIXEL <= number <= MOST_PIXEL:
        unit = {"mpp": "micrometres", "gsd": "metres"}[key]
        raise ManifestError(
            f"{key}: {LEAST_PIXEL:g} to {MOST_PIXEL:g} {unit} per pixel expected; found {number:g}"
        )
    return number


def _pixels(row: Row) -> int | None:
    """Pixels of level 0, where a row says; a number only, nothing is ever made that large."""
    if "width" not in row or "height" not in row:
        return None
    sides = [positive(key, row[key]) for key in ("width", "height")]
    if not all(side.is_integer() and side < MAX_SIDE_PX for side in sides):
        found = f"{row['width']} x {row['height']}"[:LONGEST]
        raise ManifestError(f"width, height: whole pixels below {MAX_SIDE_PX} expected; {found}")
    return int(sides[0]) * int(sides[1])


# --------------------------------------------------------------------------------------- overrides


def _overrides(row: Row, base: str) -> dict[str, Any]:
    """Changes to the recipe as a tree."""
    if wrong := unknown_column(tuple(row)):
        raise ManifestError(wrong)
    tree: dict[str, Any] = {}
    for key, value in row.items():
        path = _path_of(key, value)
        if path:
            _place(tree, path, _meaning(path, value, base))
    return tree


def _path_of(key: str, value: Any) -> list[str]:
    """Where in the tree a column's value goes; nowhere where it is no change to the recipe."""
    if key == "classes":
        return ["output", "classes"]
    if key == "passes" and not isinstance(_value(value), Mapping):
        return [ONLY]
    if key in FACTS or (key in COLUMNS and key not in ("passes", "mask", "area")):
        return []
    return key.split(".")


def _meaning(path: list[str], value: Any, base: str) -> Any:
    if path in (["mask"], ["area"]):
        return resolved(_text(path[0], value), base)
    if path == [ONLY] or path == ["output", "classes"]:
        return _names(value)
    return _value(value)


def _names(value: Any) -> list[str]:
    """A list of names, as JSON or with commas, semicolons or blanks between them."""
    stated = _value(value)
    if isinstance(stated, list):
        return [str(one) for one in stated]
    return [one for one in re.split(r"[,;\s]+", str(value)) if one]


def _place(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Put a value into a tree, at the end of a path that it makes."""
    node = tree
    for depth, part in enumerate(path[:-1], 1):
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            column = ".".join(path[:depth])
            raise ManifestError(f"columns {column!r} and {'.'.join(path)!r} exclude each other")
    if path[-1] in node:
        raise ManifestError(f"column {'.'.join(path)!r} is stated twice, in another form")
    node[path[-1]] = value


def _value(value: Any) -> Any:
    """A value as JSON where it is JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def area_file(stated: Any) -> str:
    """The file of an area, stated with its digest or without."""
    return str(stated["file"] if isinstance(stated, Mapping) else stated)


def row_of(entry: ImageEntry) -> dict[str, Any]:
    """The row that names an image; ``entry_of`` makes the same image of it."""
    row: dict[str, Any] = {"image": entry.uri, "name": entry.name}
    row |= {key: size for key in ("mpp", "gsd") if (size := getattr(entry, key)) is not None}
    for key, value in entry.overrides.items():
        row[key] = value if key == "mask" else json.dumps(value)
    if "area" in entry.overrides:
        row["area"] = area_file(entry.overrides["area"])
    return row
