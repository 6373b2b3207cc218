"""How much memory a forward pass needs: projected by a line, learned from probes. Pure.

Four words are used everywhere, here, in messages and in reports: *allowed* is the most that may be
held, *reserved* what is held before a pass computes, *projected* what computing is expected to add,
and *measured* what it did add. Knows no device, no model and no file.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import Any

from saccade.pipeline.geometry import Shape
from saccade.workers.memory_size import format_nbytes

SCHEMA = 1
MARGIN = 0.1
"""What a projection may be wrong by, as a share of itself, beyond what its probes showed."""
CPU_MARGIN = 0.5
"""The same for resident memory: what a C library's heap keeps between tensors comes on top."""
FEWEST_PROBES = 3


@dataclass(frozen=True, slots=True)
class MemoryKey:
    """What a memory model holds for; change one and it has to be measured again."""

    model_hash: str
    """Of the model and its weights."""
    dtype: str
    """Of the arithmetic: 'float32', 'bfloat16'..."""
    layout: str
    """Of tensors in memory: 'channels_last' or 'contiguous'; with ', fused' where layers are."""
    device: str
    """Kind of device, with its name where there are several kinds."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One forward pass and the memory that it took."""

    batch: int
    """Windows at once."""
    shape: Shape
    """Height and width of a window, in input pixels."""
    measured_nbytes: int
    """Most bytes held at once on top of what was held before."""

    def __post_init__(self) -> None:
        if min(self.batch, *self.shape) < 1 or self.measured_nbytes < 0:
            raise ValueError(f"a probe has pixels, and bytes of 0 or more; found {self}")

    @property
    def pixels(self) -> int:
        """Input pixels of the whole batch."""
        return pixels_of(self.batch, self.shape)


@dataclass(frozen=True, slots=True)
class Budget:
    """What one worker may hold on one device."""

    allowed_nbytes: int
    """The most that may be held."""
    reserved_nbytes: int = 0
    """What is held before any pass computes: weights, the interpreter, lanes."""

    def __post_init__(self) -> None:
        if min(self.allowed_nbytes, self.reserved_nbytes) < 0:
            raise ValueError(f"allowed and reserved are 0 bytes or more; found {self}")

    @property
    def free_nbytes(self) -> int:
        """What is left for computing, 0 or more."""
        return max(0, self.allowed_nbytes - self.reserved_nbytes)

    def reserving(self, nbytes: int) -> Budget:
        """This budget with so many more bytes held before computing."""
        return replace(self, reserved_nbytes=self.reserved_nbytes + nbytes)

    def shared_by(self, workers: int) -> Budget:
        """One worker's part, where each reserves as much as this one."""
        return replace(self, allowed_nbytes=self.allowed_nbytes // workers)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it; kept with the run."""
        return asdict(self)

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Budget:
        """The inverse of ``to_dict``."""
        return cls(tree["allowed_nbytes"], tree["reserved_nbytes"])

    def __str__(self) -> str:
        return (
            f"allowed {format_nbytes(self.allowed_nbytes)}, "
            f"reserved {format_nbytes(self.reserved_nbytes)}"
        )


@dataclass(frozen=True, slots=True)
class MemoryModel:
    """Peak memory of one forward pass: ``base + k * batch * height * width``, and a margin."""

    key: MemoryKey
    """What it holds for."""
    base_nbytes: int
    """Held whatever the input's size, 0 or more."""
    nbytes_per_px: float
    """Held per input pixel of the batch, 0 or more."""
    residual_nbytes: int = 0
    """The most by which a probe and its projection differed."""
    margin: float = MARGIN
    """Share of the projection that is kept free besides, 0 or more."""
    probes: tuple[Probe, ...] = ()
    """What it was fitted to."""

    def __post_init__(self) -> None:
        numbers = (self.base_nbytes, self.nbytes_per_px, self.residual_nbytes, self.margin)
        if not all(math.isfinite(n) and n >= 0 for n in numbers):
            raise ValueError(f"bytes and margin of a memory model are 0 or more; found {self}")

    @classmethod
    def fit(
        cls, key: MemoryKey, probes: Sequence[Probe], margin: float | None = None
    ) -> MemoryModel:
        """The line through three or more probes: least squares, no coefficient below 0.

        Args:
            key: what they were measured on.
            probes: three or more, of at least two sizes.
            margin: None takes what suits the kind of device.

        Raises:
            ValueError: fewer than three probes, or all of one size.
        """
        if len(probes) < FEWEST_PROBES or len({p.pixels for p in probes}) < 2:
            raise ValueError(
                f"{FEWEST_PROBES} probes of at least two sizes expected; found {list(probes)}"
            )
        base, slope = _line([p.pixels for p in probes], [p.measured_nbytes for p in probes])
        kept = margin_for(key.device) if margin is None else margin
        line = cls(key, math.ceil(base), float(slope), margin=kept, probes=tuple(probes))
        off = max(abs(p.measured_nbytes - line.predict(p.batch, p.shape)) for p in probes)
        return replace(line, residual_nbytes=off)

    def predict(self, batch: int, shape: Shape) -> int:
        """Projected bytes of one forward pass, without any margin."""
        return self.base_nbytes + math.ceil(self.nbytes_per_px * pixels_of(batch, shape))

    def safe(self, batch: int, shape: Shape) -> int:
        """Projected bytes, the margin, and what the probes were off by: what must be free."""
        projected = self.predict(batch, shape)
        return projected + math.ceil(projected * self.margin) + self.residual_nbytes

    def fits(self, budget: Budget, batch: int, shape: Shape) -> bool:
        """Whether a forward pass of this size may be tried."""
        return self.safe(batch, shape) <= budget.free_nbytes

    def with_more(self, nbytes_per_px: float) -> MemoryModel:
        """The same, with so many more bytes held per input pixel."""
        return replace(self, nbytes_per_px=self.nbytes_per_px + nbytes_per_px)

    def most_px(self, budget: Budget) -> int:
        """Input pixels of the largest forward pass that fits; 0 where none does."""
        room = budget.free_nbytes - self.residual_nbytes
        projected = math.floor(Fraction(room) / (1 + Fraction(self.margin)))
        if room < 0 or projected < self.base_nbytes:
            return 0
        if not self.nbytes_per_px:
            return sys.maxsize
        most = int(Fraction(projected - self.base_nbytes) / Fraction(self.nbytes_per_px))
        return min(most, sys.maxsize)

    def taught_by(self, budget: Budget, batch: int, shape: Shape) -> MemoryModel:
        """What is known after this size ran out of memory: it needs more than there was.

        Projections only ever rise, and this size no longer fits the budget.
        """
        more_than_free = budget.free_nbytes + 1
        slope = (more_than_free - self.base_nbytes) / pixels_of(batch, shape)
        return replace(self, nbytes_per_px=max(self.nbytes_per_px, slope))

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it; kept with the run."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> MemoryModel:
        """The inverse of ``to_dict``, through JSON as well.

        Raises:
            ValueError: written by another version.
        """
        fields = dict(tree)
        if (schema := fields.pop("schema", None)) != SCHEMA:
            raise ValueError(
                f"memory model: schema {SCHEMA} expected, found {schema!r}; remove the file and "
                "it is measured again"
            )
        probes = tuple(
            Probe(p["batch"], (p["shape"][0], p["shape"][1]), p["measured_nbytes"])
            for p in fields["probes"]
        )
        return cls(**{**fields, "key": MemoryKey(**fields["key"]), "probes": probes})


@dataclass(frozen=True, slots=True)
class Account:
    """The four words for one pass on one device, as receipts and reports carry them."""

    allowed_nbytes: int
    """The most that may be held."""
    reserved_nbytes: int
    """Held before computing."""
    projected_nbytes: int
    """Expected on top of it, without margin."""
    measured_nbytes: int | None = None
    """What came on top of it; None before it has run."""

    @classmethod
    def of(cls, budget: Budget, projected_nbytes: int) -> Account:
        """Before it runs."""
        return cls(budget.allowed_nbytes, budget.reserved_nbytes, projected_nbytes)

    @property
    def error(self) -> float | None:
        """Projected over measured, less 1: -0.05 is five per cent too low."""
        if not self.measured_nbytes:
            return None
        return self.projected_nbytes / self.measured_nbytes - 1

    def __str__(self) -> str:
        held = f"{Budget(self.allowed_nbytes, self.reserved_nbytes)}, "
        measured = self.measured_nbytes
        tail = "" if measured is None else f", measured {format_nbytes(measured)}"
        return f"{held}projected {format_nbytes(self.projected_nbytes)}{tail}"

    def to_dict(self) -> dict[str, int | None]:
        """As receipts hold it."""
        return asdict(self)


def margin_for(device: str) -> float:
    """The margin that suits a kind of device: one with an allocator of its own needs little."""
    return CPU_MARGIN if device.split(":")[0] == "cpu" else MARGIN


def pixels_of(batch: int, shape: Shape) -> int:
    """Input pixels of a batch."""
    return batch * shape[0] * shape[1]


def _line(x: Sequence[int], y: Sequence[int]) -> tuple[Fraction, Fraction]:
    """Intercept and slope, neither below 0, of least squares.

    Exact in fractions: a line through the points is found to the byte. Where the free optimum has
    a coefficient below 0, the constrained one has that coefficient at 0, because the sum of squares
    is convex and both can't be below 0 with values that are not.
    """
    n, sum_x, sum_y = len(x), sum(x), sum(y)
    sum_xy, sum_xx = sum(a * b for a, b in zip(x, y, strict=True)), sum(a * a for a in x)
    slope = Fraction(n * sum_xy - sum_x * sum_y, n * sum_xx - sum_x**2)
    base = (sum_y - slope * sum_x) / n
    if slope < 0:
        return Fraction(sum_y, n), Fraction(0)
    if base < 0:
        return Fraction(0), Fraction(sum_xy, sum_xx)
    return base, slope
