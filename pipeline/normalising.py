"""What a recipe may say about samples before a model: the normalisations as frozen values.

How they become numbers for one image is ``inputs``' job; measuring is ``band_statistics``'.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from saccade.pipeline.selectors import SelectorNode

Values = Annotated[tuple[float, ...], Field(min_length=1)]
"""One for every band, or one for all."""


class ByPercentiles(SelectorNode):
    """Between two percentiles of the band's valid pixels: they become 0 and 1, the rest is cut."""

    by: Literal["percentiles"] = "percentiles"
    """Names the normalisation."""
    low: float = Field(2.0, ge=0, le=100)
    """Percentile that becomes 0."""
    high: float = Field(98.0, ge=0, le=100)
    """Percentile that becomes 1."""

    @model_validator(mode="after")
    def _ordered(self) -> ByPercentiles:
        if self.low >= self.high:
            raise ValueError(f"low is below high; found {self.low:g} and {self.high:g}")
        return self


class ByDeviation(SelectorNode):
    """Less the mean of the band's valid pixels, divided by their standard deviation."""

    by: Literal["standard"] = "standard"
    """Names the normalisation."""


class Fixed(SelectorNode):
    """By stated samples: ``low`` and ``high`` become 0 and 1, or ``mean`` and ``std`` 0 and 1."""

    by: Literal["fixed"] = "fixed"
    """Names the normalisation."""
    low: Values | None = None
    """Samples that become 0; what lies below is cut."""
    high: Values | None = None
    """Samples that become 1; what lies above is cut."""
    mean: Values | None = None
    """Samples that become 0."""
    std: Values | None = None
    """Samples from there that make 1."""

    @model_validator(mode="after")
    def _one_pair(self) -> Fixed:
        stated = [k for k in ("low", "high", "mean", "std") if getattr(self, k) is not None]
        if stated not in (["low", "high"], ["mean", "std"]):
            found = ", ".join(stated) or "none of them"
            raise ValueError(f"low and high, or mean and std expected; found {found}")
        low, high = self.pair
        if len({len(low), len(high)} - {1}) > 1:
            raise ValueError(
                f"one value, or one per band, on both sides expected; found {len(low)} and "
                f"{len(high)}"
            )
        return self

    @model_validator(mode="after")
    def _above_nothing(self) -> Fixed:
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"std is positive; found {self.std}")
        if self.low is not None and self.high is not None:
            count = max(len(self.low), len(self.high))
            pairs = zip(spread(self.low, count), spread(self.high, count), strict=True)
            if any(low >= high for low, high in pairs):
                raise ValueError(f"low is below high; found {self.low} and {self.high}")
        return self

    @property
    def pair(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Low and high, or mean and std."""
        return (self.low or self.mean or (), self.high or self.std or ())


Normalise = Annotated[ByPercentiles | ByDeviation | Fixed, Field(discriminator="by")]
Nodata = Literal["fill", "keep"]


def spread(values: tuple[float, ...], count: int) -> tuple[float, ...]:
    """One value per band: those stated, or the only one for all."""
    return values * count if len(values) == 1 else values


def standardises(normalise: Any) -> bool:
    """Whether what comes out has mean 0 and deviation 1, so that a model's own are not applied."""
    return isinstance(normalise, ByDeviation) or (
        isinstance(normalise, Fixed) and normalise.mean is not None
    )
