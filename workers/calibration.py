"""Measuring a pass's settings on the image's own pixels: the acting part of ``execution``.

Answers for a few windows with each setting and compares with float32. Knows no run, no cache and no
receipt; what is still affordable is decided by the clock it is given.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from saccade.pipeline.errors import ModelContract, SaccadeError, UnitTooLarge
from saccade.pipeline.execution import ExecutionSetting, SearchSpace, Trial, search
from saccade.pipeline.feature_grid import FeatureGrid
from saccade.pipeline.geometry import Box
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.models.base import Arithmetic, ModelForm, PassModel
from saccade.pipeline.plan import Window
from saccade.pipeline.recipe import Tolerance
from saccade.pipeline.scores import quantise
from saccade.pipeline.sources.plane import Plane
from saccade.workers.answer import Answer
from saccade.workers.device import Predictor, begin_peak, peak_memory_nbytes, set_threads
from saccade.workers.device_graphs import Graphs
from saccade.workers.reading import WindowPixels, read_window
from saccade.workers.sampling import find_samples, window_at

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
    models: Callable[[ModelForm], PassModel]
    """The pass's model in any form, on the device."""
    device: str = "cpu"
    """Where it runs."""
    torch_threads: int = 1
    """Threads of one forward pass on a CPU."""
    guidance_classes: int = 0
    """Channels of guidance that the model is given; 0 where it takes none."""
    graphs: Callable[[PassModel], Graphs] = Graphs
    """A model whose forward passes are replayed."""
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
    samples = find_samples(subject.plane, subject.layout, space.largest_window_px)
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


def _read(subject: Subject, window: Window) -> WindowPixels:
    read = read_window(subject.plane, subject.layout, window)
    guidance = None
    if subject.guidance_classes:
        shape = (subject.guidance_classes, *window.read.shape)
        guidance = np.full(shape, GUIDANCE, np.float32)
    return read.led_by(guidance, _features(subject.layout.takes, window))


def _features(grid: FeatureGrid | None, window: Window) -> np.ndarray | None:
    """Repeatable noise of size one stands for features that do not exist yet."""
    if grid is None:
        return None
    shape = (grid.channels, *window.read.reduce(grid.stride).shape)
    return np.random.default_rng(grid.channels).standard_normal(shape, np.float32)


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
            ours = isinstance(error, SaccadeError)
            reason = str(error) if ours else f"{type(error).__name__}: {error}"
            return Trial.failed(setting, reason.splitlines()[0])

    def _sample(self, layout: PassLayout, place: Box) -> Sample:
        window = window_at(layout, place)
        if window not in self._read:
            self._read[window] = _read(self.subject, window)
        return Sample(window, self._read[window])

    def _affordable(self, setting: ExecutionSetting, computed_px: int) -> bool:
        """Whether there is time for one setting; for a first one of an arithmetic, all there was.

        The reference may have used most of the time up, on a machine that others use too: that is
        where another arithmetic saves most.
        """
        known = self._pace.get(setting.precision)
        takes = ROUNDS[0] * computed_px * (known or max(self._pace.values()))
        spent = self.clock() - self._began
        return takes <= (self.seconds if known is None else self.seconds - spent)

    def _tried(
        self, setting: ExecutionSetting, layout: PassLayout, batches: list[list[Sample]]
    ) -> Trial:
        subject = self.subject
        model = subject.models(setting.form)
        graphs = subject.graphs(model) if setting.graphed else None
        predictor = Predictor(model, layout, subject.device, graphs=graphs)
        begin_peak(subject.device)
        answers, seconds = self._rounds(predictor, batches)
        if graphs and graphs.refusals:
            raise ModelContract(next(iter(graphs.refusals.values())))
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
        answers = [np.empty(0)] * len(batches)
        began = self.clock()
        for turn in range(ROUNDS[1]):
            if turn >= ROUNDS[0] and self.clock() - began > self.seconds * TRIAL_SHARE:
                break
            for index, batch in enumerate(batches):
                since = self.clock()
                answer = self._answered(predictor, batch)
                fastest[index] = min(fastest[index], self.clock() - since)
                if answer.splits:
                    raise MemoryError(f"a batch of {len(batch)} windows does not fit the device")
                # of the last round: a graph is captured in the first and replayed in those after it
                answers[index] = answer.scores[0]
        return answers, sum(fastest)

    def _answered(self, predictor: Predictor, batch: list[Sample]) -> Answer:
        """A batch's answer, and beside it all that the same processors do for each window.

        Beside a GPU the host's processors read and store while it computes. A CPU does both, and
        what a window costs whatever its size makes small ones dearer than their forward pass.
        """
        if self.subject.device != "cpu":
            return predictor([one.pixels for one in batch])
        answer = predictor([_read(self.subject, one.window) for one in batch])
        for scores in answer.scores:
            quantise(scores, "uint8")
        return answer

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
