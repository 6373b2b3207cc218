"""STAC items as rows of a manifest. Pure.

An item names several files, its assets. Which of them is the image is stated with ``--asset``, or
follows from the roles that the specification knows: the one with the role 'data', else the one with
the role 'visual', else the only one that could be an image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from saccade.jobs.manifests.finding import IMAGE_SUFFIXES
from saccade.jobs.manifests.naming import plain
from saccade.jobs.manifests.places import suffix_of
from saccade.jobs.manifests.rows import Row
from saccade.pipeline.errors import ManifestError

ROLES = ("data", "visual")
"""In the order in which they are asked for."""
RASTER_TYPES = ("image/tiff", "image/png", "image/jpeg", "image/vnd.stac.geotiff", "zarr")
MAX_NAMED = 12

Asset = Mapping[str, Any]


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
    assets = {str(k): a for k, a in item["assets"].items() if isinstance(a, Mapping)}
    asset = _chosen(assets, wanted)
    if not isinstance(asset.get("href"), str):
        raise ManifestError("a STAC item's asset has an 'href'; found none")
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


def _chosen(assets: Mapping[str, Asset], wanted: str | None) -> Asset:
    if wanted is not None:
        if wanted not in assets:
            raise ManifestError(f"asset {wanted!r} expected; found {_listed(assets)}")
        return assets[wanted]
    for meant in _candidates(assets):
        if len(meant) == 1:
            return next(iter(meant.values()))
        if meant:
            raise ManifestError(
                f"one image expected; any of the assets {_listed(meant)} may be meant: choose "
                "with --asset NAME"
            )
    raise ManifestError(f"an asset that is an image expected; found {_listed(assets)}")


def _candidates(assets: Mapping[str, Asset]) -> Iterator[dict[str, Asset]]:
    """Assets that may be meant, the surest first."""
    images = {key: asset for key, asset in assets.items() if _may_be_image(asset)}
    for role in ROLES:
        yield {key: asset for key, asset in images.items() if role in (asset.get("roles") or ())}
    yield {key: asset for key, asset in images.items() if not asset.get("roles")}


def _may_be_image(asset: Asset) -> bool:
    stated = str(asset.get("type") or "")
    if stated:
        return any(kind in stated for kind in RASTER_TYPES)
    return suffix_of(str(asset.get("href", ""))) in IMAGE_SUFFIXES


def _listed(assets: Mapping[str, Asset]) -> str:
    more = f", ... ({len(assets)})" if len(assets) > MAX_NAMED else ""
    return (", ".join(list(assets)[:MAX_NAMED]) or "none") + more
