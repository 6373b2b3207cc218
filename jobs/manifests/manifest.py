"""Which images a run works on, who they are, and what is different for each.

Takes what a person types: files, folders, globs, URLs, or manifests in any format that
``manifest_files`` reads. Everything is a stream: images and what is wrong come one by one, in
order, and the list of those that were checked lies on disk (``Listing``). Opens no image.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from saccade.jobs.manifests.areas import Areas
from saccade.jobs.manifests.files import READERS, rows_of
from saccade.jobs.manifests.finding import IMAGE_SUFFIXES, Formats, find
from saccade.jobs.manifests.listing import Listing, entry_from_json, entry_to_json
from saccade.jobs.manifests.naming import NAME_PATTERN, NAME_RULE, alternatives, name_of
from saccade.jobs.manifests.opening import open_bytes
from saccade.jobs.manifests.places import folder_of, resolved, suffix_of
from saccade.jobs.manifests.presence import Claim, checked
from saccade.jobs.manifests.problems import Problem
from saccade.jobs.manifests.rows import Row, Unusable, entry_of, pixel_size
from saccade.jobs.manifests.stac import is_item, row_of_item
from saccade.pipeline.errors import ManifestError, SaccadeError
from saccade.pipeline.recipe import Recipe
from saccade.pipeline.recipe_file import explain
from saccade.pipeline.sources.suffixes import MOSAICS
from saccade.workers.tasks import ImageEntry

__all__ = [
    "NAME_PATTERN",
    "ListOptions",
    "Listing",
    "Problem",
    "entry_from_json",
    "entry_to_json",
    "find_images",
    "list_images",
    "name_of",
    "read_images",
    "read_manifest",
]

MANIFEST_SUFFIXES = frozenset(READERS)
Given = Iterable[str | Path | ImageEntry]


@dataclass(frozen=True, slots=True)
class ListOptions:
    """How arguments are understood."""

    formats: str | None = None
    """What folders are searched for: 'svs,tif'; None for all that can be read."""
    asset: str | None = None
    """Of STAC items, the key of the asset that is the image; None goes by its roles."""
    mpp: float | None = None
    """Micrometres per pixel of images whose row states no size."""
    gsd: float | None = None
    """Metres per pixel, likewise."""
    area: str | None = None
    """File of the area of interest of images whose row states none."""
    skip: bool = False
    """Go on without what can't be used."""
    rename: bool = False
    """Tell images of one name apart by the folder before it, or a number."""


def list_images(
    arguments: Given,
    *,
    output: Path | None = None,
    recipe: Recipe | None = None,
    options: ListOptions | None = None,
) -> Listing:
    """Every image that the arguments name, in order, checked, each with a name of its own.

    Args:
        arguments: files, folders, globs, URLs, manifests, and entries; a list of them as it is.
        output: of the run; where there are many problems, their file is written beside it.
        recipe: that changes per image must fit; None checks none.
        options: how arguments are understood.

    Raises:
        ManifestError: missing files, unreadable rows, duplicate names; all of them at once. With
            ``skip`` only where nothing is left.
    """
    if isinstance(arguments, Listing):
        return arguments
    options = options or ListOptions()
    listing, asked = Listing(), list[str]()
    for one in read_images(_noted(arguments, asked), options, recipe, listing):
        if isinstance(one, Problem):
            listing.note(one)
    listing.seal()
    if listing.problems and not options.skip:
        raise ManifestError(listing.told(output))
    if asked and not len(listing):
        known = options.formats or " ".join(sorted(IMAGE_SUFFIXES))
        said = f"\n{listing.told(output)}" if listing.problems else ""
        raise ManifestError(f"no images found in {' '.join(asked)}; looked for {known}{said}")
    return listing


def _noted(arguments: Given, asked: list[str]) -> Iterator[str | Path | ImageEntry]:
    """The arguments, of which those are noted that name images and are none themselves."""
    for argument in arguments:
        if not isinstance(argument, ImageEntry):
            asked.append(str(argument))
        yield argument


def find_images(
    arguments: Sequence[str], options: ListOptions | None = None
) -> tuple[ImageEntry, ...]:
    """As ``list_images``, for few images.

    Raises:
        ManifestError: missing files, unreadable rows, duplicate names; all of them at once.
    """
    return tuple(list_images(arguments, options=options))


def read_images(
    arguments: Given,
    options: ListOptions | None = None,
    recipe: Recipe | None = None,
    listing: Listing | None = None,
) -> Iterator[ImageEntry | Problem]:
    """The images that arguments name, checked one by one, each followed by what is wrong next.

    Args:
        arguments: files, folders, globs, URLs, manifests, and entries.
        options: how they are understood.
        recipe: that changes per image must fit; None checks none.
        listing: where images are kept as they are handed out; None keeps them for this call only.
    """
    options, kept = options or ListOptions(), Listing() if listing is None else listing
    check_pixel_size(options.mpp, options.gsd)
    unfit, areas = _Fitting(recipe) if recipe else _fits, Areas()
    claims = (claim for argument in arguments for claim in _claims(argument, options))
    for one in checked(claims):
        if isinstance(one, Problem):
            yield one
            continue
        entry = sized(one.entry, mpp=options.mpp, gsd=options.gsd)
        sealed = areas.sealed(entry, options.area)
        if isinstance(sealed, Problem):
            yield sealed
            continue
        wrong = _unnamed(sealed, one.where) or unfit(sealed)
        yield wrong or (_renamed if options.rename else _kept)(sealed, kept)


def _claims(argument: str | Path | ImageEntry, options: ListOptions) -> Iterator[Claim | Problem]:
    """What one argument names."""
    if isinstance(argument, ImageEntry):
        yield Claim(argument, argument.uri, seen=True)
    elif is_manifest(str(argument)):
        yield from _listed_in(resolved(str(argument), "."), str(argument), options)
    else:
        for found in find(str(argument), Formats.of(options.formats)):
            if isinstance(found, Problem):
                yield found
            else:
                entry = ImageEntry(name_of(found.uri), found.uri)
                yield Claim(entry, found.uri, found.seen)


def is_manifest(argument: str) -> bool:
    """Whether an argument is a list of images, by its suffix; what describes one image is none."""
    return suffix_of(argument) in MANIFEST_SUFFIXES and not argument.lower().endswith(MOSAICS)


def _unnamed(entry: ImageEntry, where: str) -> Problem | None:
    """Refuse a name that could lead out of the run's folder."""
    if NAME_PATTERN.fullmatch(entry.name):
        return None
    return Problem(where, f"name {entry.name!r}: {NAME_RULE}")


def _kept(entry: ImageEntry, listing: Listing) -> ImageEntry | Problem:
    return _twice(listing.add(entry), entry) or entry


def _renamed(entry: ImageEntry, listing: Listing) -> ImageEntry:
    """The entry under the first name that is free."""
    for name in alternatives(entry.name, entry.uri):
        renamed = replace(entry, name=name)
        if listing.add(renamed) is None:
            return renamed
    raise AssertionError("numbers do not end")


def _twice(first: ImageEntry | None, entry: ImageEntry) -> Problem | None:
    if first is None:
        return None
    remedy = "give each its own 'name' in a manifest"
    return Problem(entry.uri, f"would be named {entry.name!r}, as {first.uri} is: {remedy}")


# --------------------------------------------------------------------------------------- manifests


def read_manifest(
    path: Path | str, options: ListOptions | None = None
) -> Iterator[ImageEntry | Problem]:
    """The rows of a manifest; a problem instead of a row that can't be used. Looks for no image."""
    for one in _listed_in(str(path), str(path), options or ListOptions()):
        yield one if isinstance(one, Problem) else one.entry


def _listed_in(place: str, said: str, options: ListOptions) -> Iterator[Claim | Problem]:
    base = folder_of(place)
    try:
        with open_bytes(place) as file:
            for number, row in rows_of(file, suffix_of(place)):
                yield _claim(row, base, f"{said}:{number}", options)
    except OSError as error:
        yield Problem(said, f"can't be read: {error.strerror or error}")
    except SaccadeError as error:
        yield Problem(said, str(error))


def _claim(row: Row | Unusable, base: str, where: str, options: ListOptions) -> Claim | Problem:
    if isinstance(row, Unusable):
        return Problem(where, row.why)
    try:
        plain = row_of_item(row, options.asset) if is_item(row) else row
        return Claim(entry_of(plain, base), where)
    except ManifestError as error:
        return Problem(where, str(error))


# --------------------------------------------------------------------- changes to the recipe, names


class _Fitting:
    """Whether changes fit a recipe; rows that say the same are tried once in a while."""

    MOST = 4096

    def __init__(self, recipe: Recipe) -> None:
        self._recipe, self._known = recipe, dict[str, str]()

    def __call__(self, entry: ImageEntry) -> Problem | None:
        key = json.dumps(entry.overrides, sort_keys=True)
        if key not in self._known:
            if len(self._known) >= self.MOST:
                self._known.clear()
            self._known[key] = misfit(entry.overrides, self._recipe)
        return Problem(entry.name, self._known[key]) if self._known[key] else None


def _fits(entry: ImageEntry) -> None:
    del entry


def misfit(changes: Mapping[str, Any], recipe: Recipe) -> str:
    """Why changes do not fit a recipe; empty where they do."""
    if not _names_passes(changes.get("passes", {})):
        return "a change to a pass is a column like passes.NAME.tile"
    try:
        recipe.overridden(dict(changes))
    except KeyError as error:
        return f"no pass named {error}; the recipe has {', '.join(p.name for p in recipe.passes)}"
    except ValidationError as error:
        return explain(error, "changed for this image")
    return ""


def _names_passes(changes: Any) -> bool:
    """Whether changes are by pass and by key."""
    return isinstance(changes, Mapping) and all(isinstance(c, Mapping) for c in changes.values())


# -------------------------------------------------------------------------------------- pixel sizes


def check_pixel_size(mpp: float | None, gsd: float | None) -> None:
    """Refuse a pixel size for all images that is none.

    Raises:
        ManifestError: not a positive number, or both are given.
    """
    if mpp is not None and gsd is not None:
        raise ManifestError("a pixel size is mpp or gsd; found both")
    for name, size in (("mpp", mpp), ("gsd", gsd)):
        if size is not None:
            pixel_size(name, size)


def sized(entry: ImageEntry, *, mpp: float | None, gsd: float | None) -> ImageEntry:
    """An entry with a pixel size; its own wins."""
    return entry if entry.pixel_size else replace(entry, mpp=mpp, gsd=gsd)
