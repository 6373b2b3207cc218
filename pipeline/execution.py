"""How a pass computes: which settings are worth trying, and which of those tried is best. Pure.

A setting decides last bits, so it is part of a pass's layout and frozen with it. What is measured,
on what and with which clock is the caller's business; of a device only its kind is known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, get_args

from saccade.pipeline.capacity import Capacity
from saccade.pipeline.layout import PassLayout, batch_for
from saccade.pipeline.models.base import Arithmetic, ModelForm
from saccade.pipeline.recipe import PassRecipe, Tolerance

PRECISIONS: Mapping[str, tuple[Arithmetic, ...]] = {
    # No kernel of float16 for a CPU is fast: a single window would cost the whole calibration.
    "cpu": ("float32", "bfloat16"),
    "cuda": ("float32", "bfloat16", "float16"),
}
"""Arithmetics tried on a kind of device, the reference first."""
WINDOW_MOST_PX = {"cpu": 1024, "cuda": 2048}
"""Longest side of a window tried on a kind of device."""
BATCH_MOST_PX = {"cpu": 0, "cuda": 64 * 512 * 512}
"""Pixels of the largest batch tried on a kind of device; 0 leaves the batch to the window."""
WORTHWHILE = 0.05
"""A setting further down the list must be faster by this share; less is noise."""


@dataclass(frozen=True, slots=True)
class ExecutionSetting:
    """How the windows of one pass are computed."""

    precision: Arithmetic
    """Arithmetic of the model; scores are float32 in any case."""
    channels_last: bool
    """Whether weights lie in memory with their channels last, as pixels do; else as loaded."""
    window_px: int
    """Longest side of a window without halo, whole tiles; 0 means the whole pass at once."""
    batch: int
    """Windows per forward pass."""
    fused: bool = False
    """Whether convolutions take in the normalisation and the ReLU that follow them."""
    graphed: bool = False
    """Whether a full batch is replayed from a graph of the device."""

    def __post_init__(self) -> None:
        if self.precision not in get_args(Arithmetic) or self.window_px < 0 or self.batch < 1:
            raise ValueError(
                f"precision of {get_args(Arithmetic)}, window_px >= 0, batch >= 1 expected; "
                f"found {self}"
            )

    @classmethod
    def of(cls, layout: PassLayout) -> ExecutionSetting:
        """The setting that a layout has."""
        window_px = layout.window_tiles * layout.tile_px
        sizes = (window_px, layout.batch)
        return cls(layout.precision, layout.channels_last, *sizes, layout.fused, layout.graphed)

    @property
    def form(self) -> ModelForm:
        """In what form the model computes."""
        return ModelForm(self.precision, self.channels_last, self.fused)

    def applied_to(self, layout: PassLayout) -> PassLayout:
        """A layout with this setting instead of its own."""
        return replace(
            layout,
            precision=self.precision,
            channels_last=self.channels_last,
            window_tiles=self.window_px // layout.tile_px,
            batch=self.batch,
            fused=self.fused,
            graphed=self.graphed,
        )

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> ExecutionSetting:
        """The inverse of ``dataclasses.asdict``.

        Raises:
            ValueError: it says more or less than a setting does, as another version's may.
        """
        names = {one.name for one in fields(cls)}
        if set(tree) != names:
            raise ValueError(f"a setting of {sorted(names)} expected; found {sorted(tree)}")
        return cls(**tree)


@dataclass(frozen=True, slots=True)
class Trial:
    """What was measured of one setting, against float32 on the same pixels."""

    setting: ExecutionSetting
    """What was tried."""
    seconds_per_megapixel: float
    """Of pixels answered for, so that halos cost; 0 where it failed."""
    mean_error: float
    """Mean absolute difference of scores, in [0, 1]; a score that is not finite counts as 1."""
    label_agreement: float
    """Share of pixels with the same label."""
    peak_nbytes: int | None = None
    """Most memory of the device held, where it can be told."""
    failure: str = ""
    """Why it can't be used; empty where it can."""

    @classmethod
    def failed(cls, setting: ExecutionSetting, failure: str) -> Trial:
        """Of a setting that the model or the device refuses."""
        return cls(setting, 0.0, 1.0, 0.0, None, failure or "no reason given")

    def within(self, tolerance: Tolerance) -> bool:
        """Whether its answers are close enough to the reference."""
        close = self.mean_error <= tolerance.mean and self.label_agreement >= tolerance.labels
        return close and not self.failure

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Trial:
        """The inverse of ``dataclasses.asdict``."""
        return cls(**{**tree, "setting": ExecutionSetting.from_dict(tree["setting"])})


def choose(
    trials: Sequence[Trial], tolerance: Tolerance, *, worthwhile: float = WORTHWHILE
) -> Trial:
    """The fastest trial within the tolerance; the first of those that are about as fast.

    Args:
        trials: the reference first; it qualifies whatever the tolerance.
        tolerance: what may differ from the reference.
        worthwhile: a trial is about as fast as the fastest if it takes at most this share longer.
    """
    fit = [trials[0], *(trial for trial in trials[1:] if trial.within(tolerance))]
    limit = min(trial.seconds_per_megapixel for trial in fit) * (1 + worthwhile)
    return next(trial for trial in fit if trial.seconds_per_megapixel <= limit)


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """The settings that one pass may get, tried one property at a time."""

    reference: ExecutionSetting
    """float32 with the sizes that a pinned precision would have."""
    precisions: tuple[Arithmetic, ...]
    """Arithmetics, the reference's first."""
    windows: tuple[tuple[int, int], ...]
    """Sides in pixels, each with the batch that goes with it; ascending."""
    batches: tuple[int, ...]
    """Windows per forward pass, ascending; empty where the batch follows from the window."""
    halo_px: int
    """Context around every window."""
    batch_most_px: int
    """Pixels of the largest batch."""
    graphs: bool = False
    """Whether graphs of the device are tried, last of all."""

    @classmethod
    def of(
        cls, layout: PassLayout, recipe: PassRecipe, kind: str, capacity: Capacity
    ) -> SearchSpace:
        """What a recipe leaves open of a pass.

        Args:
            layout: of the pass, as a pinned float32 would have it.
            recipe: of the pass; a stated 'window' or 'batch' is kept.
            kind: of device, 'cpu' or 'cuda'.
            capacity: of the device; nothing larger than what fits it is tried.
        """
        reference = replace(ExecutionSetting.of(layout), precision="float32", channels_last=False)
        searched = recipe.batch == "auto" and layout.window_tiles > 0
        # a power of two, so that a few bytes more or less of memory are not another search
        fits_px = 1 << max(0, capacity.most_px.bit_length() - 1)
        most = min(BATCH_MOST_PX[kind], fits_px) if searched else 0
        return cls(
            reference=reference,
            precisions=PRECISIONS[kind],
            windows=tuple(_windows(layout, recipe, kind, capacity)),
            batches=tuple(2**k for k in range(9)) if most else (),
            halo_px=layout.halo_px,
            batch_most_px=most,
            # A pass that goes through the model at once has no second batch to replay.
            graphs=kind == "cuda" and layout.window_tiles > 0,
        )

    @property
    def largest_window_px(self) -> int:
        """Longest side of any window tried; 0 for a whole pass."""
        return max((side for side, _ in self.windows), default=self.reference.window_px)

    def stages(self) -> tuple[Callable[[ExecutionSetting], Iterator[ExecutionSetting]], ...]:
        """One property each: from the best setting so far to those that differ from it there."""
        return (
            self._with_precisions,
            self._with_memory,
            self._with_fusing,
            self._with_windows,
            self._with_batches,
            self._with_graphs,
        )

    def _with_precisions(self, best: ExecutionSetting) -> Iterator[ExecutionSetting]:
        return (replace(best, precision=precision) for precision in self.precisions)

    def _with_memory(self, best: ExecutionSetting) -> Iterator[ExecutionSetting]:
        yield replace(best, channels_last=True)

    def _with_fusing(self, best: ExecutionSetting) -> Iterator[ExecutionSetting]:
        yield replace(best, fused=True)

    def _with_windows(self, best: ExecutionSetting) -> Iterator[ExecutionSetting]:
        return (replace(best, window_px=side, batch=batch) for side, batch in self.windows)

    def _with_batches(self, best: ExecutionSetting) -> Iterator[ExecutionSetting]:
        area = (best.window_px + 2 * self.halo_px) ** 2
        fitting = (batch for batch in self.batches if batch * area <= self.batch_most_px)
        return (replace(best, batch=batch) for batch in fitting)

    def _with_graphs(self, best: ExecutionSetting) -> Iterator[ExecutionSetting]:
        return (replace(best, graphed=True) for _ in range(self.graphs))


def _windows(
    layout: PassLayout, recipe: PassRecipe, kind: str, capacity: Capacity
) -> Iterator[tuple[int, int]]:
    """Powers of two of a tile, which shards hold whole; none where the window is not free."""
    if not (layout.merge and layout.window_tiles and recipe.window == "auto"):
        return
    side, batch = layout.tile_px, layout.batch
    suits_px = min(capacity.batch_px, capacity.most_px)
    while side <= WINDOW_MOST_PX[kind] and side < 2 * max(layout.plane.shape):
        if recipe.batch == "auto":
            batch = batch_for(replace(layout, window_tiles=side // layout.tile_px), suits_px)
        if batch * (side + 2 * layout.halo_px) ** 2 <= capacity.most_px:
            yield side, batch
        side *= 2


def search(
    space: SearchSpace,
    tolerance: Tolerance,
    measure: Callable[[ExecutionSetting], Trial | None],
) -> tuple[Trial, ...]:
    """Try settings one property at a time, each from the best so far.

    Args:
        space: what may be tried.
        tolerance: what may differ from the reference.
        measure: tries one setting; None where time does not allow it, which the reference never
            meets.

    Returns:
        Trials in the order they were made, the reference first.
    """
    reference = measure(space.reference)
    if reference is None:
        raise ValueError("the reference is measured in any case")
    trials = {space.reference: reference}
    for stage in space.stages():
        best = choose(tuple(trials.values()), tolerance).setting
        for setting in stage(best):
            trial = None if setting in trials else measure(setting)
            if trial is not None:
                trials[setting] = trial
    return tuple(trials.values())


@dataclass(frozen=True, slots=True)
class Calibration:
    """The setting of one pass, and how it came about."""

    trials: tuple[Trial, ...]
    """All that were made, the reference first."""
    chosen: Trial
    """The one that runs."""
    seconds: float
    """What measuring took."""
    device: str
    """What it was measured on, for people."""
    image: str
    """The image whose pixels it was measured on."""

    def to_dict(self) -> dict[str, Any]:
        """As written to the run."""
        return asdict(self)

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Calibration:
        """The inverse of ``to_dict``, through JSON as well."""
        trials = tuple(map(Trial.from_dict, tree["trials"]))
        return cls(**{**tree, "trials": trials, "chosen": Trial.from_dict(tree["chosen"])})
