"""What a recipe may say about selection: the selectors as frozen values.

How a selector chooses is ``selection``'s job; this module only says which there are and what each
one's numbers mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from saccade.pipeline.gain import Calibration

Statistic = Literal["max", "mean", "top"]


class SelectorNode(BaseModel):
    """A selector: frozen, and no key but the known ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class AllTiles(SelectorNode):
    """Every tile."""

    by: Literal["all"] = "all"
    """Names the selector."""


class Foreground(SelectorNode):
    """Tiles in which enough pixels are foreground."""

    by: Literal["foreground"] = "foreground"
    """Names the selector."""
    signal: str = "saliency"
    """'saliency', or the name of one of the previous pass's classes."""
    above: float = Field(0.5, ge=0, le=1)
    """A pixel is foreground when its signal is above this."""
    share: float = Field(0.02, ge=0, le=1)
    """A tile is chosen when at least this share of its pixels is foreground."""


class Scored(SelectorNode):
    """Judges a tile by one number: a statistic of the previous pass's signal inside it."""

    signal: str = "saliency"
    """'saliency' (the model's own, else its strongest class but background), 'margin', 'entropy',
    'doubt' (1 - the model's own confidence; where it gives none, the margin), or the name of one of
    the previous pass's classes."""
    statistic: Statistic = "top"
    """'mean', 'max', or 'top': the mean of the tile's highest 2 % of pixels."""
    within: Selector | None = None
    """Only tiles that this selector chooses are candidates."""


class TopFraction(Scored):
    """The best-scored share of the candidates."""

    by: Literal["top_fraction"] = "top_fraction"
    """Names the selector."""
    fraction: float = Field(ge=0, le=1)
    """Share of the candidates, rounded up to whole tiles."""


class TopK(Scored):
    """The best-scored candidates, a fixed number of them."""

    by: Literal["top_k"] = "top_k"
    """Names the selector."""
    k: int = Field(ge=0)
    """How many."""


class Threshold(Scored):
    """Every candidate whose score reaches a value, within bounds on how many that may be."""

    by: Literal["threshold"] = "threshold"
    """Names the selector."""
    at_least: float = Field(ge=0, le=1)
    """The lowest score that is chosen; with a calibration, the lowest gain."""
    least: float | None = Field(None, ge=0, le=1)
    """Share of the candidates that is chosen in any case, the best first, rounded up."""
    most: float | None = Field(None, ge=0, le=1)
    """Share of the candidates that is never exceeded, the best first, rounded up."""
    calibration: Calibration | None = None
    """A file that says which gain was measured at which score; the gain is then what is judged."""

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Threshold:
        if self.least is not None and self.most is not None and self.least > self.most:
            raise ValueError(
                f"least is a smaller share than most; found least {self.least:g}, most "
                f"{self.most:g}; swap them"
            )
        return self


class Budget(Scored):
    """Candidates in order of gain per cost, until the budget is spent."""

    by: Literal["budget"] = "budget"
    """Names the selector."""
    pixels: float | None = Field(None, ge=0)
    """Pixels of this pass that may be computed, halos not counted."""
    seconds: float | None = Field(None, ge=0)
    """Seconds of the device that may be spent, at the model's speed measured beforehand."""
    share: float | None = Field(None, ge=0, le=1)
    """Share of all the image's tiles that may be visited, rounded up to whole tiles."""
    calibration: Calibration | None = None
    """A file that says which gain was measured at which score; the gain is then what is bought."""

    @model_validator(mode="after")
    def _one_currency(self) -> Budget:
        stated = [one for one in (self.pixels, self.seconds, self.share) if one is not None]
        if len(stated) != 1:
            raise ValueError("a budget states pixels, seconds or share, one of the three")
        return self


class Uncertainty(SelectorNode):
    """The tiles in which the previous pass was least sure."""

    by: Literal["uncertainty"] = "uncertainty"
    """Names the selector."""
    measure: Literal["margin", "entropy", "doubt"] = "margin"
    """1 - (best - second best score); the entropy of the scores in units of its maximum; or
    1 - the model's own confidence, which is the margin where it gives none."""
    statistic: Statistic = "top"
    """As in the other selectors."""
    fraction: float = Field(ge=0, le=1)
    """Share of the candidates, rounded up to whole tiles."""
    within: Selector | None = None
    """Only tiles that this selector chooses are candidates."""


class Proposals(Scored):
    """Every tile in the box around a region that stands out: RAMS-Trans' patch proposals.

    The signal is summed up in the cells of a grid; cells above ``alpha`` times its mean that touch,
    diagonals included, are a region; each region's bounding box, grown to whole tiles, is chosen.
    """

    by: Literal["proposals"] = "proposals"
    """Names the selector."""
    alpha: float = Field(1.0, gt=0)
    """A cell stands out when it is above this many times the mean over the candidates' cells."""
    min_area: float = Field(0.5, ge=0)
    """Regions whose cells have a smaller area than this many whole tiles are left out."""
    cells: int = Field(2, ge=1, le=16)
    """Cells along each side of a tile, at most: the largest number up to this that divides it."""
    statistic: Statistic = "mean"
    """How the signal is summed up inside a cell: 'mean', 'max', or 'top'."""


class When(SelectorNode):
    """A question to the image as a whole."""

    signal: str = "margin"
    """As in the selectors; high where the previous pass was unsure."""
    statistic: Statistic = "mean"
    """How it is summed up inside a tile; the image's number is the mean over the candidates."""
    above: float = Field(ge=0, le=1)
    """Yes when the image's number is above this."""


class Escalate(SelectorNode):
    """One selector for most images, a more generous one where the previous pass was unsure."""

    by: Literal["escalate"] = "escalate"
    """Names the selector."""
    of: Selector
    """Chooses as a rule."""
    to: Selector
    """Chooses instead where ``when`` says yes."""
    when: When
    """Asked once per image."""


class Union(SelectorNode):
    """Tiles that any of several selectors chooses."""

    by: Literal["union"] = "union"
    """Names the selector."""
    of: tuple[Selector, ...] = Field(min_length=1)
    """The selectors."""


class Dilate(SelectorNode):
    """What a selector chooses, and the tiles around it."""

    by: Literal["dilate"] = "dilate"
    """Names the selector."""
    of: Selector
    """The selector."""
    tiles: int = Field(1, ge=1)
    """How far around, in tiles, diagonals included."""


class _Shorthand:
    """A selector that needs no numbers may be written as its bare name: ``select: all``."""

    names = ("all", "foreground")

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [{"enum": list(self.names)}, handler(core)]}


def _spelled_out(value: Any) -> Any:
    return {"by": value} if isinstance(value, str) else value


Selector = Annotated[
    AllTiles
    | Foreground
    | TopFraction
    | TopK
    | Threshold
    | Budget
    | Uncertainty
    | Proposals
    | Escalate
    | Union
    | Dilate,
    Field(discriminator="by"),
    BeforeValidator(_spelled_out),
    _Shorthand(),
]

for _node in (
    Scored,
    TopFraction,
    TopK,
    Threshold,
    Budget,
    Uncertainty,
    Proposals,
    Escalate,
    Union,
    Dilate,
):
    _node.model_rebuild()


def inner(node: Selector) -> Iterator[Selector]:
    """The selectors that a selector is made of, in the order in which they are written."""
    match node:
        case Union():
            yield from node.of
        case Dilate():
            yield node.of
        case Escalate():
            yield from (node.of, node.to)
        case Scored(within=part) | Uncertainty(within=part) if part is not None:
            yield part
