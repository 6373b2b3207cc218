"""Which images a run works on, who they are, and what is different for each.

Takes what a person types: files, folders, globs, or a CSV or JSON-lines manifest. Opens no image.
"""

from __future__ import annotations

import csv
import difflib
import glob
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from saccade.pipeline.errors import ManifestError
from saccade.pipeline.recipe import Recipe
from saccade.pipeline.recipe_file import explain
from saccade.workers.tasks import ImageEntry

SLIDE_SUFFIXES = (".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".dcm")
PHOTO_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8", ".png", ".jpg", ".jpeg", ".zarr")
IMAGE_SUFFIXES = frozenset(SLIDE_SUFFIXES + PHOTO_SUFFIXES)
"""What a folder is searched for."""
MANIFEST_SUFFIXES = frozenset({".csv", ".jsonl", ".ndjson"})
COLUMNS = ("image", "name", "mpp", "gsd")
"""Columns of a manifest beside overrides, which are dotted: ``passes.refine.tile``."""
MAX_LISTED = 20
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@+-]{0,150}")
NAME_RULE = "letters, digits and _ . @ + - only, at most 151, a letter or digit first"


def find_images(arguments: Sequence[str]) -> tuple[ImageEntry, ...]:
    """Every image that the arguments name, in order, each with a name of its own.

    Raises:
        ManifestError: missing files, unreadable rows, duplicate names; all of them at once.
    """
    entries: list[ImageEntry] = []
    problems: list[str] = []
    for argument in arguments:
        for found in _expand(argument):
            if isinstance(found, ImageEntry):
                entries.append(found)
            else:
                problems.append(found)
    problems += _missing(entries)
    problems += _duplicates(entries)
    if problems:
        raise ManifestError(_listed(problems))
    if not entries:
        known = " ".join(sorted(IMAGE_SUFFIXES))
        raise ManifestError(f"no images found in {' '.join(arguments)}; looked for {known}")
    return tuple(entries)


def _expand(argument: str) -> Iterator[ImageEntry | str]:
    """The images behind one argument, or the reason why there are none."""
    path = Path(argument)
    if path.suffix.lower() in MANIFEST_SUFFIXES:
        yield from read_manifest(path)
    elif path.is_dir() and not _is_zarr(path):
        yield from (_entry(file) for file in _images_below(path))
    elif path.exists() or not glob.has_magic(argument):
        yield _entry(path)
    else:
        files = sorted(Path(p) for p in glob.glob(argument, recursive=True))  # noqa: PTH207
        yield from (_entry(file) for file in files)
        if not files:
            yield f"{argument}: no file matches"


def _is_zarr(path: Path) -> bool:
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))


def _images_below(folder: Path) -> Iterator[Path]:
    """Images in a folder and below, sorted; a zarr is an image, not a folder."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir() and not _is_zarr(path):
            yield from _images_below(path)
        elif path.suffix.lower() in IMAGE_SUFFIXES and not _belongs_to_another(path):
            yield path


def _belongs_to_another(path: Path) -> bool:
    """Whether a file is only a part of a slide: MIRAX keeps a folder beside its own file."""
    return path.parent.with_suffix(".mrxs").is_file()


def _entry(path: Path) -> ImageEntry:
    return ImageEntry(name=name_of(path), uri=str(path.absolute()))


def name_of(path: Path) -> str:
    """A name for an image from its file: the stem, in characters that any file system takes."""
    stem = re.sub(r"(\.ome)?(\.[A-Za-z0-9]{1,6})$", "", path.name)
    return re.sub(r"[^A-Za-z0-9_.@+-]+", "_", stem).strip("._@+-")[:150] or "image"


def read_manifest(path: Path) -> Iterator[ImageEntry | str]:
    """The rows of a CSV or JSON-lines manifest; a reason instead of a row that can't be used."""
    try:
        rows = list(_csv_rows(path) if path.suffix.lower() == ".csv" else _json_rows(path))
    except OSError as error:
        yield f"{path}: can't be read: {error.strerror}"
        return
    except (UnicodeDecodeError, csv.Error) as error:
        yield f"{path}: a manifest is CSV or JSON lines in UTF-8; {error}"
        return
    for line, row in rows:
        try:
            yield _from_row(row, path.parent)
        except ManifestError as error:
            yield f"{path}:{line}: {error}"


def _csv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        for row in reader:
            yield reader.line_num, {k: v for k, v in row.items() if v not in (None, "")}


def _json_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, _json_row(line)


def _json_row(line: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        return {"": f"not JSON: {error}"}
    if not isinstance(row, dict):
        return {"": f"an object expected; found {row!r}"}
    return {key: value for key, value in row.items() if value not in (None, "")}


def _from_row(row: Mapping[str, Any], folder: Path) -> ImageEntry:
    if "" in row or None in row:
        raise ManifestError(str(row.get("", "more fields than columns")))
    if "image" not in row:
        raise ManifestError(f"column 'image' is missing; found {', '.join(map(str, row))}")
    uri = Path(str(row["image"]))
    path = uri if uri.is_absolute() else folder / uri
    name = str(row.get("name", name_of(path)))
    if not NAME_PATTERN.fullmatch(name):
        raise ManifestError(f"name {name!r}: {NAME_RULE}")
    sizes = {key: _positive(key, row[key]) for key in ("mpp", "gsd") if key in row}
    return ImageEntry(name, str(path.absolute()), **sizes, overrides=_overrides(row))


def _positive(key: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = 0.0
    if not 0 < number < math.inf:
        raise ManifestError(f"{key}: a positive number expected; found {value!r}")
    return number


def _overrides(row: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted columns as a tree; values as JSON where they are JSON."""
    tree: dict[str, Any] = {}
    for key, value in row.items():
        if key in COLUMNS:
            continue
        head, *rest = key.split(".")
        if head not in Recipe.model_fields:
            known = [*COLUMNS, *Recipe.model_fields]
            near = difflib.get_close_matches(head, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise ManifestError(f"unknown column {key!r}; {hint}")
        _place(tree, [head, *rest], _value(value))
    return tree


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
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def check_names(entries: Sequence[ImageEntry]) -> None:
    """Refuse names that could lead out of the run's folder, or meet in one place there.

    Raises:
        ManifestError: such names.
    """
    bad = [e.name for e in entries if not NAME_PATTERN.fullmatch(e.name)]
    problems = [f"name {name!r}: {NAME_RULE}" for name in bad] + _duplicates(entries)
    if problems:
        raise ManifestError(_listed(problems))


def _missing(entries: Iterable[ImageEntry]) -> list[str]:
    return [f"{e.uri}: no such file" for e in entries if not Path(e.uri).exists()]


def _duplicates(entries: Sequence[ImageEntry]) -> list[str]:
    counts = Counter(entry.name for entry in entries)
    return [
        f"{count} images would be named {name!r}: give each its own 'name' in a manifest ("
        + ", ".join(e.uri for e in entries if e.name == name)
        + ")"
        for name, count in counts.items()
        if count > 1
    ]


def _listed(problems: Sequence[str]) -> str:
    more = f"\n... and {len(problems) - MAX_LISTED} more" if len(problems) > MAX_LISTED else ""
    return "\n".join(problems[:MAX_LISTED]) + more


def check_overrides(entries: Iterable[ImageEntry], recipe: Recipe) -> None:
    """Refuse overrides that do not fit the recipe, before any work starts.

    Raises:
        ManifestError: a pass that does not exist, or a value that is not valid.
    """
    problems = []
    for entry in entries:
        if not _names_passes(entry.overrides.get("passes", {})):
            problems.append(f"{entry.name}: a change to a pass is a column like passes.NAME.tile")
            continue
        try:
            recipe.overridden(dict(entry.overrides))
        except KeyError as error:
            names = ", ".join(one.name for one in recipe.passes)
            problems.append(f"{entry.name}: no pass named {error}; the recipe has {names}")
        except ValidationError as error:
            problems.append(explain(error, entry.name))
    if problems:
        raise ManifestError(_listed(problems))


def _names_passes(changes: Any) -> bool:
    """Whether changes are by pass and by key."""
    return isinstance(changes, Mapping) and all(isinstance(c, Mapping) for c in changes.values())


def with_pixel_size(
    entries: Iterable[ImageEntry], *, mpp: float | None, gsd: float | None
) -> tuple[ImageEntry, ...]:
    """The entries with one pixel size for all; a manifest's own row wins.

    Raises:
        ManifestError: not a positive number, or both are given.
    """
    if mpp is not None and gsd is not None:
        raise ManifestError("a pixel size is mpp or gsd; found both")
    for name, size in (("mpp", mpp), ("gsd", gsd)):
        if size is not None:
            _positive(name, size)
    return tuple(e if e.pixel_size else replace(e, mpp=mpp, gsd=gsd) for e in entries)


def entry_to_json(entry: ImageEntry) -> str:
    """One line of ``images.jsonl``."""
    return json.dumps({k: v for k, v in asdict(entry).items() if v not in (None, {})})


def entry_from_json(line: str) -> ImageEntry:
    """The inverse of ``entry_to_json``."""
    return ImageEntry(**json.loads(line))
