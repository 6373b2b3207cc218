"""Which area of interest an export of an image is cut along: one that is named, or the run's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from saccade.jobs.exports.options import WHOLE, ExportOptions
from saccade.pipeline.area_files import area_digest, read_area
from saccade.pipeline.errors import StoreError, UsageError
from saccade.pipeline.exports.cut import Cut
from saccade.pipeline.result import Result


@dataclass(frozen=True, slots=True)
class Stated:
    """An area file that somebody named."""

    path: str
    """Of the file."""
    digest: str
    """Of what it held when the run began, or holds now."""


def cut_of(result: Result, stated: Stated | None) -> Cut | None:
    """What of a result lies in an area of interest; None where nothing does.

    Raises:
        StoreError: the area can't be read any more, or the image does not say where it lies.
    """
    assert stated is not None
    try:
        edges = read_area(stated.path, stated.digest).over(
            result.plan.georeference, result.plan.uri
        )
    except UsageError as error:
        raise StoreError(
            f"{error}; or name the area to cut along with --area, and '--area {WHOLE}' exports "
            "whole tiles"
        ) from error
    return Cut.of(result.plan, edges, stated.digest)


def stated_area(result: Result, options: ExportOptions) -> Stated | None:
    """The area that an export of a result is cut along; None where it is not cut.

    Raises:
        UsageError: the area that was named can't be read.
        StoreError: the run had an area, and the result does not say where it lies.
    """
    if not options.is_cut or options.area == WHOLE:
        return None
    if options.area is not None:
        return Stated(options.area, area_digest(options.area))
    if result.plan.area is None:
        return None
    path = _recorded(result.facts)
    if path is None:
        raise StoreError(
            f"{result.plan.name}: the run had an area of interest, and its result does not say in "
            f"which file; name it with --area, or export whole tiles with '--area {WHOLE}'"
        )
    return Stated(path, result.plan.area)


def _recorded(facts: dict[str, Any]) -> str | None:
    """Where the area of a run lay."""
    recipe = facts.get("recipe") or {}
    found = facts.get("area") or (recipe.get("area") or {}).get("file")
    return None if found is None else str(found)
