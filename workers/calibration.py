"""Measuring a pass's settings on the image's own pixels: the acting part of ``execution``.

Reads a few windows where the image has structure, answers for them with each setting, and compares
with float32. Knows no run, no cache and no receipt; when to stop is decided by the clock it is
given.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from saccade.pipeline.errors import ModelContract, ReadError, UnitTooLarge
from saccade.pipeline.execution import ExecutionSetting, SearchSpace, Trial, search
from saccade.pipeline.geometry import Box, round_up
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.models.base import PassModel
from saccade.pipeline.plan import Window, window_over
from saccade.pipeline.recipe import Arithmetic, Tolerance
from saccade.pipeline.sources.plane import Plane
from saccade.workers.device import Predictor, begin_peak, peak_memory_nbytes, set_threads
from saccade.workers.reading import WindowPixels, read_window

SAMPLES = 2
"""Places of the image that every setting answers for."""
PLACES = 1024
"""Places looked at, to find those with the most structure."""
LOOK_PX = 64
"""Side of what is looked at of a place, in pixels of the coarsest level."""
LOOK_TOTAL_PX = 64_000_000
"""Pixels of the file's own tiles decoded while looking."""
WHOLE_SAMPLE_PX = 512
"""Side of a sample of a pass that goes through the model at once."""
ROUNDS = (2, 5)
"""Least and most times that a setting answers; the fastest time of each sample counts."""
TRIAL_SHARE = 0.1
"""Share of the time allowed after which a setting answers no more than it has to."""
GUIDANCE = 0.5
"""Stands for the previous pass's scores, which do not exist yet."""

Clock = Callable[[], float]


@dataclass(frozen=True)
class Subject:
    """One pass of one image, ready to be measured."""

    plane: Plane
    """The image at the pass's resolution."""
    layout: PassLayout
    """As a pinned float32 would have it."""
    models: Callable[[Arithmetic, bool], PassModel]
    """The pass's model by arithmetic and by whether channels lie last, on the device."""
    device: str = "cpu"
    """Where it runs."""
    torch_threads: int = 1
    """Threads of one forward pass on a CPU."""
    guidance_classes: int = 0
    """Channels of guidance that the model is given; 0 where it takes none."""
    label_threshold: float = 0.5
    """A single class is labelled where its score is at least this."""


def calibrate(
    subject: Subject,
    space: SearchSpace,
    tolerance: Tolerance,
    seconds: float,
    clock: Clock = time.perf_counter,
) -> tuple[Trial, ...]:
    """Try the settings of a space, as far as time allows.

    Args:
        subject: what is measured.
        space: what may be tried.
        tolerance: what may differ from float32.
        seconds: no setting is begun that would take longer in all, but for the reference.
        clock: seconds, monotonic.

    Returns:
        Trials, the reference first; none where none of the sampled windows can be read.
    """
    set_threads(subject.torch_threads)
    samples = find_samples(subject, space)
    if not samples:
        return ()
    return search(space, tolerance, Bench(subject, samples, seconds, clock))


@dataclass(frozen=True)
class Sample:
    """One window as a setting reads it."""

    window: Window
    """Where it lies."""
    pixels: WindowPixels
    """As read."""


# ------------------------------------------------------------------------------ where to measure


def find_samples(subject: Subject, space: SearchSpace) -> list[Box]:
    """The places (rectangles of tiles) to measure at, those with the most structure first.

    Each holds the largest window tried. Places that can't be read are left out.
    """
    tiles = _sample_tiles(subject.layout, space)
    scored = [
        (-score, index, cells)
        for index, cells in enumerate(_places(subject, tiles))
        if (score := _structure(subject, cells)) is not None
    ]
    found: list[Box] = []
    for _, _, cells in sorted(scored, key=lambda one: one[:2]):
        if len(found) == SAMPLES:
            break
        if not _read(subject, window_at(subject.layout, cells)).lost:
            found.append(cells)
    return found


def _sample_tiles(layout: PassLayout, space: SearchSpace) -> int:
    side = space.largest_window_px or round_up(WHOLE_SAMPLE_PX, layout.tile_px)
    return max(1, side // layout.tile_px)


def _places(subject: Subject, side: int) -> list[Box]:
    """Squares of tiles all over the pass, so many that looking at them stays cheap."""
    grid = subject.layout.tiles
    rows = range(0, max(1, grid.rows - side + 1), side)
    columns = range(0, max(1, grid.columns - side + 1), side)
    level = subject.plane.source.levels[-1]
    tile = level.tile or (LOOK_PX, LOOK_PX)
    most = max(SAMPLES, min(PLACES, LOOK_TOTAL_PX // (tile[0] * tile[1])))
    step = max(1, -(-len(rows) * len(columns) // most))
    whole = Box(0, 0, grid.rows, grid.columns)
    places = [Box(y, x, y + side, x + side).intersect(whole) for y in rows for x in columns]
    return places[::step]


def _structure(subject: Subject, cells: Box) -> float | None:
    """Standard deviation of a place's middle on the coarsest level; None if it can't be read."""
    source, layout = subject.plane.source, subject.layout
    level = source.levels[-1]
    ratio = layout.plane.downsample / level.downsample
    core = layout.tiles.span(cells)
    box = _middle(core, ratio, level.shape)
    try:
        pixels = source.read(len(source.levels) - 1, box)
    except ReadError:
        return None
    values = np.nan_to_num(pixels.reshape(-1, pixels.shape[-1]).astype(np.float32))
    return float(values.std(axis=0).mean())


def _middle(core: Box, ratio: float, shape: tuple[int, int]) -> Box:
    def span(start: int, stop: int, limit: int) -> tuple[int, int]:
        low, high = int(start * ratio), max(int(start * ratio) + 1, int(stop * ratio))
        cut = max(0, (high - low - LOOK_PX) // 2)
        low = min(low + cut, limit - 1)
        return low, max(low + 1, min(high - cut, limit))

    y0, y1 = span(core.y0, core.y1, shape[0])
    x0, x1 = span(core.x0, core.x1, shape[1])
    return Box(y0, x0, y1, x1)


def window_at(layout: PassLayout, cells: Box) -> Window:
    """The window of a layout at the first tile of a place, cut off at the place's own end.

    Of a pass that goes through the model at once it is a part, without halo.
    """
    if layout.window_tiles == 0:
        core = layout.tiles.span(cells)
        sides = round_up(core.y1, layout.multiple), round_up(core.x1, layout.multiple)
        return Window(core, Box(core.y0, core.x0, *sides))
    longest = layout.window_tiles
    first = Box(cells.y0, cells.x0, cells.y0 + longest, cells.x0 + longest)
    return window_over(layout, first.intersect(cells))


def _read(subject: Subject, window: Window) -> WindowPixels:
    read = read_window(subject.plane, subject.layout, window)
    if not subject.guidance_classes:
        return read
    shape = (subject.guidance_classes, *window.read.shape)
    return read.guided_by(np.full(shape, GUIDANCE, np.float32))


# --------------------------------------------------------------------------------- one setting


@dataclass
class Bench:
    """Tries settings, one call each; remembers what the reference, which comes first, answered."""

    subject: Subject
    """What is measured."""
    places: list[Box]
    """Where."""
    seconds: float
    """Time allowed for all."""
    clock: Clock
    """Seconds, monotonic."""
    _began: float = field(init=False)
    _pace: dict[Arithmetic, float] = field(init=False, default_factory=dict)
    """Seconds per pixel computed, by arithmetic, as last met."""
    _truth: list[tuple[Window, np.ndarray]] = field(init=False, default_factory=list)
    _read: dict[Window, WindowPixels] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._began = self.clock()

    def __call__(self, setting: ExecutionSetting) -> Trial | None:
        """Try one setting; None where it would take longer than is left."""
        layout = setting.applied_to(self.subject.layout)
        samples = [self._sample(layout, place) for place in self.places]
        size = setting.batch if setting.window_px else 1
        batches = [_filled(samples, first, size) for first in range(len(samples))]
        computed = sum(one.window.read.area for batch in batches for one in batch)
        if self._truth and not self._affordable(setting, computed):
            return None
        if not self._truth:
            return self._tried(setting, layout, batches)
        try:
            return self._tried(setting, layout, batches)
        # what torch says to a type, a kernel or a size that it can't do
        except (ModelContract, UnitTooLarge, RuntimeError, MemoryError) as error:
            return Trial.failed(setting, f"{type(error).__name__}: {error}".splitlines()[0])

    def _sample(self, layout: PassLayout, place: Box) -> Sample:
        window = window_at(layout, place)
        if window not in self._read:
            self._read[window] = _read(self.subject, window)
        return Sample(window, self._read[window])

    def _affordable(self, setting: ExecutionSetting, computed_px: int) -> bool:
        known = self._pace.get(setting.precision, max(self._pace.values()))
        left = self.seconds - (self.clock() - self._began)
        return ROUNDS[0] * computed_px * known <= left

    def _tried(
        self, setting: ExecutionSetting, layout: PassLayout, batches: list[list[Sample]]
    ) -> Trial:
        subject = self.subject
        model = subject.models(setting.precision, setting.channels_last)
        predictor = Predictor(model, layout, subject.device)
        begin_peak(subject.device)
        answers, seconds = self._rounds(predictor, batches)
        everything = [one for batch in batches for one in batch]
        computed = sum(one.window.read.area for one in everything)
        answered = sum(one.window.core.area for one in everything)
        self._pace[setting.precision] = seconds / computed
        found = [(batch[0].window, scores) for batch, scores in zip(batches, answers, strict=True)]
        if not self._truth:
            self._truth = found
        error, agreement = self._compare(found)
        peak = None if subject.device == "cpu" else peak_memory_nbytes(subject.device)
        return Trial(setting, seconds / answered * 1e6, error, agreement, peak)

    def _rounds(
        self, predictor: Predictor, batches: list[list[Sample]]
    ) -> tuple[list[np.ndarray], float]:
        """Scores of each batch's first window, and the fastest seconds of all batches together."""
        fastest = [float("inf")] * len(batches)
        answers: list[np.ndarray] = []
        began = self.clock()
        for turn in range(ROUNDS[1]):
            if turn >= ROUNDS[0] and self.clock() - began > self.seconds * TRIAL_SHARE:
                break
            for index, batch in enumerate(batches):
                since = self.clock()
                answer = predictor([one.pixels for one in batch])
                fastest[index] = min(fastest[index], self.clock() - since)
                if answer.splits:
                    raise MemoryError(f"a batch of {len(batch)} windows does not fit the device")
                if turn == 0:
                    answers.append(answer.scores[0])
        return answers, sum(fastest)

    def _compare(self, found: list[tuple[Window, np.ndarray]]) -> tuple[float, float]:
        """Mean error and label agreement against the reference, where both have answered."""
        errors, same = [], []
        for (truth_window, truth), (window, scores) in zip(self._truth, found, strict=True):
            both = window.core.intersect(truth_window.core)
            expected = _cropped(self.subject.layout, truth_window, truth, both)
            given = _cropped(self.subject.layout, window, scores, both)
            errors.append(np.nan_to_num(np.abs(given - expected), nan=1.0, posinf=1.0).ravel())
            labels = labels_of(given, self.subject.label_threshold)
            same.append((labels == labels_of(expected, self.subject.label_threshold)).ravel())
        return float(np.concatenate(errors).mean()), float(np.concatenate(same).mean())


def _filled(samples: list[Sample], first: int, size: int) -> list[Sample]:
    """A batch of one shape that begins with one sample; others follow in turn as they fit."""
    alike = [one for one in samples if one.window.read.shape == samples[first].window.read.shape]
    start = alike.index(samples[first])
    return [alike[(start + i) % len(alike)] for i in range(size)]


def _cropped(layout: PassLayout, window: Window, scores: np.ndarray, box: Box) -> np.ndarray:
    inside = layout.scores_of(box).relative_to(window.read.reduce(layout.stride))
    return scores[(slice(None), *inside.slices)]


def labels_of(scores: np.ndarray, threshold: float) -> np.ndarray:
    """``(h, w)``: the class of each pixel, or whether the only class is there; -1 if not finite."""
    one = (scores[0] >= threshold).astype(np.int64)
    labels = one if len(scores) == 1 else scores.argmax(0)
    return np.where(np.isfinite(scores).all(0), labels, -1)
