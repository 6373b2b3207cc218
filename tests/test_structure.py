"""The shape of the package: which folder may import which, and what stays behind one door."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

LAYERS = ("pipeline", "workers", "jobs")  # each may import itself and those before it

CONFINED = {
    "ray": (
        "workers/actor.py",
        "workers/ray_start.py",
        "workers/ray_metrics.py",
        "workers/training/ray_train.py",
        "jobs/clusters/submit.py",
    ),
    "zarr": (
        "pipeline/store.py",
        "pipeline/store_*.py",
        "pipeline/result.py",
        "pipeline/sources/zarr.py",
    ),
    "rasterio": ("pipeline/sources/rasterio*.py", "pipeline/projecting.py", "pipeline/exports/*"),
    "obstore": ("pipeline/remote*.py",),
    "openslide": ("pipeline/sources/openslide.py",),
    "tifffile": (
        "pipeline/sources/tiff*.py",
        "pipeline/exports/ome_tiff.py",
        "pipeline/exports/geo_tags.py",
        "jobs/sample.py",
    ),
    "imagecodecs": ("pipeline/sources/tiff*.py", "pipeline/exports/cog.py", "jobs/sample.py"),
    "torch": (
        "pipeline/models/*",
        "workers/engine.py",
        "workers/memory.py",
        "workers/device*.py",
        "workers/training/*",
    ),
}

MODULE_LINES = 400
UNDOCUMENTED_FUNCTION_LINES = 50

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    path.relative_to(ROOT).as_posix() for layer in LAYERS for path in (ROOT / layer).rglob("*.py")
)


def imported_names(tree: ast.Module) -> Iterator[str]:
    """Dotted names that a module imports: at its top, in functions, by name at run time."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = ast.unparse(node.func).rpartition(".")[2]
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.args[0].value


def direction(path: str, tree: ast.Module, source: str) -> Iterator[str]:
    layer = LAYERS.index(path.split("/")[0])
    for name in imported_names(tree):
        package, _, rest = name.partition(".")
        if package == "saccade" and rest.split(".")[0] in LAYERS[layer + 1 :]:
            yield f"{LAYERS[layer]} may not import {name}"
        if package in LAYERS:
            yield f"{name} is installed as saccade.{name}"


def confinement(path: str, tree: ast.Module, source: str) -> Iterator[str]:
    for name in imported_names(tree):
        homes = CONFINED.get(name.split(".")[0])
        if homes and not any(fnmatch(path, home) for home in homes):
            yield f"{name} is imported only in {', '.join(homes)}"


def absolute(path: str, tree: ast.Module, source: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield f"line {node.lineno}: imports are absolute"


def documented(path: str, tree: ast.Module, source: str) -> Iterator[str]:
    if not ast.get_docstring(tree):
        yield "a module begins with a docstring: its job and what it refuses to know"


def module_size(path: str, tree: ast.Module, source: str) -> Iterator[str]:
    lines = len(source.splitlines())
    if lines > MODULE_LINES:
        yield f"{lines} lines; a module over {MODULE_LINES} is two modules"


def function_size(path: str, tree: ast.Module, source: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not ast.get_docstring(node):
            lines = (node.body[-1].end_lineno or 0) - node.body[0].lineno + 1
            if lines > UNDOCUMENTED_FUNCTION_LINES:
                yield f"{node.name} has {lines} lines and no docstring"


Rule = Callable[[str, ast.Module, str], Iterator[str]]
RULES: tuple[Rule, ...] = (
    direction,
    confinement,
    absolute,
    documented,
    module_size,
    function_size,
)

LONG_BODY = "\n".join(f"    a = {n}" for n in range(UNDOCUMENTED_FUNCTION_LINES + 1))
VIOLATIONS: tuple[tuple[Rule, str, str], ...] = (
    (direction, "pipeline/plan.py", "import saccade.workers.engine"),
    (direction, "pipeline/sources/base.py", "from saccade.jobs.driver import run"),
    (direction, "workers/engine.py", "from saccade import jobs"),
    (direction, "workers/engine.py", "def f():\n    from saccade.jobs import run"),
    (direction, "jobs/run.py", "from pipeline.geometry import Box"),
    (confinement, "jobs/run.py", "import ray"),
    (confinement, "workers/local.py", "def f():\n    import ray.util"),
    (confinement, "workers/local.py", "import importlib\nimportlib.import_module('ray')"),
    (
        confinement,
        "pipeline/fusion.py",
        "if TYPE_CHECKING:\n    from zarr.storage import LocalStore",
    ),
    (confinement, "pipeline/sources/tiff.py", "import openslide"),
    (confinement, "pipeline/store_shelf.py", "from obstore.store import S3Store"),
    (confinement, "pipeline/store.py", "from tifffile import TiffFile"),
    (confinement, "jobs/cli.py", "import imagecodecs"),
    (confinement, "pipeline/georeference.py", "import rasterio"),
    (confinement, "pipeline/fusion.py", "from torch import Tensor"),
    (absolute, "pipeline/plan.py", "from .geometry import Box"),
    (absolute, "pipeline/plan.py", "def f():\n    from . import geometry"),
    (documented, "pipeline/plan.py", "import math"),
    (module_size, "pipeline/plan.py", "a = 1\n" * (MODULE_LINES + 1)),
    (function_size, "pipeline/plan.py", f"def f():\n{LONG_BODY}"),
    (function_size, "pipeline/plan.py", f"class C:\n  async def f():\n{LONG_BODY}"),
)
ALLOWED: tuple[tuple[Rule, str, str], ...] = (
    (direction, "jobs/run.py", "from saccade.workers import local\nimport saccade.pipeline.plan"),
    (direction, "pipeline/plan.py", "from saccade.pipeline.geometry import Box"),
    (confinement, "workers/actor.py", "import ray"),
    (confinement, "pipeline/store_layout.py", "import zarr"),
    (confinement, "pipeline/models/unet.py", "from torch import nn"),
    (confinement, "workers/lanes.py", "import torchmetrics_like, rays"),
    (module_size, "pipeline/plan.py", "a = 1\n" * MODULE_LINES),
    (function_size, "pipeline/plan.py", f"def f():\n    'It has a story.'\n{LONG_BODY}"),
)


def broken(rule: Rule, path: str, source: str) -> list[str]:
    return list(rule(path, ast.parse(source), source))


@pytest.mark.parametrize("path", MODULES)
def test_every_module_keeps_the_rules(path: str) -> None:
    source = (ROOT / path).read_text(encoding="utf-8")
    assert not [problem for rule in RULES for problem in broken(rule, path, source)]


def test_the_rules_are_applied_to_modules_of_all_three_folders() -> None:
    assert {path.split("/")[0] for path in MODULES} == set(LAYERS)


@pytest.mark.parametrize(("rule", "path", "source"), VIOLATIONS)
def test_a_violation_is_caught(rule: Rule, path: str, source: str) -> None:
    assert broken(rule, path, source)


@pytest.mark.parametrize(("rule", "path", "source"), ALLOWED)
def test_what_is_allowed_is_not_reported(rule: Rule, path: str, source: str) -> None:
    assert not broken(rule, path, source)


def test_every_rule_is_proved_by_a_violation() -> None:
    assert {rule for rule, _, _ in VIOLATIONS} == set(RULES)
    proved = {source for rule, _, source in VIOLATIONS if rule is confinement}
    assert all(any(package in source for source in proved) for package in CONFINED)
