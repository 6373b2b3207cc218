"""The frozen facts of one image in a run: what it is, and how every pass lies over it.

Written once, before any unit of the image runs; everything later (workers, readers of the result,
pictures, reports) takes its geometry from here and never from the recipe again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from saccade.pipeline.band_statistics import BandStatistics
from saccade.pipeline.geometry import Box, Grid, Shape
from saccade.pipeline.georeference import Georeference
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.recipe import Fuse, ScoreType
from saccade.pipeline.sources.base import Identity, PixelSize

SCHEMA_VERSION = 1
LABEL_UNKNOWN = 255
"""Label of a pixel that no pass has answered."""
LABEL_NODATA = 254
"""Label of a pixel where the image has no data; classes have labels below it."""
COVERAGE_NONE = 0
"""Coverage of a tile that no pass has answered yet; pass ``k`` is written as ``k + 1``."""
COVERAGE_NODATA = 254
"""Coverage of a tile in which the image has no data."""
COVERAGE_FAILED = 255
"""Coverage of a tile that no pass could read."""
STATUS_NONE, STATUS_DONE, STATUS_DEGRADED, STATUS_NODATA, STATUS_FAILED = 0, 1, 2, 254, 255
"""Per pass and tile: not visited; answered; answered, but part of what the model saw could not be
read; visited, and there is no data in all of it; could not be read."""


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """One image, resolved against a recipe."""

    name: str
    """Names the image in the run."""
    uri: str
    """Where its pixels are."""
    identity: Identity
    """What tells it from another image."""
    format: str
    """Of the source."""
    level_shapes: tuple[Shape, ...]
    """Of the source's own pyramid, finest first."""
    pixel_size: PixelSize | None
    """Of level 0, stated or overridden."""
    passes: tuple[PassLayout, ...]
    """In the recipe's order; the last one's resolution is the result's."""
    classes: tuple[str, ...]
    """Of the fused result."""
    fuse: Fuse
    """How a finer answer meets the coarser one."""
    scores: ScoreType
    """Type of stored scores."""
    keep: tuple[str, ...]
    """Passes whose arrays stay once the image is complete."""
    label_threshold: float
    """A single class is labelled where its score is at least this."""
    mask: Identity | None = None
    """What tells the mask that the image is looked at through; None where there is none."""
    area: str | None = None
    """Digest of the area of interest, beyond which no pass looks; None where there is none."""
    georeference: Georeference | None = None
    """Where the pixels of level 0 lie on the ground; None where nobody says."""
    statistics: tuple[BandStatistics, ...] | None = None
    """Of every band, over the valid pixels of the glance; None where nothing depends on them."""

    @property
    def last(self) -> PassLayout:
        """The pass whose resolution, tiles and shards the fused result has."""
        return self.passes[-1]

    @property
    def shape(self) -> Shape:
        """Height and width of the fused result."""
        return self.last.score_shape

    @property
    def pyramid_shapes(self) -> tuple[Shape, ...]:
        """Heights and widths of the fused result's levels, each half of the one before."""
        shapes = [self.shape]
        while max(shapes[-1]) > self.last.chunk_px:
            shapes.append((-(-shapes[-1][0] // 2), -(-shapes[-1][1] // 2)))
        return tuple(shapes)

    @property
    def levels_in_unit(self) -> int:
        """Levels that a unit of the last pass writes on its own, level 0 among them.

        A shard of level ``k`` is ``2**k`` times smaller, as long as it holds whole chunks: it holds
        what one unit answers for, so the unit owns it too.
        """
        return min(self._halvings + 1, len(self.pyramid_shapes))

    @property
    def _halvings(self) -> int:
        """How often a shard can be halved into whole chunks."""
        chunks = self.last.shard_px // self.last.chunk_px
        return (chunks & -chunks).bit_length() - 1

    def shard_px(self, level: int) -> int:
        """Side of a shard of one level of the result."""
        return self.last.shard_px >> min(level, self._halvings)

    def pixel_size_of(self, downsample: float) -> PixelSize | None:
        """Physical pixel size at a downsample of level 0."""
        return self.pixel_size.times(downsample) if self.pixel_size else None

    def coverage_box(self, region: Box) -> Box:
        """The tiles of the last pass (rows, columns) in a region of the fused result."""
        return self.tiles.cells_touching(region.scale(self.last.stride))

    @property
    def tiles(self) -> Grid:
        """The grid that ``coverage`` and ``status`` count on: the last pass's tiles."""
        return self.last.tiles

    def to_json(self) -> str:
        """As written to ``image.json``."""
        tree = asdict(self) | {"passes": [layout.to_dict() for layout in self.passes]}
        return json.dumps({"schema": SCHEMA_VERSION, **tree}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> ImagePlan:
        """The inverse of ``to_json``."""
        tree: dict[str, Any] = json.loads(text)
        del tree["schema"]
        place, bands = tree.get("georeference"), tree.get("statistics")
        return cls(
            **tree
            | {
                "identity": Identity(**tree["identity"]),
                "mask": Identity(**tree["mask"]) if tree.get("mask") else None,
                "pixel_size": PixelSize(**tree["pixel_size"]) if tree["pixel_size"] else None,
                "georeference": Georeference.from_dict(place) if place else None,
                "statistics": tuple(map(BandStatistics.from_dict, bands)) if bands else None,
                "passes": tuple(map(PassLayout.from_dict, tree["passes"])),
                "level_shapes": tuple(map(tuple, tree["level_shapes"])),
                "classes": tuple(tree["classes"]),
                "keep": tuple(tree["keep"]),
            }
        )
