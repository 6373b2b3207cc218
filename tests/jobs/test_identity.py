"""What a run is, and in which words two runs differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from saccade.jobs.identity import RunIdentity, check_same, read_identity, write_identity
from saccade.pipeline.errors import ModelNotFound, ResumeRefused, StoreError
from saccade.pipeline.recipe import Recipe
from saccade.workers.folder import RunFolder

ONE = {"name": "one", "resolution": {"downsample": 2}, "model": "builtin:tissue"}


def identity(folder: Path, threads: int = 1, device: str = "cpu", **changes: Any) -> RunIdentity:
    recipe = Recipe.model_validate({"passes": [ONE | changes]})
    return RunIdentity.of(recipe, folder, device, threads)


def test_an_identity_survives_its_file(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert read_identity(folder) is None
    write_identity(folder, identity(tmp_path), tmp_path)
    then = read_identity(folder)
    assert then is not None
    assert then.differences(identity(tmp_path)) == ()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"tile": 64}, 'recipe.passes[0].tile: "auto" -> 64'),
        ({"threads": 3}, "torch_threads: 1 -> 3"),
        ({"device": "cuda:1"}, 'device: "cpu" -> "cuda"'),
    ],
)
def test_every_difference_names_its_place_and_both_values(
    changes: dict[str, Any], line: str, tmp_path: Path
) -> None:
    then, now = identity(tmp_path), identity(tmp_path, **changes)
    assert then.differences(now) == (line,)
    with pytest.raises(ResumeRefused) as refused:
        check_same(RunFolder(tmp_path), then, now)
    assert line in str(refused.value)
    assert "--force" in str(refused.value)


def test_another_number_of_passes_is_told_as_a_whole(tmp_path: Path) -> None:
    two = Recipe.model_validate({"passes": [ONE, ONE | {"name": "two"}]})
    lines = identity(tmp_path).differences(RunIdentity.of(two, tmp_path, "cpu", 1))
    assert "recipe.passes: one -> one, two" in lines
    assert any(line.startswith("model_hashes.two: null -> ") for line in lines)


def test_code_and_options_of_a_model_are_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("def build(n=1): ...\n")
    model: dict[str, Any] = {"source": "model.py:build"}
    first = identity(tmp_path, model=model)
    (tmp_path / "model.py").write_text("def build(n=2): ...\n")
    (difference,) = first.differences(identity(tmp_path, model=model))
    assert difference.startswith("model_hashes.one: ")


def test_a_missing_model_is_an_error_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"nowhere\.py"):
        identity(tmp_path, model="nowhere.py:build")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "3", '{"recipe": 1}'])
def test_an_identity_that_makes_no_sense_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(StoreError, match=r"run\.json"):
        read_identity(RunFolder(tmp_path))


def test_provenance_says_what_made_a_result_in_plain_json(tmp_path: Path) -> None:
    told = json.loads(json.dumps(identity(tmp_path).provenance()))
    assert told["device"] == "cpu"
    assert {"python", "torch", "saccade"} <= told["versions"].keys()
