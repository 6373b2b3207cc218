from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from saccade.jobs.demo import Fared, demo_recipe, how_it_fared, run_demo
from saccade.jobs.sample import SampleTruth, truth_path
from saccade.pipeline.recipe_file import load_recipe
from saccade.pipeline.result import open_result

SIDE_PX = 2048

Demo = Callable[[], list[str]]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """Runs the demonstration, each time in the same folder, where no real slide is near."""
    folder = tmp_path_factory.mktemp("demo") / "a" / "b"
    folder.mkdir(parents=True)
    console = Console(quiet=True)

    def show() -> list[str]:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            return list(run_demo(Path("demo"), None, "local:1", console, side_px=SIDE_PX))

    show.folder = folder / "demo"  # type: ignore[attr-defined]
    return show


@pytest.fixture(scope="module")
def folder(demo: Demo) -> Path:
    """The folder of a demonstration that has run."""
    demo()
    found: Path = demo.folder  # type: ignore[attr-defined]
    return found


def fared(folder: Path) -> Fared:
    truth = SampleTruth.read(truth_path(folder / "sample.tif"))
    return how_it_fared(open_result(folder / "run"), truth)


def test_the_lesions_are_refined_and_most_of_the_slide_is_not(folder: Path) -> None:
    found = fared(folder)
    assert found.nests_refined > 0.95
    assert found.refined < 0.4


def test_lesions_score_far_higher_than_other_tissue(folder: Path) -> None:
    found = fared(folder)
    assert found.inside > 0.2
    assert found.inside > 10 * found.outside


def test_focus_goes_to_the_tissue_and_refinement_to_a_third_of_it(folder: Path) -> None:
    passes = open_result(folder / "run").summary()["passes"]
    visited = {name: count["visited"] / count["tiles"] for name, count in passes.items()}
    assert visited["glance"] == 1
    assert visited["refine"] < 0.5 * visited["focus"] < 0.5


def test_the_demo_says_where_everything_is_and_how_the_truth_fared(
    demo: Demo, folder: Path
) -> None:
    lines = dict(line.split(":", 1) for line in demo())
    assert list(lines) == ["slide", "picture", "result", "truth"]
    for key in ("slide", "picture", "result"):
        assert (folder.parent / lines[key].strip()).exists()
    assert lines["truth"].strip() == str(fared(folder))


def test_running_the_demo_again_repeats_nothing(demo: Demo, folder: Path) -> None:
    def written() -> dict[Path, int]:
        places = [folder / "sample.tif", *(folder / "run" / "results").rglob("*")]
        return {path: path.stat().st_mtime_ns for path in places}

    before = written()
    demo()
    assert written() == before


def test_a_truth_that_is_elsewhere_is_not_said_to_be_found(folder: Path) -> None:
    truth = SampleTruth.read(truth_path(folder / "sample.tif"))
    moved = SampleTruth(
        truth.shape, truth.mpp, truth.seed, truth.tissue_share, ((40.0, 40.0, 40.0),)
    )
    found = how_it_fared(open_result(folder / "run"), moved)
    assert found.nests_refined == 0
    assert found.inside < 0.05


def test_both_passes_of_the_shipped_recipe_average_over_the_same_physical_size() -> None:
    focus, refine = load_recipe(demo_recipe()).passes[1:]
    radii_um = [
        (p.resolution.mpp or np.nan) * p.model.options["radius_px"] for p in (focus, refine)
    ]
    assert radii_um == [8, 8]
