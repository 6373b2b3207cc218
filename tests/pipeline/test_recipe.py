"""Recipes: what is refused and in which words, and what their fingerprint stands for."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from saccade.pipeline.errors import RecipeError
from saccade.pipeline.recipe import Fuse, Recipe, Resolution
from saccade.pipeline.recipe_file import load_recipe, parse_recipe, recipe_schema

RECIPE = """\
passes:
  - name: glance
    resolution: {downsample: 16}
    model: builtin:tissue
  - name: refine
    resolution:
      downsample: 4
    model:
      source: builtin:hematoxylin
      options: {gain: 1.5, bias: 0.1}
      classes: [nuclei]
    tile: 256
    select:
      by: top_fraction
      fraction: 0.3
      within:
        by: foreground
        above: 0.4
output:
  scores: uint8
  chunk: 512
"""
TREE = yaml.safe_load(RECIPE)


def changed(path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    tree: dict[str, Any] = copy.deepcopy(TREE)
    node: Any = tree
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    return tree


def as_recipe(tree: dict[str, Any]) -> Recipe:
    return parse_recipe(yaml.safe_dump(tree, sort_keys=False))


# Mistakes


@pytest.mark.parametrize(
    ("wrong", "right", "line", "place"),
    [
        ("passs:", "passes:", 1, "passs"),
        ("    modle: builtin:tissue", "    model: builtin:tissue", 4, "passes[0].modle"),
        ("      downsampel: 4", "      downsample: 4", 7, "passes[1].resolution.downsampel"),
        ("      optoins: {", "      options: {", 10, "passes[1].model.optoins"),
        ("      fractoin: 0.3", "      fraction: 0.3", 15, "passes[1].select.fractoin"),
        ("        abov: 0.4", "        above: 0.4", 18, "passes[1].select.within.abov"),
        ("  chunck: 512", "  chunk: 512", 21, "output.chunck"),
        ("  scoers: uint8", "  scores: uint8", 20, "output.scoers"),
    ],
)
def test_an_unknown_key_is_named_with_its_line_and_the_nearest_known_key(
    wrong: str, right: str, line: int, place: str
) -> None:
    text = RECIPE.replace(right, wrong)
    assert text != RECIPE
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, name="r.yaml")
    known = right.strip().partition(":")[0]
    expected = f"r.yaml:{line}: {place}: unknown key {place.split('.')[-1]!r}; "
    assert expected + f"did you mean {known!r}?" in str(caught.value)


def test_an_unknown_key_like_no_other_lists_the_known_ones() -> None:
    with pytest.raises(RecipeError, match=r"recipe:22: zzz: .*known keys: area, fuse, mask, max_"):
        parse_recipe(RECIPE + "zzz: 1\n")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("passes",), [], "passes: "),
        (
            ("passes", 0, "resolution"),
            {},
            "exactly one of mpp, gsd, downsample, level, auto; found none",
        ),
        (("passes", 0, "resolution"), {"mpp": 8, "level": 1}, "found mpp, level"),
        (("passes", 0, "resolution"), {"downsample": 0.5}, "passes[0].resolution.downsample"),
        (("passes", 0, "name"), "../escape", "passes[0].name"),
        (("passes", 0, "name"), "refine", "pass names must differ; found twice: refine"),
        (("passes", 0, "tile"), 0, "passes[0].tile"),
        (("passes", 1, "select", "fraction"), 1.5, "passes[1].select.fraction"),
        (
            ("passes", 1, "select", "by"),
            "topfraction",
            "found 'topfraction'; did you mean 'by: top_fraction'?",
        ),
        (
            ("passes", 0, "model"),
            {"source": "model.py:build", "normalise": {"deviations": 2}},
            "model.normalise: 'by' of fixed, percentiles, standard expected; found no 'by'",
        ),
        (("passes", 0, "select"), {"by": "top_k", "k": 3}, "no earlier answer to select from"),
        (("passes", 0, "guidance"), True, "no earlier answer to be guided by"),
        (("passes", 1, "select"), {"by": "budget"}, "pixels, seconds or share"),
        (("passes", 1, "select"), {"by": "union", "of": []}, "passes[1].select.of"),
        (("fuse",), "replace", "fuse: "),
        (("precision",), "float64", "precision: "),
        (("tolerance",), {"mean": -0.1}, "tolerance.mean: "),
        (("tolerance",), {"labels": 1.1}, "tolerance.labels: "),
        (("tolerance",), {"label": 0.9}, "unknown key 'label'; did you mean 'labels'?"),
        (("output", "chunk"), 500, "chunk times a power of two"),
        (("output", "keep"), ["detail"], "output.keep must name passes"),
        (("version",), 2, "version: "),
    ],
)
def test_a_wrong_value_is_refused_where_it_stands(
    path: tuple[str | int, ...], value: Any, words: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        as_recipe(changed(path, value))
    assert words in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_every_mistake_of_a_recipe_is_named_at_once() -> None:
    text = RECIPE.replace("fraction: 0.3", "fraction: 3").replace("chunk: 512", "chunk: 2")
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text)
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == ["recipe:15", "recipe:21"]


def test_a_missing_key_is_named() -> None:
    tree = changed(("passes", 0, "model"), None)
    del tree["passes"][0]["model"]
    with pytest.raises(RecipeError, match=r"passes\[0\]\.model: required key is missing"):
        as_recipe(tree)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words", "42"])
def test_a_recipe_that_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="a recipe is a mapping with 'passes'"):
        parse_recipe(text)


@pytest.mark.parametrize("text", ["passes: [", "a: b: c", "\tpasses: 1", "passes: \x00"])
def test_what_is_not_yaml_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="not valid YAML"):
        parse_recipe(text)


def test_python_objects_in_yaml_are_refused_and_do_not_run(tmp_path: Path) -> None:
    victim = tmp_path / "touched"
    text = f"passes: !!python/object/apply:pathlib.Path.touch [{str(victim)!r}]\n"
    with pytest.raises(RecipeError, match="not valid YAML"):
        parse_recipe(text)
    assert not victim.exists()


@pytest.mark.parametrize("link", ["[{}]", "{{<<: [{}]}}"])
def test_a_yaml_bomb_is_refused(link: str) -> None:
    bomb = ["a0: &a0 {x: 1}"]
    bomb += [f"a{i}: &a{i} " + link.format(", ".join([f"*a{i - 1}"] * 9)) for i in range(1, 31)]
    with pytest.raises(RecipeError, match="at most 10000 values"):
        parse_recipe("\n".join([*bomb, "passes: *a30"]))


@pytest.mark.parametrize("text", ["passes: &me [*me]", "passes: " + "[" * 5003 + "]" * 5003])
def test_a_yaml_document_without_end_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="at most 64 deep"):
        parse_recipe(text)


def test_anchors_and_aliases_may_be_used() -> None:
    text = RECIPE.replace("resolution: {d", "resolution: &it {d")
    text = text.replace("resolution:\n      downsample: 4", "resolution: *it")
    assert parse_recipe(text).passes[1].resolution == Resolution(downsample=16)


def test_a_key_given_twice_is_refused() -> None:
    with pytest.raises(RecipeError, match="recipe:23: fuse is given twice, first on line 1"):
        parse_recipe("fuse: max\n" + RECIPE + "fuse: mean\n")


def test_a_key_that_is_no_word_is_refused() -> None:
    with pytest.raises(RecipeError):
        parse_recipe("? [a, b]\n: 1\n" + RECIPE)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"absent\.yaml: the recipe can't be read: No such file"):
        load_recipe(tmp_path / "absent.yaml")


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.yaml"
    path.write_bytes(b"II*\x00\xff\xfe\x80")
    with pytest.raises(RecipeError, match=r"image\.yaml"):
        load_recipe(path)


# Values


def test_a_loaded_file_names_itself_in_messages(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(RECIPE.replace("tile: 256", "tiel: 256"))
    with pytest.raises(RecipeError, match=r"mine\.yaml:12: "):
        load_recipe(path)


def test_a_recipe_is_frozen_at_every_depth() -> None:
    recipe = as_recipe(TREE)
    for node in (recipe, recipe.passes[1], recipe.passes[1].model, recipe.passes[1].select):
        field = next(iter(type(node).model_fields))
        with pytest.raises(ValidationError, match="frozen"):
            setattr(node, field, None)


def test_a_recipe_written_as_yaml_is_read_back_equal() -> None:
    recipe = as_recipe(TREE)
    again = parse_recipe(yaml.safe_dump(recipe.model_dump(mode="json")))
    assert again == recipe
    assert again.fingerprint() == recipe.fingerprint()


def test_json_is_a_recipe_as_well() -> None:
    assert parse_recipe(json.dumps(TREE)) == as_recipe(TREE)


def test_short_forms_mean_what_they_are_short_for() -> None:
    short = as_recipe(changed(("passes", 1, "select"), "all"))
    spelled = as_recipe(changed(("passes", 1, "select"), {"by": "all"}))
    assert short == spelled
    short = as_recipe(changed(("passes", 1, "select", "within"), "foreground"))
    spelled = as_recipe(changed(("passes", 1, "select", "within"), {"by": "foreground"}))
    assert short == spelled
    tree = changed(("passes", 0, "model"), {"source": "builtin:tissue"})
    assert as_recipe(tree) == as_recipe(TREE)


def test_a_resolution_reads_as_it_is_written() -> None:
    assert str(Resolution(mpp=0.25)) == "mpp 0.25"
    assert str(Resolution(level=-1)) == "level -1"


# Fingerprints


def shuffled(node: Any, seed: int) -> Any:
    if isinstance(node, dict):
        keys = random.Random(seed).sample(list(node), len(node))
        return {key: shuffled(node[key], seed) for key in keys}
    return [shuffled(item, seed) for item in node] if isinstance(node, list) else node


@given(st.integers(0, 2**31))
def test_the_fingerprint_does_not_depend_on_the_order_of_keys(seed: int) -> None:
    assert as_recipe(shuffled(TREE, seed)).fingerprint() == as_recipe(TREE).fingerprint()


def test_the_fingerprint_does_not_depend_on_defaults_being_spelled_out() -> None:
    spelled = changed(("fuse",), "finest") | {"version": 1, "max_bad_tiles": 0.05}
    spelled["passes"][1]["select"]["signal"] = "saliency"
    spelled["passes"][0] |= {"tile": "auto", "select": "all", "context": []}
    assert as_recipe(spelled).fingerprint() == as_recipe(TREE).fingerprint()


VALUES: list[tuple[tuple[str | int, ...], Any]] = [
    (("passes", 0, "name"), "look"),
    (("passes", 0, "resolution"), {"mpp": 16}),
    (("passes", 0, "resolution", "downsample"), 17),
    (("passes", 0, "model"), "builtin:other"),
    (("passes", 1, "model", "weights"), "w.safetensors"),
    (("passes", 1, "model", "options", "gain"), 1.25),
    (("passes", 1, "model", "classes"), ["cells"]),
    (("passes", 1, "tile"), 257),
    (("passes", 1, "halo"), 13),
    (("passes", 1, "window"), 769),
    (("passes", 1, "batch"), 3),
    (("passes", 1, "blend"), "hann"),
    (("passes", 1, "guidance"), True),
    (("passes", 1, "context"), [2.5]),
    (("passes", 1, "select", "fraction"), 0.31),
    (("passes", 1, "select", "statistic"), "max"),
    (("passes", 1, "select", "within", "above"), 0.41),
    (("fuse",), "mean"),
    (("precision",), "bfloat16"),
    (("tolerance",), {"mean": 0.003}),
    (("tolerance",), {"labels": 0.99}),
    (("max_bad_tiles",), 0.07),
    (("mask",), "mask.png"),
    (("output", "scores"), "float16"),
    (("output", "chunk"), 256),
    (("output", "shard"), 1024),
    (("output", "classes"), ["nuclei"]),
    (("output", "keep"), ["glance"]),
    (("output", "label_threshold"), 0.3),
]


def test_the_fingerprint_changes_with_any_value() -> None:
    prints = [as_recipe(changed(path, value)).fingerprint() for path, value in VALUES]
    assert len({as_recipe(TREE).fingerprint(), *prints}) == len(VALUES) + 1


def test_the_fingerprint_changes_with_the_order_of_passes() -> None:
    tree = copy.deepcopy(TREE)
    del tree["passes"][1]["select"]
    there = as_recipe(tree).fingerprint()
    tree["passes"].reverse()
    assert as_recipe(tree).fingerprint() != there


# Overrides


def test_an_override_changes_the_named_values_and_nothing_else() -> None:
    changes = {"passes": {"refine": {"tile": 512, "select": {"fraction": 0.7}}}, "fuse": "max"}
    expected = changed(("passes", 1, "tile"), 512) | {"fuse": "max"}
    expected["passes"][1]["select"]["fraction"] = 0.7
    assert as_recipe(TREE).overridden(changes) == as_recipe(expected)


def test_an_overridden_resolution_replaces_the_old_one() -> None:
    recipe = as_recipe(TREE).overridden({"passes": {"glance": {"resolution": {"mpp": 7.0}}}})
    assert recipe.passes[0].resolution == Resolution(mpp=7.0)


def test_an_override_may_replace_the_kind_of_selector() -> None:
    select = {"by": "top_k", "k": 5}
    recipe = as_recipe(TREE).overridden({"passes": {"refine": {"select": select}}})
    assert recipe == as_recipe(changed(("passes", 1, "select"), select))


def test_an_override_may_use_short_forms() -> None:
    recipe = as_recipe(TREE).overridden({"passes": {"refine": {"select": "all"}}})
    assert recipe == as_recipe(changed(("passes", 1, "select"), "all"))


def test_no_override_is_the_recipe_itself() -> None:
    recipe = as_recipe(TREE)
    assert recipe.overridden({}) is recipe


def test_an_override_of_a_pass_that_does_not_exist_is_refused() -> None:
    with pytest.raises(KeyError, match="detail"):
        as_recipe(TREE).overridden({"passes": {"detail": {"tile": 5}}})


@pytest.mark.parametrize("changes", [{"passes": {"refine": {"tiel": 5}}}, {"fsue": "max"}])
def test_an_override_is_checked_like_a_recipe(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        as_recipe(TREE).overridden(changes)


# Schema


def test_the_schema_describes_every_field() -> None:
    schema = json.loads(recipe_schema())
    for name, node in [*schema["$defs"].items(), ("Recipe", schema)]:
        for field, what in node.get("properties", {}).items():
            target = schema["$defs"].get(what.get("$ref", "").removeprefix("#/$defs/"), {})
            described = what.get("description") or target.get("description")
            assert described, f"{name}.{field} has no description"


def test_the_schema_knows_every_fuser_and_selector() -> None:
    schema = json.loads(recipe_schema())
    assert set(schema["properties"]["fuse"]["enum"]) == set(get_args(Fuse))
    assert {"Budget", "Dilate", "Foreground", "Union"} <= set(schema["$defs"])


def test_the_examples_are_valid_recipes_and_fit_the_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    folder = Path(__file__).parents[2] / "examples"
    files = [path for path in sorted(folder.rglob("*.yaml")) if path.parent.name != "training"]
    if not files:
        pytest.skip(f"no recipes in {folder}")
    for file in files:
        load_recipe(file)
        jsonschema.validate(yaml.safe_load(file.read_text()), json.loads(recipe_schema()))


@pytest.mark.parametrize(
    "select",
    ["all", {"by": "dilate", "of": "foreground"}, {"by": "dilate", "of": {"by": "top_k", "k": 3}}],
)
def test_what_is_a_recipe_fits_the_schema_and_what_is_not_does_not(select: Any) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(recipe_schema())
    jsonschema.validate(changed(("passes", 1, "select"), select), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(changed(("passes", 1, "tiel"), 3), schema)
