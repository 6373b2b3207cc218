"""A model from Python code that a recipe names: ``file.py:factory`` or ``package.module:factory``.

Running that code is the point, and happens only because the recipe names it. Knows no weights and
no declaration.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from saccade.pipeline.errors import ModelContract, ModelNotFound

SEED = 0
"""Of torch's generator while a factory runs."""
_BUILDING = threading.RLock()

NEVER_HIDDEN = {"numpy", "saccade", "torch"}
"""Packages that can't be imported twice, whatever lies beside a model file."""


def build(source: str, options: Mapping[str, Any], base_folder: Path) -> Any:
    """What the named factory returns for these options.

    Weights that it draws at random are the same in every worker and every run.

    Raises:
        ModelNotFound: file, module or factory is missing.
        ModelContract: the code fails, or the factory does not take these options.
    """
    # One at a time: torch's generator, sys.path and sys.modules are shared by all threads.
    with _BUILDING, torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return _build(source, options, base_folder)


def _build(source: str, options: Mapping[str, Any], base_folder: Path) -> Any:
    place, name = split_source(source)
    if not place.endswith(".py"):
        return _call(_find(_import_module(place), name, source), options, source)
    path = _existing(base_folder / place).resolve()
    with _neighbours_importable(path.parent):
        return _call(_find(_import_file(path), name, source), options, source)


def _call(factory: Callable[..., Any], options: Mapping[str, Any], source: str) -> Any:
    try:
        inspect.signature(factory).bind(**options)
    except TypeError as error:
        takes = inspect.signature(factory)
        raise ModelContract(f"{source} takes {takes}; options {dict(options)}: {error}") from error
    try:
        return factory(**options)
    except Exception as error:
        raise ModelContract(f"{source} failed: {type(error).__name__}: {error}") from error


def split_source(source: str) -> tuple[str, str]:
    """``(file or module, factory)`` of a source.

    Raises:
        ModelNotFound: it has neither form.
    """
    place, _, name = source.rpartition(":")
    if not place or not name.isidentifier():
        raise ModelNotFound(
            "a model is 'builtin:NAME', 'file.py:factory', 'package.module:factory', a TorchScript "
            "file (.pt, .ts), a torch.export archive (.pt2), an ONNX file (.onnx), 'timm:NAME', "
            f"'hf:NAME' or 'smp:NAME'; found {source!r}"
        )
    return place, name


def code_file(source: str, base_folder: Path) -> Path:
    """The file whose code a source runs; importing only the packages above it.

    Raises:
        ModelNotFound: there is no such file.
    """
    place, _ = split_source(source)
    if place.endswith(".py"):
        return _existing(base_folder / place)
    try:
        spec = importlib.util.find_spec(place)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        raise ModelNotFound(f"module {place!r} expected on the Python path; found none")
    return _existing(Path(spec.origin))


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ModelNotFound(f"a Python file expected at {path}; found none")
    return path


def _find(module: ModuleType, name: str, source: str) -> Callable[..., Any]:
    factory = getattr(module, name, None)
    if callable(factory):
        return factory  # type: ignore[no-any-return]
    own = [
        key
        for key, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", None) == module.__name__
    ]
    raise ModelNotFound(
        f"{source}: a function or class {name!r} expected in {module.__file__}; "
        f"found {', '.join(own) or 'no function or class'}"
    )


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        hint = "" if name.startswith(missing) else f", which {name} imports"
        raise ModelNotFound(
            f"module {missing!r}{hint} expected on the Python path; found none: install it"
        ) from error
    except Exception as error:
        raise ModelContract(f"{name} can't be imported: {type(error).__name__}: {error}") from error


def _import_file(path: Path) -> ModuleType:
    name = "_saccade_model_" + hashlib.blake2b(bytes(path), digest_size=8).hexdigest()
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None:
        raise ModelNotFound(f"{path}: a Python file expected")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        # Compiled from the bytes at hand: a cached .pyc of a file changed within a second is stale.
        code = compile(path.read_bytes(), path, "exec")
        exec(code, vars(module))
    except Exception as error:
        del sys.modules[name]
        raise ModelContract(f"{path} can't be run: {type(error).__name__}: {error}") from error
    return module


@contextmanager
def _neighbours_importable(folder: Path) -> Iterator[None]:
    """Modules beside a model file are importable, and neither meet nor leave others of that name.

    Two model files in two folders may each have a ``helpers.py``.
    """
    names = {p.stem for p in folder.glob("*.py")} | {p.parent.name for p in folder.glob("*/*.py")}
    names -= sys.stdlib_module_names | NEVER_HIDDEN
    hidden = _take_out(names)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        sys.path_importer_cache.pop(str(folder), None)
        _take_out(names)
        sys.modules.update(hidden)


def _take_out(names: set[str]) -> dict[str, ModuleType]:
    taken = [key for key in list(sys.modules) if key.partition(".")[0] in names]
    return {key: sys.modules.pop(key) for key in taken}
