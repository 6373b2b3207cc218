"""ONNX files, computed by ONNX Runtime: a graph and weights, no code.

Operators are those that ONNX Runtime itself has; none are registered. The file states its inputs,
whether sizes are free, and under the metadata key ``saccade`` whatever a ``ModelSpec`` says. Knows
no recipe.
"""

from __future__ import annotations

import mmap
import re
import threading
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from saccade.pipeline.errors import ModelContract, ModelNotFound
from saccade.pipeline.models.cells import InCells
from saccade.pipeline.models.declaring import parsed_declaration
from saccade.pipeline.models.extras import imported

SUFFIX = ".onnx"
METADATA = "saccade"
"""Key of ``metadata_props`` that holds the fields of a ``ModelSpec`` as JSON."""
TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
"""What inputs may be."""
EXTRA_INPUTS = ("guidance", "features", "pixel_size")
"""Inputs beside the pixels, by name; context views are ``context_0``, ``context_1``..."""
_EXTRA_INPUT = re.compile("|".join((*EXTRA_INPUTS, r"context_\d+")))
_LOCATION = re.compile(rb"\x0a\x08location\x12([\x80-\xff]?[\x00-\x7f])")
"""How a tensor's ``external_data`` entry begins in a file: key, then the length of the value."""


def read_onnx(path: Path, device: str) -> tuple[nn.Module, dict[str, Any]]:
    """The graph of a file as a module, and what it declares.

    A graph of one fixed height and width answers cell by cell: see ``InCells``.

    Raises:
        ModelNotFound: the file, or ONNX Runtime, is missing.
        ModelContract: it is no such graph, or one that can't be given pixels.
    """
    if not path.is_file():
        raise ModelNotFound(f"an ONNX file expected at {path}; found none")
    external_files(path)
    module = OnnxModule(path, device)
    return _sized(module, path), _shape_facts(module, path) | _metadata(module, path)


class OnnxModule(nn.Module):
    """A session of ONNX Runtime behind the interface of a torch module.

    Computes in the arithmetic that the file was exported in and on as many threads as torch uses
    where it is called. Pixels cross over as arrays of the host.
    """

    def __init__(self, path: Path, device: str) -> None:
        super().__init__()
        self.path, self.device = path, device
        self._session: tuple[int, Any] | None = None
        self._lock = threading.Lock()
        session = self.session()
        self.inputs = {one.name: one for one in session.get_inputs()}
        self.outputs = [one.name for one in session.get_outputs()]
        self.pixels = _checked_inputs(self.inputs, path)

    def session(self) -> Any:
        """The session for as many threads as torch uses here; made anew for another number."""
        threads = torch.get_num_threads()
        with self._lock:
            if self._session is None or self._session[0] != threads:
                self._session = (threads, _session(self.path, self.device, threads))
            return self._session[1]

    def release(self) -> None:
        """Give back what the session holds; the next forward pass makes another one."""
        with self._lock:
            self._session = None

    def forward(self, x: Tensor, **given: Tensor | tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Outputs by name; the first is the scores, whatever it is called.

        Raises:
            MemoryError: the runtime could not allocate what it needs.
            RuntimeError: it refuses the input; its own reason is the message.
        """
        if x.is_cuda and torch.cuda.is_current_stream_capturing():
            raise RuntimeError("a forward pass of ONNX Runtime can't be recorded by torch")
        feed = {self.pixels: x, **_flat(given)}
        arrays = {name: _array(value, self.inputs, name) for name, value in feed.items()}
        found = [torch.from_numpy(one).to(x.device) for one in self._run(arrays)]
        return {"scores": found[0], **dict(zip(self.outputs[1:], found[1:], strict=True))}

    def _run(self, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        try:
            return list(self.session().run(None, dict(arrays)))
        except Exception as error:  # the runtime's own errors have no base but Exception
            if "allocat" in str(error):
                raise MemoryError(f"{self.path}: {error}") from error
            raise RuntimeError(f"{self.path}: {error}") from error


def sessions_in(model: object) -> tuple[OnnxModule, ...]:
    """The ONNX graphs that a model computes with: what torch can't cast, count or record."""
    while not hasattr(model, "module") and hasattr(model, "model"):
        model = model.model  # a model under another declaration, or on a simulated device
    module = getattr(model, "module", None)
    if not isinstance(module, nn.Module):
        return ()
    return tuple(one for one in module.modules() if isinstance(one, OnnxModule))


# --------------------------------------------------------------------------------- the session


def _session(path: Path, device: str, threads: int) -> Any:
    runtime = imported("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.use_deterministic_compute = True
    options.log_severity_level = 3  # errors; they are raised as well
    # threads that wait by spinning would take the processors from reading and writing
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = _providers(runtime, path, device)
    try:
        return runtime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelContract(
            f"{path}: an ONNX file expected; it does not load: {reason}: export it again, with an "
            "opset that this ONNX Runtime knows"
        ) from error


def _providers(runtime: ModuleType, path: Path, device: str) -> list[Any]:
    """Where the graph runs: the provider of the device and no other."""
    if not device.startswith("cuda"):
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in runtime.get_available_providers():
        raise ModelContract(
            f"{path}: ONNX Runtime with CUDA expected for device {device!r}; this build has "
            f"{runtime.get_available_providers()}: pip install onnxruntime-gpu, or use --device cpu"
        )
    index = int(device.partition(":")[2] or 0)
    return [("CUDAExecutionProvider", {"device_id": index})]


def _flat(given: Mapping[str, Tensor | tuple[Tensor, ...]]) -> dict[str, Tensor]:
    """Tensors by the names of the graph's inputs: a tuple's items are numbered."""
    flat: dict[str, Tensor] = {}
    for name, value in given.items():
        if isinstance(value, tuple):
            flat |= {f"{name}_{index}": one for index, one in enumerate(value)}
        else:
            flat[name] = value
    return flat


def _array(value: Tensor, inputs: Mapping[str, Any], name: str) -> np.ndarray:
    if name not in inputs:
        raise ModelContract(
            f"an input {name!r} expected of the ONNX graph, because its declaration asks for it; "
            f"it has {list(inputs)}"
        )
    kind = TYPES[inputs[name].type]
    return np.ascontiguousarray(value.detach().cpu().numpy(), dtype=kind)


# ------------------------------------------------------------------------------- what it states


def _checked_inputs(inputs: Mapping[str, Any], path: Path) -> str:
    """The name of the input that takes pixels: the first one."""
    name, *others = inputs
    shape, kind = inputs[name].shape, inputs[name].type
    if len(shape) != 4 or _is_channels_last(shape):
        raise ModelContract(
            f"{path}: pixels as (batch, channels, height, width) expected of input {name!r}; found "
            f"{shape}: export the model with its channels first"
        )
    unknown = [other for other in others if not _EXTRA_INPUT.fullmatch(other)]
    if unknown:
        raise ModelContract(
            f"{path}: inputs beside the pixels are called {', '.join(EXTRA_INPUTS)} or context_0, "
            f"context_1...; found {unknown}: rename them, or fold them into the graph"
        )
    wrong = [one.name for one in inputs.values() if one.type not in TYPES]
    if wrong:
        raise ModelContract(
            f"{path}: inputs of {' or '.join(TYPES)} expected; found {kind} of {wrong}: export the "
            "model so that it takes floats"
        )
    return name


def _is_channels_last(shape: list[Any]) -> bool:
    last, second = shape[3], shape[1]
    return isinstance(last, int) and last <= 4 and not (isinstance(second, int) and second <= 4)


def _fixed_side(module: OnnxModule, path: Path) -> int | None:
    """Side of the only window that the graph takes; None where sizes are free."""
    height, width = module.inputs[module.pixels].shape[2:]
    fixed = [isinstance(side, int) for side in (height, width)]
    if not any(fixed):
        return None
    if not all(fixed) or height != width:
        raise ModelContract(
            f"{path}: height and width that are both free, or fixed and equal, expected; found "
            f"{height} x {width}: export with dynamic axes 0, 2 and 3"
        )
    return int(height)


def _sized(module: OnnxModule, path: Path) -> nn.Module:
    side = _fixed_side(module, path)
    batch = module.inputs[module.pixels].shape[0]
    most = batch if isinstance(batch, int) else None
    if side is None and most is None:
        return module
    if len(module.inputs) > 1:
        raise ModelContract(
            f"{path}: any batch, height and width expected of a graph with inputs "
            f"{list(module.inputs)}; found {module.inputs[module.pixels].shape}: export with "
            "dynamic axes 0, 2 and 3"
        )
    return InCells(module, side, batch=most)


def _shape_facts(module: OnnxModule, path: Path) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    side, channels = _fixed_side(module, path), module.inputs[module.pixels].shape[1]
    if isinstance(channels, int):
        facts["channels"] = channels
    if side is not None:
        per_tile = len(module.session().get_outputs()[0].shape) == 2
        facts |= {"multiple": side, "halo_px": 0} | ({"stride": side} if per_tile else {})
    return facts


def _metadata(module: OnnxModule, path: Path) -> dict[str, Any]:
    text = module.session().get_modelmeta().custom_metadata_map.get(METADATA, "")
    return parsed_declaration(text, f"{path}: metadata {METADATA!r}")


# ---------------------------------------------------------------------------- files beside it


def external_files(path: Path) -> list[Path]:
    """Files beside an ONNX file in which it keeps weights, as it names them.

    Found without parsing the graph: tensors name them in one fixed form.

    Raises:
        ModelContract: one lies outside the file's folder.
        ModelNotFound: one is missing.
    """
    found = []
    for name in sorted(_external_names(path)):
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts:
            raise ModelContract(
                f"{path}: weights beside the file expected; found {name!r}: save it with its "
                "weights in one folder"
            )
        if not (path.parent / place).is_file():
            raise ModelNotFound(f"{path}: its weights expected at {path.parent / place}; none")
        found.append(path.parent / place)
    return found


def _external_names(path: Path) -> set[str]:
    if path.stat().st_size == 0:
        return set()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return {
            content[match.end() : match.end() + _length(match[1])].decode("utf-8", "replace")
            for match in _LOCATION.finditer(content)
        }


def _length(varint: bytes) -> int:
    """A length of one or two bytes, seven bits each, the lowest first."""
    return sum((byte & 0x7F) << 7 * place for place, byte in enumerate(varint))
