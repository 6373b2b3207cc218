"""Memory that a library keeps beside torch is counted with the tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import libraries
import numpy as np
import pytest
import torch

from saccade.pipeline.models.onnx_file import sessions_in
from saccade.pipeline.models.wrap import TorchModel
from saccade.workers.device_meter import meter_for
from saccade.workers.memory_arena import ArenaMeter

PLANES = 64
"""Channels of the largest array inside the graph below."""


class Arena:
    """Keeps what it takes until it is released."""

    held = 0
    releases = 0

    def release(self) -> None:
        self.held, self.releases = 0, self.releases + 1

    def take(self, nbytes: int) -> Callable[[], None]:
        def run() -> None:
            self.held = max(self.held, nbytes)

        return run


class Tensors:
    """Counts a fixed number of bytes for any forward pass."""

    def peak_nbytes(self, run: Callable[[], object]) -> int:
        run()
        return 13


def test_what_stays_resident_is_added_to_the_tensors() -> None:
    arena = Arena()
    meter = ArenaMeter(Tensors(), [arena], lambda: 1009 + arena.held)
    assert meter.peak_nbytes(arena.take(2003)) == 2003 + 13


def test_every_forward_pass_is_measured_from_an_empty_arena() -> None:
    arena = Arena()
    meter = ArenaMeter(Tensors(), [arena], lambda: 1009 + arena.held)
    assert [meter.peak_nbytes(arena.take(n)) for n in (7, 2003, 11)] == [20, 2016, 24]
    assert arena.releases == 3


def test_memory_given_back_meanwhile_does_not_make_less_than_the_tensors() -> None:
    levels = iter([2003, 1009])
    assert ArenaMeter(Tensors(), [], lambda: next(levels)).peak_nbytes(lambda: None) == 13


def test_arrays_inside_an_onnx_graph_are_counted(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    helper = pytest.importorskip("onnx.helper")
    wide = np.ones((PLANES, 3, 3, 3), np.float32)
    narrow = np.ones((1, PLANES, 3, 3), np.float32)
    pads = [1, 1, 1, 1]
    nodes = [
        helper.make_node("Conv", ["x", "wide"], ["inside"], pads=pads),
        helper.make_node("Conv", ["inside", "narrow"], ["raw"], pads=pads),
        helper.make_node("Sigmoid", ["raw"], ["scores"]),
    ]
    declared = {"classes": ["it"], "halo_px": 2, "multiple": 1}
    made = libraries.graph(nodes, {"wide": wide, "narrow": narrow}, declared=declared)
    model = _loaded(libraries.save(made, tmp_path / "m.onnx"))
    side = 512
    pixels = torch.rand(1, 3, side, side)
    meter = ArenaMeter(meter_for("cpu"), sessions_in(model))
    assert meter.peak_nbytes(lambda: model.module(pixels)) >= PLANES * side**2 * 4


def _loaded(path: Path) -> TorchModel:
    from saccade.pipeline.models.loading import load_model
    from saccade.pipeline.recipe import ModelRecipe

    model = load_model(ModelRecipe(source=path.name), base_folder=path.parent)
    assert isinstance(model, TorchModel)
    return model
