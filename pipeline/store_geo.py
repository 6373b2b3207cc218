"""Where a result's arrays lie on the ground, as Zarr conventions say it: plain attributes.

``spatial`` holds the affine of every array, ``proj`` the CRS, ``multiscales`` the pyramid; see
https://github.com/zarr-conventions. Beside OME's metadata, which stays in physical units of the
image: OME's own ``multiscales`` lies under ``ome``. Of an image without an affine nothing is said.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from saccade.pipeline.geometry import Shape
from saccade.pipeline.georeference import Affine, Crs
from saccade.pipeline.image_plan import ImagePlan
from saccade.pipeline.store_layout import LABELS, ArraySpec, labels_path, scores_path

PLACE = "https://raw.githubusercontent.com/zarr-conventions"
PAGE = "https://github.com/zarr-conventions"


def _convention(uuid: str, name: str, folder: str, description: str) -> dict[str, str]:
    return {
        "uuid": uuid,
        "name": name,
        "schema_url": f"{PLACE}/{folder}/refs/tags/v1/schema.json",
        "spec_url": f"{PAGE}/{folder}/blob/v1/README.md",
        "description": description,
    }


MULTISCALES = _convention(
    "d35379db-88df-4056-af3a-620245f8e347",
    "multiscales",
    "multiscales",
    "Multiscale layout of zarr datasets",
)
SPATIAL = _convention(
    "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "spatial:", "spatial", "Spatial coordinate information"
)
PROJ = _convention(
    "f17cb550-5864-4468-aeb7-f3180cfb622f",
    "proj:",
    "proj",
    "Coordinate reference system information for geospatial data",
)


def array_place(plan: ImagePlan, spec: ArraySpec) -> dict[str, Any]:
    """Attributes of one array; none where nobody knows where the image lies."""
    affine = _affine(plan, spec.downsample)
    if affine is None:
        return {}
    shape = (spec.shape[-2], spec.shape[-1])
    return {"zarr_conventions": _conventions(plan), **_spatial(affine, shape), **_proj(plan)}


def scores_place(plan: ImagePlan) -> dict[str, Any]:
    """Attributes of the group of the fused scores, with its pyramid."""
    return _pyramid_place(plan, [scores_path(level) for level in _levels(plan)], "average")


def labels_place(plan: ImagePlan) -> dict[str, Any]:
    """Attributes of the group of the labels, with its pyramid."""
    paths = [labels_path(level).removeprefix(f"{LABELS}/") for level in _levels(plan)]
    return _pyramid_place(plan, paths, "mode")


def _levels(plan: ImagePlan) -> range:
    return range(len(plan.pyramid_shapes))


def _pyramid_place(plan: ImagePlan, paths: list[str], method: str) -> dict[str, Any]:
    affine = _affine(plan, plan.last.score_downsample)
    if affine is None:
        return {}
    layout = [_level(affine, plan, level, path, method) for level, path in enumerate(paths)]
    for above, below in zip(paths, layout[1:], strict=False):
        below["derived_from"] = above
    return {
        "zarr_conventions": [MULTISCALES, *_conventions(plan)],
        "multiscales": {"layout": layout, "resampling_method": method},
        **_spatial(affine, plan.shape),
        **_proj(plan),
    }


def _level(affine: Affine, plan: ImagePlan, level: int, path: str, method: str) -> dict[str, Any]:
    """One level; its transform leads from places of its pixels' centres to those of the above."""
    scale, shift = (1.0, 0.0) if level == 0 else (2.0, 0.5)
    spatial = _spatial(affine.scaled(2**level, 2**level), plan.pyramid_shapes[level])
    return {
        "asset": path,
        "transform": {"scale": [scale, scale], "translation": [shift, shift]},
        "resampling_method": method,
        "spatial:shape": spatial["spatial:shape"],
        "spatial:transform": spatial["spatial:transform"],
    }


def _affine(plan: ImagePlan, downsample: float) -> Affine | None:
    place = plan.georeference
    return None if place is None else place.at(downsample).affine


def _conventions(plan: ImagePlan) -> list[dict[str, str]]:
    return [SPATIAL, PROJ] if _proj(plan) else [SPATIAL]


def _spatial(affine: Affine, shape: Shape) -> dict[str, Any]:
    height, width = shape
    corners = affine.place(np.array([[0, 0], [width, 0], [0, height], [width, height]]))
    return {
        "spatial:dimensions": ["y", "x"],
        "spatial:shape": list(shape),
        "spatial:transform_type": "affine",
        "spatial:transform": list(affine.to_tuple()),
        "spatial:registration": "pixel",
        "spatial:bbox": [*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()],
    }


def _proj(plan: ImagePlan) -> dict[str, str]:
    crs: Crs | None = plan.georeference.crs if plan.georeference else None
    if crs is None:
        return {}
    return {"proj:code": str(crs)} if crs.epsg is not None else {"proj:wkt2": str(crs.wkt)}
