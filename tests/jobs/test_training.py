"""``saccade train``: finds what is named, refuses another training, leaves behind what runs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from training import tree, write_config, write_rasters, write_set

from saccade.jobs.driver import run
from saccade.jobs.manifests.manifest import find_images
from saccade.jobs.options import RunOptions
from saccade.jobs.training import IDENTITY, claim, gather, line_of, train
from saccade.pipeline.errors import ManifestError, RecipeError, ResumeRefused
from saccade.pipeline.recipe_file import load_recipe, load_tree
from saccade.pipeline.result import open_result
from saccade.workers.folder import RunFolder
from saccade.workers.training.config import TrainRecipe
from saccade.workers.training.trainer import Moment

FOUR_BANDS = {
    "source": "net.py:tiny",
    "options": {"channels": 4},
    "normalise": {"by": "percentiles"},
}
ROOT = Path(__file__).parents[2]
ALL = ["glance", "focus", "refine"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_set(tmp_path / "set")


def test_what_is_left_behind_is_weights_a_card_and_a_recipe_that_runs_them(
    images: Path, tmp_path: Path
) -> None:
    card = {"title": "Spots", "licence": "CC0", "data": "made by a test"}
    out = train(write_config(images, card=card))
    facts = json.loads((out / "card.json").read_text())
    assert facts["licence"] == "CC0"
    assert facts["split"] == {"train": 3, "validation": 1}
    assert set(facts["average_precision"]) == set(ALL)
    assert facts["steps"] == 6
    assert "made by a test" in (out / "card.md").read_text()
    entries = find_images([str(images / "i3.png")])
    options = RunOptions(workers="local:1", device="cpu")
    recipe = load_recipe(out / "recipe.yaml")
    summary = run(recipe, entries, tmp_path / "run", options, model_folder=out)
    assert summary.complete == ("i3",)
    fused = np.asarray(open_result(tmp_path / "run").fused)
    assert fused.shape[0] == 1
    assert fused.any()


def test_four_bands_with_holes_are_trained_on_and_run_by_the_recipe_that_is_left(
    tmp_path: Path,
) -> None:
    images = write_rasters(tmp_path / "set")
    bands = {"bands": ["nir", "red", "green", 3]}
    passes = [{**one, **bands} for one in tree()["passes"]]
    out = train(write_config(images, model=FOUR_BANDS, passes=passes))
    given = "bands nir, red, green, 3; normalise by percentiles, low 2.0, high 98.0"
    assert json.loads((out / "card.json").read_text())["given"] == dict.fromkeys(ALL, given)
    assert given in (out / "card.md").read_text()
    recipe, options = load_recipe(out / "recipe.yaml"), RunOptions(workers="local:1", device="cpu")
    entries = find_images([str(images / "i3.tif")])
    assert run(recipe, entries, tmp_path / "run", options, model_folder=out).complete == ("i3",)
    plan = open_result(tmp_path / "run").plan
    known = RunFolder(out).read_image_plan("i3")
    assert [one.inputs for one in plan.passes] == [one.inputs for one in known.passes]
    assert [one.bands for one in plan.passes] == [(3, 0, 1, 2)] * len(ALL)
    assert plan.statistics == known.statistics is not None


def test_the_recipe_hands_features_on_where_the_model_takes_them(images: Path) -> None:
    model = {"source": "net.py:tiny", "options": {"takes": True}}
    out = train(write_config(images, model=model, schedule=[{"steps": 1, "train": ALL}]))
    passes = load_recipe(out / "recipe.yaml").passes
    assert [one.features for one in passes] == [False, True, True]
    assert [one.guidance for one in passes] == [False, True, True]


def test_the_same_command_again_trains_nothing_again(images: Path) -> None:
    out = train(write_config(images))
    before = (out / "weights.safetensors").read_bytes()
    log = (out / "log.jsonl").read_text()
    train(write_config(images))
    assert (out / "weights.safetensors").read_bytes() == before
    assert (out / "log.jsonl").read_text() == log


def test_another_configuration_is_refused_and_every_difference_named(images: Path) -> None:
    train(write_config(images))
    other = write_config(images, seed=3, card={"title": "A card decides no weight"})
    with pytest.raises(ResumeRefused, match=r"config\.seed: 0 -> 3"):
        train(other)
    out = train(other, force=True)
    assert json.loads((out / "card.json").read_text())["seed"] == 3


def test_a_word_that_an_older_version_did_not_know_is_no_difference(images: Path) -> None:
    materials = gather(write_config(images))
    claim(materials, force=False)
    path = materials.out / IDENTITY
    then = json.loads(path.read_text())
    del then["config"]["model"]["saliency"]
    path.write_text(json.dumps(then))
    claim(gather(write_config(images)), force=False)


def test_an_unknown_key_names_the_nearest(images: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean 'per_image'"):
        gather(write_config(images, sampling={"per_imag": 3}))


def test_an_image_of_the_split_that_is_in_no_manifest_is_named(images: Path) -> None:
    (images / "split.csv").write_text("name,part\ni0,train\nlost,train\n")
    with pytest.raises(ManifestError, match="lost"):
        gather(write_config(images))


def test_a_part_without_images_is_refused(images: Path) -> None:
    (images / "split.csv").write_text("name,part\ni0,test\n")
    with pytest.raises(ManifestError, match="found parts test"):
        gather(write_config(images))


def test_a_schedule_of_an_unknown_pass_is_refused(images: Path) -> None:
    with pytest.raises(RecipeError, match="found focuss"):
        gather(write_config(images, schedule=[{"steps": 1, "train": ["focuss"]}]))


def test_the_default_schedule_is_progressive(images: Path) -> None:
    stages = gather(write_config(images, schedule=[])).config.stages
    assert [stage.train for stage in stages] == [("glance",), ("focus",), tuple(ALL)]


def test_a_run_of_several_passes_teaches_a_single_one(images: Path, tmp_path: Path) -> None:
    out = train(write_config(images))
    options = RunOptions(workers="local:1", device="cpu")
    entries = find_images([str(images / "images.csv")])
    run(load_recipe(out / "recipe.yaml"), entries, tmp_path / "run", options, model_folder=out)
    student = write_config(
        images,
        "student.yaml",
        passes=tree()["passes"][:1],
        schedule=[{"steps": 3, "train": ["glance"]}],
        distil={"teacher": str(tmp_path / "run")},
        output={"folder": str(tmp_path / "student")},
    )
    train(student)
    lines = (tmp_path / "student" / "log.jsonl").read_text().splitlines()
    assert all("glance/teacher" in json.loads(line)["losses"] for line in lines)


@pytest.mark.parametrize("path", sorted((ROOT / "examples" / "training").glob("*.yaml")))
def test_the_examples_are_valid_configurations(path: Path) -> None:
    assert load_tree(path, TrainRecipe).passes


def test_progress_says_how_long_it_takes_yet() -> None:
    losses = {"a/answer": 0.5, "a/gain": 0.2, "total": 0.75}
    line = line_of(Moment(10, 40, 20.0, 10, losses, {"a": {"x": 0.25, "y": None}}))
    assert line == "step 10/40 | loss 0.7500 | a 0.5000 | AP a 0.250 | about 1 min 00 s left"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray Train's own
@pytest.mark.parametrize("kind", ["photographs", "rasters"])
def test_two_processes_on_ray_train_the_same_twice(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    reason = "Ray Train needs the extra 'train'"
    pytest.importorskip("ray.train", reason=reason, exc_type=ImportError)
    # the model's file imports from here, in processes that pytest does not start
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"), prepend=os.pathsep)
    found, words = [], {}
    if kind == "rasters":
        images, words = write_rasters(tmp_path / "rasters"), {"model": FOUR_BANDS}
    for name in ("a", "b"):
        settings = {"ray": {"workers": 2}, "output": {"folder": str(tmp_path / name)}}
        out = train(write_config(images, f"{name}.yaml", **settings, **words))
        found.append((out / "weights.safetensors").read_bytes())
    assert found[0] == found[1]
