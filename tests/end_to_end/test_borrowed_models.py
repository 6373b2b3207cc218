"""Models from elsewhere, from recipe to result, on real pixels cut small."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from libraries import library
from PIL import Image

from saccade.jobs.driver import run
from saccade.jobs.options import RunOptions
from saccade.jobs.sample import write_sample_slide
from saccade.pipeline.errors import ResumeRefused
from saccade.pipeline.recipe_file import load_recipe
from saccade.pipeline.result import Result, open_result

if TYPE_CHECKING:
    from fakes import Lab

METHODS = Path(__file__).parents[2] / "examples" / "methods"
NEEDS = {
    "slicing": "torch",
    "timm": "timm",
    "huggingface": "transformers",
    "smp": "segmentation_models_pytorch",
    "onnx": "onnxruntime",
}


@pytest.fixture(scope="module")
def fundus(data: Path) -> np.ndarray:
    """512 x 512 pixels of a fundus photograph, vessels and the optic disc among them."""
    path = data / "idrid" / "IDRiD_01.jpg"
    if not path.is_file():
        pytest.skip(f"a fundus photograph not found at {path}; set SACCADE_TEST_DATA")
    with Image.open(path) as image:
        return np.asarray(image.crop((1600, 1200, 2112, 1712)).convert("RGB"))


def tree(name: str) -> dict[str, Any]:
    return load_recipe(METHODS / f"{name}.yaml").model_dump(mode="json")


@pytest.mark.parametrize("name", NEEDS)
def test_an_example_runs_on_a_photograph_and_its_last_pass_answers(
    name: str, lab: Lab, fundus: np.ndarray
) -> None:
    library(NEEDS[name])
    shutil.copy(METHODS / "edges.onnx", lab.models)
    result = lab.run(tree(name), fundus)
    check(result, name)


@pytest.mark.parametrize("name", NEEDS)
def test_an_example_runs_on_the_generated_slide(name: str, tmp_path: Path) -> None:
    library(NEEDS[name])
    write_sample_slide(tmp_path / "slide.tif", side_px=1024)
    recipe = METHODS / f"{name}.yaml"
    options = RunOptions(workers="local:1", device="cpu")
    summary = run(
        load_recipe(recipe),
        [tmp_path / "slide.tif"],
        tmp_path / "run",
        options,
        model_folder=METHODS,
    )
    assert summary.complete == ("slide",), summary.quarantined
    check(open_result(tmp_path / "run" / "results" / "slide.ome.zarr"), name)


def check(result: Result, name: str) -> None:
    scores = np.asarray(result.fused)
    last = [one.name for one in load_recipe(METHODS / f"{name}.yaml").passes][-1]
    said = result.summary()
    assert last in str(said)
    assert scores.std() > 0
    if len(result.classes) > 1 and name in ("huggingface", "smp"):
        answered = scores.sum(0)[scores.sum(0) > 0]
        assert np.abs(answered.astype(int) - 255).max() <= len(result.classes)


def test_the_auto_search_leaves_an_onnx_model_as_it_is(lab: Lab, fundus: np.ndarray) -> None:
    library("onnxruntime")
    shutil.copy(METHODS / "edges.onnx", lab.models)
    chosen = lab.run(tree("onnx") | {"precision": "auto"}, fundus)
    plain = lab.run(tree("onnx"), fundus)
    assert np.array_equal(np.asarray(chosen.fused), np.asarray(plain.fused))


def test_a_run_is_not_resumed_with_another_onnx_file(lab: Lab, fundus: np.ndarray) -> None:
    library("onnx")
    import libraries

    recipe = load_recipe(METHODS / "onnx.yaml")
    folder, models = lab.folder / "run", lab.folder / "models"
    models.mkdir()
    options = RunOptions(workers="local:1", device="cpu")
    for made in (libraries.edges_graph(), libraries.convolution_graph(classes=1)[0]):
        first = not (models / "edges.onnx").exists()
        libraries.save(made, models / "edges.onnx")
        if first:
            run(recipe, [lab.entry("one", fundus)], folder, options, model_folder=models)
        else:
            with pytest.raises(ResumeRefused, match=r"model_hashes\.edges"):
                run(recipe, [lab.entry("one", fundus)], folder, options, model_folder=models)
