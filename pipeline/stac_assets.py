"""Which of a STAC item's files is the image, and when it was taken. Pure.

An item names several files, its assets. Which of them is meant is stated by key, or follows from
the roles that the specification knows: the one with the role 'data', else the one with the role
'visual', else the only one that could be an image.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from saccade.pipeline.remote_stores import file_name, is_remote

ROLES = ("data", "visual")
"""In the order in which they are asked for."""
RASTER_TYPES = ("image/tiff", "image/png", "image/jpeg", "image/vnd.stac.geotiff", "zarr")
MAX_NAMED = 12

Asset = Mapping[str, Any]


def chosen_asset(item: Mapping[str, Any], wanted: str | None, suffixes: Collection[str]) -> Asset:
    """The asset of an item that is the image.

    Args:
        item: as its JSON says.
        wanted: key of the asset; None to go by roles.
        suffixes: of files that can be images, in small letters, for assets that state no type.

    Raises:
        ValueError: no asset or more than one may be meant, or it names no file.
    """
    assets = {str(k): a for k, a in item["assets"].items() if isinstance(a, Mapping)}
    asset = _chosen(assets, wanted, suffixes)
    if not isinstance(asset.get("href"), str):
        raise ValueError("a STAC item's asset has an 'href'; found none")
    return asset


def date_of(item: Mapping[str, Any]) -> str:
    """When an item was taken, as it says; of a span its beginning; empty where it does not say."""
    facts = item.get("properties")
    facts = facts if isinstance(facts, Mapping) else {}
    return str(facts.get("datetime") or facts.get("start_datetime") or "")


def _chosen(assets: Mapping[str, Asset], wanted: str | None, suffixes: Collection[str]) -> Asset:
    if wanted is not None:
        if wanted not in assets:
            raise ValueError(f"asset {wanted!r} expected; found {_listed(assets)}")
        return assets[wanted]
    for meant in _candidates(assets, suffixes):
        if len(meant) == 1:
            return next(iter(meant.values()))
        if meant:
            raise ValueError(
                f"one image expected; any of the assets {_listed(meant)} may be meant: choose "
                "with --asset NAME"
            )
    raise ValueError(f"an asset that is an image expected; found {_listed(assets)}")


def _candidates(
    assets: Mapping[str, Asset], suffixes: Collection[str]
) -> Iterator[dict[str, Asset]]:
    """Assets that may be meant, the surest first."""
    images = {key: asset for key, asset in assets.items() if _may_be_image(asset, suffixes)}
    for role in ROLES:
        yield {key: asset for key, asset in images.items() if role in (asset.get("roles") or ())}
    yield {key: asset for key, asset in images.items() if not asset.get("roles")}


def _may_be_image(asset: Asset, suffixes: Collection[str]) -> bool:
    stated = str(asset.get("type") or "")
    if stated:
        return any(kind in stated for kind in RASTER_TYPES)
    href = str(asset.get("href", ""))
    return PurePosixPath(file_name(href) if is_remote(href) else href).suffix.lower() in suffixes


def _listed(assets: Mapping[str, Asset]) -> str:
    more = f", ... ({len(assets)})" if len(assets) > MAX_NAMED else ""
    return (", ".join(list(assets)[:MAX_NAMED]) or "none") + more
