"""STAC items as rows of a manifest. Pure.

Which of an item's assets is the image is stated with ``--asset``, or follows from their roles.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saccade.jobs.manifests.finding import IMAGE_SUFFIXES
from saccade.jobs.manifests.naming import plain
from saccade.jobs.manifests.rows import Row
from saccade.pipeline.errors import ManifestError
from saccade.pipeline.stac_assets import chosen_asset


def is_item(row: Row) -> bool:
    """Whether a row is a STAC item and no row of columns."""
    return "image" not in row and isinstance(row.get("assets"), Mapping)


def row_of_item(item: Row, wanted: str | None) -> dict[str, Any]:
    """The columns of a manifest that an item stands for.

    Args:
        item: as its JSON says.
        wanted: the key of the asset that is the image; None to go by roles.

    Raises:
        ManifestError: no asset or more than one may be meant.
    """
    try:
        asset = chosen_asset(item, wanted, IMAGE_SUFFIXES)
    except ValueError as error:
        raise ManifestError(str(error)) from error
    row: dict[str, Any] = {"image": asset["href"]}
    if item.get("id"):
        row["name"] = plain(str(item["id"]))
    if asset.get("gsd") is not None:  # an item's own is that of its finest instrument
        row["gsd"] = asset["gsd"]
    return row | _sides(asset) | _sides(item.get("properties"))


def _sides(facts: Any) -> dict[str, Any]:
    shape = facts.get("proj:shape") if isinstance(facts, Mapping) else None
    if not isinstance(shape, list) or len(shape) != 2:
        return {}
    return {"height": shape[0], "width": shape[1]}
