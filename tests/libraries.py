"""Libraries that models come from, for the tests that need one, and ONNX graphs made by hand."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

_OPERATORS: list[torch.library.Library] = []


def library(name: str) -> ModuleType:
    """A library, or the test is skipped.

    torchvision's compiled operators do not load where torch is a build for the CPU and torchvision
    is not; timm and smp use none of them, but its Python part asks for two by name.
    """
    try:
        import torchvision  # noqa: F401
    except ImportError:
        pass
    except RuntimeError as error:
        assert "torchvision::" in str(error)  # noqa: PT017 (another reason is a failure)
        _declare_operators()
    return pytest.importorskip(name)  # type: ignore[no-any-return]


def _declare_operators() -> None:
    for key in [key for key in sys.modules if key.partition(".")[0] == "torchvision"]:
        del sys.modules[key]
    place = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        place.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _OPERATORS.append(place)
    importlib.import_module("torchvision")


# ------------------------------------------------------------------------------- ONNX graphs

GREY = np.full((1, 3, 1, 1), 1 / 3, np.float32)
SOBEL = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], np.float32) / 4


def edges_graph() -> Any:
    """The model of ``examples/methods/edges.onnx``: gradient of grey values, as a probability."""
    from onnx import helper

    sobel = np.stack([SOBEL, SOBEL.T])[:, None]
    nodes = [
        helper.make_node("Conv", ["x", "grey"], ["g"]),
        helper.make_node("Conv", ["g", "sobel"], ["d"], pads=[1, 1, 1, 1]),
        helper.make_node("ReduceL2", ["d", "axis"], ["length"], keepdims=1),
        helper.make_node("Clip", ["length", "low", "high"], ["scores"]),
    ]
    constants = {
        "grey": GREY,
        "sobel": sobel,
        "axis": np.array([1], np.int64),
        "low": np.float32(0),
        "high": np.float32(1),
    }
    declared = {"classes": ["edge"], "halo_px": 1}
    return graph(nodes, constants, declared=declared)


def convolution_graph(
    seed: int = 11, classes: int = 2, shape: tuple[Any, ...] = ("n", 3, "h", "w"), **more: Any
) -> tuple[Any, np.ndarray]:
    """One 5 x 5 convolution, and its weights ``(classes, 3, 5, 5)``; it sees two pixels."""
    from onnx import helper

    weights = np.random.default_rng(seed).normal(size=(classes, 3, 5, 5)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "weights"], ["scores"], pads=[2, 2, 2, 2])
    return graph([node], {"weights": weights}, shape=shape, **more), weights


def graph(
    nodes: list[Any],
    constants: dict[str, np.ndarray],
    *,
    shape: tuple[Any, ...] = ("n", 3, "h", "w"),
    inputs: dict[str, tuple[Any, ...]] | None = None,
    declared: dict[str, Any] | None = None,
    kind: int = 1,
    answer: tuple[Any, ...] = ("n", "k", "i", "j"),
) -> Any:
    """A model of nodes that turn ``x`` into ``scores``; ``kind`` is the inputs' type in ONNX."""
    from onnx import helper, numpy_helper

    taken = {"x": shape} | (inputs or {})
    made = helper.make_model(
        helper.make_graph(
            nodes,
            "graph",
            [helper.make_tensor_value_info(name, kind, axes) for name, axes in taken.items()],
            [helper.make_tensor_value_info("scores", kind, answer)],
            [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    if declared is not None:
        helper.set_model_props(made, {"saccade": json.dumps(declared)})
    return made


def save(model: Any, path: Path, *, beside: bool = False) -> Path:
    """Write a model; ``beside`` keeps its weights in a file of their own."""
    import onnx

    external = {"save_as_external_data": True, "location": f"{path.name}.data"}
    onnx.save(model, path, **(external | {"size_threshold": 0} if beside else {}))
    return path
