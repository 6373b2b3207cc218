"""Windows to predictions on one device: batches, arithmetic, and running out of memory.

Knows tensors; knows no files, units or threads.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from saccade.pipeline.errors import DeviceFull, ModelContract
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.models.base import PassModel, Prediction, Views
from saccade.workers.answer import Answer, cropped, cut, joined
from saccade.workers.backing_off import Part, PixelLimit, halves
from saccade.workers.device_copies import copies_for
from saccade.workers.device_graphs import Graphs
from saccade.workers.device_inputs import as_given
from saccade.workers.memory_curve import is_simulated
from saccade.workers.memory_limits import most_resident_nbytes
from saccade.workers.pending import Pending
from saccade.workers.reading import WindowPixels

log = logging.getLogger(__name__)

FLOAT16_MOST = torch.finfo(torch.float16).max
"""Features beyond it are stored as this."""
OUT_OF_MEMORY_TEXTS = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


@dataclass(frozen=True, slots=True)
class Predictor:
    """One pass's model on one device."""

    model: PassModel
    """What looks, in the arithmetic of the layout."""
    layout: PassLayout
    """Of the pass."""
    device: str
    """Where tensors are, as torch names it: 'cpu', 'cuda', 'cuda:1'..."""
    limit: PixelLimit = field(default_factory=PixelLimit)
    """What is known not to fit."""
    graphs: Graphs | None = None
    """Replays full batches of the model; None has the model compute all of them."""

    def __call__(self, windows: Sequence[WindowPixels]) -> Answer:
        """Answer for a batch of windows of one shape; in parts, where the device lacks memory.

        Raises:
            DeviceFull: the smallest part of a single window does not fit the device.
        """
        return self.launch(windows).result()

    def launch(self, windows: Sequence[WindowPixels]) -> Pending[Answer]:
        """Begin to answer: a CPU is then done, a GPU can be given the next batch meanwhile.

        Raises:
            DeviceFull: as above.
        """
        height, width = windows[0].pixels.shape[:2]
        divisible = len(windows) > 1 or self._halves(windows[0]) is not None
        # the least that there is to try is always tried: who held the memory may be gone by now
        if not divisible or self.limit.allows(len(windows), (height, width)):
            begun = self._begin(windows)
            if begun is not None:
                self.limit.fitted(len(windows), (height, width))
                return begun
            size = (len(windows), height, width)
            log.warning("%s ran out of memory at %d x %d x %d px", self.device, *size)
            if divisible:
                self.limit.ran_out(len(windows), (height, width))
        # memory is asked for when work is given to a device, so waiting for it never lacks any
        return Pending(self._in_parts(windows))

    def _in_parts(self, windows: Sequence[WindowPixels]) -> Answer:
        if len(windows) == 1:
            return self._by_halves(windows[0])
        half = len(windows) // 2
        return joined(self(windows[:half]), self(windows[half:]))

    def _by_halves(self, window: WindowPixels) -> Answer:
        """A window's answer from two smaller ones, which only a model with an exact halo can give.

        Each half is larger than its part of the answer by the halo, so the answer is the same up to
        the last bits of the arithmetic.
        """
        layout, parts = self.layout, self._halves(window)
        if parts is None:
            raise DeviceFull(self._too_large(window))
        height, width = window.pixels.shape[:2]
        first, second = (cropped(self([cut(window, p, layout)]), p, layout) for p in parts)
        return joined(first, second, axis=-2 if height >= width else -1)

    def _halves(self, window: WindowPixels) -> tuple[Part, Part] | None:
        """Two smaller windows that give a window's answer; None where there are none."""
        layout = self.layout
        height, width = window.pixels.shape[:2]
        if not layout.local or layout.context:
            return None
        return halves((height, width), layout.halo_px, layout.multiple)

    def _begin(self, windows: Sequence[WindowPixels]) -> Pending[Answer] | None:
        """An answer on its way, or None where the device ran out of memory.

        Returns instead of raising, so that no traceback keeps the tensors alive when the caller
        tries again with less.
        """
        try:
            with torch.inference_mode():
                return self._download(self._answer(self.views(windows)))
        except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
        if self.device != "cpu":
            torch.cuda.empty_cache()
        return None

    def _answer(self, views: Views) -> Prediction:
        full = len(views.pixels) == self.layout.batch
        return self.graphs(views) if self.graphs and full else self.model(views)

    def views(self, windows: Sequence[WindowPixels]) -> Views:
        """A batch of windows of one shape as the model sees it, on the device."""
        size = self.layout.plane.pixel_size
        return Views(
            pixels=self._pixels([w.pixels for w in windows]),
            valid=self._valid(windows),
            guidance=self._stacked([w.guidance for w in windows]),
            context=tuple(
                self._pixels([w.context[i] for w in windows])
                for i in range(len(self.layout.context))
            ),
            pixel_size_um=size.mean_in("um") if size else None,
            downsample=self.layout.plane.downsample,
            features=self._features(windows),
        )

    def _pixels(self, arrays: Sequence[np.ndarray]) -> Tensor:
        """``(N, C, H, W)`` float32, in the memory order of the host's HWC."""
        stacked = arrays[0][None] if len(arrays) == 1 else np.stack(arrays)
        dtype = stacked.dtype
        host = stacked if dtype == np.uint8 else stacked.astype(np.float32)
        tensor = self._upload(np.require(host, requirements=["C", "W"]))
        samples = tensor.permute(0, 3, 1, 2)
        return as_given(samples, dtype, self.layout.inputs, self.model.spec.scale)

    def _valid(self, windows: Sequence[WindowPixels]) -> Tensor | None:
        if all(w.valid is None for w in windows):
            return None
        masks = [np.ones(w.pixels.shape[:2], bool) if w.valid is None else w.valid for w in windows]
        return self._upload(np.stack(masks)[:, None])

    def _features(self, windows: Sequence[WindowPixels]) -> Tensor | None:
        found = self._stacked([w.features for w in windows])
        return None if found is None else found.float()

    def _stacked(self, arrays: Sequence[np.ndarray | None]) -> Tensor | None:
        given = [array for array in arrays if array is not None]
        return self._upload(np.stack(given)) if given else None

    def _upload(self, host: np.ndarray) -> Tensor:
        return copies_for(self.device).upload(torch.from_numpy(host))

    def _download(self, prediction: Prediction) -> Pending[Answer]:
        copies = copies_for(self.device)
        planes = {name: self._given(prediction, name)[:, 0] for name in self.layout.planes}
        features = None
        if self.layout.gives is not None:
            found = self._given(prediction, "features").clamp(-FLOAT16_MOST, FLOAT16_MOST)
            features = copies.download(found.half()).numpy()
        answer = Answer(
            scores=copies.download(prediction.scores.float()).numpy(),
            planes={k: copies.download(plane.float()).numpy() for k, plane in planes.items()},
            features=features,
        )
        return Pending(answer, copies.arrival())

    def _given(self, prediction: Prediction, name: str) -> Tensor:
        """What the pass stores of an answer besides scores."""
        found: Tensor | None = getattr(prediction, name)
        if found is None:
            raise ModelContract(
                f"pass {self.layout.name!r}: its model declares {name!r} and answered without; "
                "correct its declaration, or have it answer with it"
            )
        return found

    def _too_large(self, window: WindowPixels) -> str:
        height, width = window.pixels.shape[:2]
        return (
            f"pass {self.layout.name!r}: one window of {height} x {width} px does not fit "
            f"the memory of {self.device}; set a smaller 'window' or 'tile' for this pass"
        )


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        text.lower() in str(error).lower() for text in OUT_OF_MEMORY_TEXTS
    )


def kind_of(device: str) -> str:
    """What a device is like: 'cpu' or 'cuda', which a simulated one is like too."""
    return "cpu" if device == "cpu" else "cuda"


def torch_device(device: str) -> str:
    """Where the tensors of a device are, as torch names it."""
    return "cpu" if is_simulated(device) else device


def peak_memory_nbytes(device: str) -> int:
    """Most memory held so far: of the device, or of this process where the device is a CPU."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(device))
    return most_resident_nbytes()


def begin_peak(device: str) -> None:
    """Count the most memory held from now on, where a device can tell."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)


def device_name(device: str) -> str:
    """What kind of processor a device is, with the library that computes on it, for people."""
    if device.startswith("cuda"):
        name = torch.cuda.get_device_name(device)
    elif is_simulated(device):
        name = device
    else:
        name = f"{_processor()}, {torch.backends.cpu.get_cpu_capability()}"
    return f"{name}, torch {torch.__version__}"


@cache
def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    stated = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(stated, platform.processor() or platform.machine())


def set_threads(count: int) -> None:
    """Threads of one forward pass; part of a run's identity, because it may change last bits."""
    torch.set_num_threads(count)


@contextmanager
def one_thread() -> Iterator[None]:
    """Forward passes on one thread for a while.

    Of many small ones: threads that wait for each other at every operation take ten times as long
    as one where something else runs, too.
    """
    before = torch.get_num_threads()
    set_threads(1)
    try:
        yield
    finally:
        set_threads(before)


def gpu_count() -> int:
    """GPUs of this machine."""
    return torch.cuda.device_count()
