"""Recipes as YAML files: safe loading, and errors that name the line and the nearest known key.

Any other frozen tree of settings (``Node``) is read by the same rules.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from saccade.pipeline.errors import RecipeError
from saccade.pipeline.recipe import Recipe

Path_ = tuple[str | int, ...]
Tree = TypeVar("Tree", bound=BaseModel)

MAX_PLACES = 10_000
"""A recipe holds at most this many values; an aliased value counts each time it is used."""
MAX_DEPTH = 64
"""They are nested at most this deep."""


def load_recipe(path: Path | str) -> Recipe:
    """The recipe in a YAML (or JSON) file.

    Raises:
        RecipeError: no such file, not YAML, or not a valid recipe; the message names each place.
    """
    return load_tree(path, Recipe)


def load_tree(path: Path | str, root: type[Tree]) -> Tree:
    """A tree of settings in a YAML (or JSON) file.

    Raises:
        RecipeError: as ``load_recipe``.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"{file}: the recipe can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{file}: a recipe is text in UTF-8; found {error.reason}") from error
    return parse_tree(text, root, str(file), file.parent)


def parse_recipe(text: str, name: str = "recipe", folder: Path | None = None) -> Recipe:
    """The recipe in a YAML text; ``parse_tree`` says of what."""
    return parse_tree(text, Recipe, name, folder)


def parse_tree(text: str, root: type[Tree], name: str, folder: Path | None = None) -> Tree:
    """A tree of settings in a YAML text.

    Args:
        text: the YAML.
        root: what the tree is.
        name: stands for it in messages.
        folder: where files that it takes over are; None takes over none.
    """
    try:
        # Places are counted first: aliases and merge keys can stand for more than memory holds.
        lines = _places(yaml.compose(text, Loader=yaml.SafeLoader), name)
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{name}: not valid YAML: {error}") from error
    except RecursionError as error:
        raise RecipeError(f"{name}: {_TOO_LARGE}") from error
    if not isinstance(tree, dict):
        first = next(key for key, field in root.model_fields.items() if field.is_required())
        raise RecipeError(
            f"{name}: a recipe is a mapping with {first!r}; found {type(tree).__name__}"
        )
    if folder is not None:
        tree = _with_curves(tree, folder, name)
    try:
        return root.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(explain(error, name, lines, root)) from error


def _with_curves(tree: Any, folder: Path, name: str) -> Any:
    """The tree with the values of every calibration whose file it names."""
    if isinstance(tree, list):
        return [_with_curves(part, folder, name) for part in tree]
    if not isinstance(tree, dict):
        return tree
    tree = {key: _with_curves(part, folder, name) for key, part in tree.items()}
    if "by" in tree and isinstance(tree.get("calibration"), str):
        tree["calibration"] = _read_curve(folder / tree["calibration"], name)
    return tree


def _read_curve(path: Path, name: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"{name}: a calibration is a JSON file of scores and gains, as fit_gain's curve writes "
            f"it; {path} can't be read: {error}"
        ) from error


def recipe_text(recipe: Recipe) -> str:
    """A recipe as YAML, defaults spelled out; ``parse_recipe`` reads it back."""
    tree = recipe.model_dump(mode="json", exclude_none=True)
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def recipe_schema() -> str:
    """The JSON Schema that editors complete recipes from."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(schema | Recipe.model_json_schema(), indent=2)


def explain(
    error: ValidationError,
    name: str,
    lines: dict[Path_, int] | None = None,
    root: type[BaseModel] = Recipe,
) -> str:
    """A validation error as one line per mistake: where, what was expected, what was found."""
    return "\n".join(_explain_one(item, name, lines or {}, root) for item in _root_causes(error))


def _root_causes(error: ValidationError) -> Iterator[ErrorDetails]:
    """Without the 'too short' that follows only from an item's own mistake."""
    items = error.errors()
    for item in items:
        deeper = any(o["loc"][: len(item["loc"])] == item["loc"] != o["loc"] for o in items)
        if not (item["type"] == "too_short" and deeper):
            yield item


def _explain_one(
    item: ErrorDetails, name: str, lines: dict[Path_, int], root: type[BaseModel]
) -> str:
    path = _path_in_file(item["loc"], lines)
    line = next((lines[path[:n]] for n in range(len(path), -1, -1) if path[:n] in lines), None)
    where = f"{name}:{line}" if line else name
    return f"{where}: {_dotted(path)}: {_reason(item, root)}"


def _reason(item: ErrorDetails, root: type[BaseModel]) -> str:
    if item["type"] == "extra_forbidden":
        key, known = str(item["loc"][-1]), sorted(_known_keys(item["loc"][:-1], root))
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return f"unknown key {key!r}; {hint}"
    if item["type"] == "missing":
        return "required key is missing"
    if item["type"].startswith("union_tag"):
        return _kind_reason(item, root)
    found = "" if isinstance(item["input"], dict | list) else f"; found {item['input']!r}"
    return item["msg"].removeprefix("Value error, ") + found


def _kind_reason(item: ErrorDetails, root: type[BaseModel]) -> str:
    """What 'by' may say, where it is left out or says something else."""
    known = [str(_tag(node)) for node in sorted(_nodes_at(item["loc"], root), key=_tag)]
    said = item["input"].get("by") if isinstance(item["input"], dict) else item["input"]
    near = difflib.get_close_matches(str(said), known, n=1, cutoff=0.5)
    found = "no 'by'" if said is None else f"{said!r}"
    hint = f"; did you mean 'by: {near[0]}'?" if near else ""
    return f"'by' of {', '.join(known)} expected; found {found}{hint}"


def _path_in_file(loc: Path_, lines: dict[Path_, int]) -> Path_:
    """Drop what pydantic adds to a location (union tags), keep what stands in the file."""
    path: Path_ = ()
    for i, part in enumerate(loc):
        last = i == len(loc) - 1
        if not lines or (*path, part) in lines or last:
            path = (*path, part)
    return path


def _dotted(path: Path_) -> str:
    text = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path)
    return text.removeprefix(".") or "recipe"


_TOO_LARGE = (
    f"a recipe holds at most {MAX_PLACES} values, at most {MAX_DEPTH} deep, aliased ones counted "
    f"wherever they are used; found more"
)


def _places(node: yaml.Node | None, name: str) -> dict[Path_, int]:
    """The line of every place; refuses a key given twice and a tree too large to be a recipe."""
    lines: dict[Path_, int] = {}
    for path, line in _lines(node, ()):
        if path in lines:
            first = f"{_dotted(path)} is given twice, first on line {lines[path]}; remove one"
            raise RecipeError(f"{name}:{line}: {first}")
        if len(lines) >= MAX_PLACES or len(path) > MAX_DEPTH:
            raise RecipeError(f"{name}: {_TOO_LARGE}")
        lines[path] = line
    return lines


def _lines(node: yaml.Node | None, path: Path_) -> Iterator[tuple[Path_, int]]:
    """Every place in the YAML text and the line it stands on, counted from 1."""
    if node is None:
        return
    if not path:
        yield path, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*path, str(key.value)), key.start_mark.line + 1
            yield from _lines(value, (*path, str(key.value)))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*path, index), value.start_mark.line + 1
            yield from _lines(value, (*path, index))


def _known_keys(loc: Path_, root: type[BaseModel]) -> set[str]:
    """Fields that a tree has at a location."""
    return {key for node in _nodes_at(loc, root) for key in node.model_fields}


def _nodes_at(loc: Path_, root: type[BaseModel]) -> set[type[BaseModel]]:
    """What a tree may hold at a location."""
    nodes: set[type[BaseModel]] = {root}
    for part in loc:
        tagged = {n for n in nodes if _tag(n) == part}
        fields = [n.model_fields[part].annotation for n in nodes if part in n.model_fields]
        if tagged:
            nodes = tagged
        elif fields:
            nodes = {node for field in fields for node in _nodes_in(field)}
    return nodes


def _tag(node: type[BaseModel]) -> Any:
    field = node.model_fields.get("by")
    return field.default if field else None


def _nodes_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _nodes_in(inner)
