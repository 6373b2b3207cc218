"""Forward passes replayed from graphs of the device: one launch for all kernels of a batch.

A graph answers as the model does, to the bit: that is checked when it is captured, and where it
does not, or none can be captured, the model itself computes that shape. So a graph changes when
kernels are launched and nothing else. Knows no window, no unit and no plan.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from saccade.pipeline.models.base import PassModel, Prediction, Views

SHAPES_MOST = 4
"""Shapes for which a graph is kept; each holds memory of the device. Others are computed."""
ANSWERS = ("scores", "saliency", "confidence", "features")
"""Parts of an answer that a run may read."""
WARM_UPS = 3
"""Forward passes before a capture: libraries choose kernels and allocate in the first few."""


class Graph(Protocol):
    """One forward pass, recorded: it reads the views it was captured with, where they lie."""

    answer: Prediction
    """Where the answer lies after each replay."""

    def replay(self) -> None:
        """Do it again on what those views hold now."""
        ...


Capture = Callable[[PassModel, Views], Graph]
"""Records a forward pass on views that stay where they are."""
Shape = tuple[tuple[tuple[int, ...], str] | float | None, ...]


class CudaGraph:
    """A graph of a CUDA device, captured on a stream of its own."""

    def __init__(self, model: PassModel, views: Views) -> None:
        """Record a forward pass.

        Raises:
            RuntimeError: the model does something that can't be recorded, such as waiting for the
                device or copying from the host.
        """
        device = views.pixels.device
        if device.type != "cuda":
            raise RuntimeError(f"a CUDA device expected; the pixels are on {device}")
        with torch.cuda.device(device):
            aside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            aside.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(aside):
                for _ in range(WARM_UPS):
                    model(views)
            torch.cuda.current_stream(device).wait_stream(aside)
            # a graph has memory of its own; what was cached for the model would lie idle beside it
            torch.cuda.empty_cache()
            self._graph = torch.cuda.CUDAGraph()
            # other threads of this process go on computing and allocating meanwhile
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self.answer = model(views)

    def replay(self) -> None:
        """Do it again on what the views hold now."""
        self._graph.replay()


@dataclass(frozen=True)
class Recorded:
    """A graph with the views that it reads."""

    views: Views
    """Where inputs are put."""
    graph: Graph
    """What then runs."""


class Graphs:
    """A model whose forward passes are replayed, one graph per shape of views.

    Args:
        model: what is replayed.
        capture: how; a fake one tests everything but the device.
    """

    def __init__(self, model: PassModel, capture: Capture = CudaGraph) -> None:
        self.model, self.spec = model, model.spec
        self.refusals: dict[Shape, str] = {}
        """Shapes that the model computes itself, with the reason."""
        self._capture = capture
        self._recorded: dict[Shape, Recorded] = {}
        self._lock = threading.Lock()  # a graph has one place for its inputs

    def __call__(self, views: Views) -> Prediction:
        """The model's own answer."""
        shape = shape_of(views)
        with self._lock:
            if shape in self._recorded:
                return self._replayed(self._recorded[shape], views)
            if shape in self.refusals or len(self._recorded) >= SHAPES_MOST:
                return self.model(views)
            return self._first(shape, views)

    def _first(self, shape: Shape, views: Views) -> Prediction:
        """The model's answer; from now on a graph gives it, if it gives the very same now."""
        answer = self.model(views)
        try:
            place = copied(views)
            recorded = Recorded(place, self._capture(self.model, place))
            same = alike(self._replayed(recorded, views), answer)
        except RuntimeError as error:  # also out of memory: the model itself has just had enough
            self.refusals[shape] = f"no graph can be captured: {error}".splitlines()[0]
            return answer
        if same:
            self._recorded[shape] = recorded
        else:
            self.refusals[shape] = "its graph does not answer as the model does"
        return answer

    def _replayed(self, recorded: Recorded, views: Views) -> Prediction:
        for place, given in zip(tensors(recorded.views), tensors(views), strict=True):
            place.copy_(given)
        recorded.graph.replay()
        # the next replay writes its answer to the same place
        found = {name: one.clone() for name, one in kept(recorded.graph.answer).items()}
        return Prediction(**found)


def tensors(views: Views) -> Iterator[Tensor]:
    """Every tensor of views, in a fixed order."""
    yield views.pixels
    yield from (one for one in _optional(views) if one is not None)
    yield from views.context


def _optional(views: Views) -> tuple[Tensor | None, ...]:
    return views.valid, views.guidance, views.features


def kept(answer: Prediction) -> dict[str, Tensor]:
    """The parts of an answer that a run may read, by name."""
    parts = {name: getattr(answer, name) for name in ANSWERS}
    return {name: one for name, one in parts.items() if one is not None}


def shape_of(views: Views) -> Shape:
    """What decides whether two views can be given to one graph."""
    there = tuple(
        None if one is None else (tuple(one.shape), str(one.dtype)) for one in _optional(views)
    )
    given = ((tuple(one.shape), str(one.dtype)) for one in (views.pixels, *views.context))
    # a model that is told its pixel size has it as a constant of its graph
    return (*there, views.pixel_size_um, views.downsample, *given)


def copied(views: Views) -> Views:
    """The same values in memory of their own, in the same memory order."""
    return replace(
        views,
        pixels=views.pixels.clone(),
        valid=None if views.valid is None else views.valid.clone(),
        guidance=None if views.guidance is None else views.guidance.clone(),
        features=None if views.features is None else views.features.clone(),
        context=tuple(one.clone() for one in views.context),
    )


def alike(one: Prediction, other: Prediction) -> bool:
    """Whether two answers are the same to the bit, as far as a run reads them."""
    ours, theirs = kept(one), kept(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
