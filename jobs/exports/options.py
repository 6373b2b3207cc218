"""What to export, and how, as a value that can't be wrong."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from saccade.pipeline.errors import UsageError
from saccade.pipeline.exports.geojson import ObjectType

Format = Literal[
    "geojson", "geoparquet", "cog", "stac", "ome-tiff", "ome-zarr-0.4", "csv", "parquet", "png"
]
FORMATS: tuple[Format, ...] = get_args(Format)
Content = Literal["labels", "scores"]
TAKES: Mapping[str, tuple[Format, ...]] = {
    "classes": ("geojson", "geoparquet", "cog", "ome-tiff", "csv", "parquet", "png"),
    "threshold": ("geojson", "geoparquet", "cog", "ome-tiff"),
    "content": ("cog", "ome-tiff"),
    "object_type": ("geojson",),
    "least_px": ("geojson", "geoparquet"),
    "simplify_px": ("geojson", "geoparquet"),
    "longest_px": ("png",),
    "taken": ("stac",),
    "area": ("cog", "geojson", "geoparquet", "stac"),
}
"""Which formats heed an option."""
WHOLE = "none"
"""Instead of an area: whole tiles, as they were computed."""


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What to export and how; None leaves a choice to the format."""

    to: Format
    """The format."""
    classes: tuple[str, ...] = ()
    """That count; all but the background where none are named, in a
    COG all."""
    threshold: float | None = None
    """A pixel is of a class only where its score is at least this; None takes the run's labels."""
    content: Content | None = None
    """What a TIFF holds; labels by default."""
    object_type: ObjectType | None = None
    """What regions are for QuPath; annotations by default. An image that lies on Earth is told in
    longitude and latitude unless this is given."""
    least_px: int | None = None
    """Regions of fewer pixels of the result are left out; 1 by default."""
    simplify_px: float | None = None
    """Outlines are simplified: a corner that goes is no farther from what replaces it, in pixels
    of the result; None keeps all."""
    longest_px: int | None = None
    """Longer side of the image in a picture; 2048 by default."""
    taken: datetime | None = None
    """When the image was taken, for STAC; with its zone."""
    area: str | None = None
    """File of polygons to cut along, ``WHOLE`` for nothing; by default the run's area, if any."""

    def __post_init__(self) -> None:
        if self.to not in FORMATS:
            near = difflib.get_close_matches(self.to, FORMATS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UsageError(f"no format {self.to!r}; {hint}there are: {', '.join(FORMATS)}")
        self._check_word("content", self.content, get_args(Content))
        self._check_word("objects", self.object_type, get_args(ObjectType))
        for name, formats in TAKES.items():
            if getattr(self, name) not in (None, ()) and self.to not in formats:
                raise UsageError(
                    f"{name}: heeded by {', '.join(formats)}; {self.to} does not take it, leave it "
                    "out"
                )
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise UsageError(f"threshold: a score from 0 to 1 expected; found {self.threshold:g}")

    @property
    def is_cut(self) -> bool:
        """Whether the format can be cut along an area."""
        return self.to in TAKES["area"]

    @staticmethod
    def _check_word(option: str, word: str | None, known: tuple[str, ...]) -> None:
        if word is not None and word not in known:
            raise UsageError(f"{option}: one of {', '.join(known)} expected; found {word!r}")
