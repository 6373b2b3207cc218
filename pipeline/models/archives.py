"""Models that bring their own graph: TorchScript files and torch.export archives.

Neither runs Python from the file. TorchScript is read by its own interpreter. A torch.export
archive is checked first, because its reader falls back to unrestricted pickles, compiled libraries
and evaluated expressions; one that holds any of them is refused. Knows no recipe.
"""

from __future__ import annotations

import ast
import io
import json
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import nn
from torch.export.passes import move_to_device_pass

from saccade.pipeline.errors import ModelContract, ModelNotFound
from saccade.pipeline.models.declaring import parsed_declaration

DECLARATION = "saccade.json"
"""Extra file of an archive: the fields of its ``ModelSpec``."""
ARCHIVE_SUFFIXES = (".pt", ".ts", ".pt2")
_PLAIN_MEMBERS = re.compile(
    r"(data/weights/(weight_\d+|\w+\.json)|data/constants/(tensor_\d+|\w+\.json)"
    r"|models/[\w.-]+\.json|extra/.+|\.data/\w+|archive_format|archive_version|byteorder|version)"
)
_SAMPLES = re.compile(r"data/sample_inputs/[\w.-]+\.pt")
_OPERATORS = re.compile(
    r"(torch\.ops\.(aten|prims|higher_order)\.|_operator\.|math\.|torch\._?sym_)\w+(\.\w+)?"
)
_ARITHMETIC = (
    *(ast.Expression, ast.Call, ast.Name, ast.Load, ast.Constant, ast.keyword, ast.BinOp),
    *(ast.UnaryOp, ast.Compare, ast.operator, ast.unaryop, ast.cmpop),
)


def read_archive(path: Path, device: str) -> tuple[nn.Module, dict[str, Any]]:
    """The module in an archive and the declaration beside it, ``{}`` where there is none.

    Raises:
        ModelNotFound: there is no such file.
        ModelContract: it is no such archive, it is unsafe, or it was exported for one fixed shape.
    """
    if not path.is_file():
        raise ModelNotFound(f"model archive expected at {path}; found no file")
    reader = _read_export if path.suffix == ".pt2" else _read_torchscript
    try:
        module, declaration = reader(path, device)
    except ModelContract:
        raise
    except Exception as error:
        kind = "torch.export" if path.suffix == ".pt2" else "TorchScript"
        raise ModelContract(
            f"{path}: a {kind} archive expected; it does not load: {_first_line(error)}"
        ) from error
    return module, parsed_declaration(declaration, f"{path}: {DECLARATION}")


def _read_torchscript(path: Path, device: str) -> tuple[nn.Module, str | bytes]:
    extra: dict[str, Any] = {DECLARATION: ""}
    with warnings.catch_warnings():
        # Files made in TorchScript stay in use although making new ones is discouraged.
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        module = torch.jit.load(path, map_location=device, _extra_files=extra)  # type: ignore[no-untyped-call]
    module.eval()
    return module, extra[DECLARATION]


def _read_export(path: Path, device: str) -> tuple[nn.Module, str | bytes]:
    refuse_unsafe_export(path)
    extra: dict[str, Any] = {DECLARATION: ""}
    program = torch.export.load(path, extra_files=extra)
    _refuse_fixed_shape(path, program)
    if any(t.device != torch.device(device) for t in program.state_dict.values()):
        program = move_to_device_pass(program, device)
    return program.module(), extra[DECLARATION]


def refuse_unsafe_export(path: Path) -> None:
    """Refuse a torch.export archive that could run code while it is read.

    Raises:
        ModelContract: it holds pickled objects, compiled libraries, members of unknown purpose, or
            expressions and operators that are more than arithmetic on tensors.
    """
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise _unsafe(path, f"two members are named {twice[0]!r}")
        for name in names:
            member = str(PurePosixPath(*PurePosixPath(name).parts[1:]))
            if _SAMPLES.fullmatch(member):
                _refuse_objects(path, name, archive.read(name))
            elif not _PLAIN_MEMBERS.fullmatch(member):
                raise _unsafe(path, f"member {name!r} is not plain weights or a graph")
            elif member.endswith(".json") and not member.startswith("extra/"):
                _refuse_code(path, json.loads(archive.read(name)))


def _refuse_objects(path: Path, name: str, content: bytes) -> None:
    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except Exception as error:
        raise _unsafe(path, f"member {name!r} pickles more than tensors") from error


def _refuse_code(path: Path, tree: Any) -> None:
    for key, value in _leaves(tree):
        if key == "use_pickle" and value:
            raise _unsafe(path, "it stores weights as pickles")
        if key == "expr_str" and not _is_arithmetic(str(value)):
            raise _unsafe(path, f"size expression {value!r} is not arithmetic")
        if key == "target" and not _OPERATORS.fullmatch(str(value)):
            raise _unsafe(path, f"operator {value!r} is not one of torch's own")


def _is_arithmetic(expression: str) -> bool:
    """Whether it is built from numbers, names and constructors such as ``Symbol('s0')`` only."""
    try:
        nodes = list(ast.walk(ast.parse(expression, mode="eval")))
    except SyntaxError:
        return False
    names = [n.id for n in nodes if isinstance(n, ast.Name)]
    texts = [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    called = [n.func for n in nodes if isinstance(n, ast.Call)]
    return (
        all(isinstance(node, _ARITHMETIC) for node in nodes)
        and not any("__" in word for word in (*names, *texts))
        and all(re.fullmatch(r"[\w.+-]*", text) for text in texts)
        and all(isinstance(f, ast.Name) and f.id[0].isupper() for f in called)
    )


def _leaves(tree: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield from _leaves(value, name)
    elif isinstance(tree, list):
        for value in tree:
            yield from _leaves(value, key)
    else:
        yield key, tree


def _unsafe(path: Path, reason: str) -> ModelContract:
    return ModelContract(
        f"{path}: an archive of weights and a graph expected; {reason}, which could run code when "
        "read: export the model again with torch.export.save, or name its Python file"
    )


def _refuse_fixed_shape(path: Path, program: torch.export.ExportedProgram) -> None:
    inputs = {n.name: n.meta.get("val") for n in program.graph.nodes if n.op == "placeholder"}
    for name in program.graph_signature.user_inputs:
        value = inputs.get(str(name))
        shape = tuple(getattr(value, "shape", ()))
        fixed = [axis for axis in (0, 2, 3) if len(shape) == 4 and isinstance(shape[axis], int)]
        if fixed:
            raise ModelContract(
                f"{path}: any batch, height and width expected of input {name!r}; axes {fixed} of "
                f"{shape} are fixed: export with dynamic_shapes for axes 0, 2 and 3, from an "
                "example with at least two images"
            )


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
