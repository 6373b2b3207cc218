"""The same bytes from workers in this process and from Ray, from one and from several."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import pass_of, several_passes

from saccade.jobs.driver import run
from saccade.jobs.options import RunOptions
from saccade.pipeline.recipe import Recipe

Results = Callable[[Path], dict[str, bytes]]


def recipe() -> Recipe:
    """Everything that could depend on who computes what: selection, guidance, blending, batches."""
    chosen = {"by": "top_fraction", "fraction": 0.4, "signal": "a", "statistic": "mean"}
    passes = [
        pass_of("glance", "ConvNet", 8, tile=8, batch=3),
        pass_of("focus", "ConvNet", 2, tile=32, window=64, batch=2, select=chosen),
        pass_of("refine", "UNet", 1, tile=64, window=128, select=chosen, blend="hann"),
    ]
    return Recipe.model_validate(
        several_passes(passes, "float32", chunk=64, shard=128, fuse="mean")
    )


def made_by(workers: str, folder: Path, model_folder: Path, images: list[Path]) -> Path:
    options = RunOptions(workers=workers, device="cpu")
    summary = run(recipe(), images, folder, options, model_folder=model_folder)
    assert len(summary.complete) == len(images), summary.quarantined
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, make_image: Callable[..., Path]) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    return [
        make_image(folder / "one.tif", 397, 509, 3),
        make_image(folder / "two.tif", 211, 307, 5),
    ]


@pytest.fixture(scope="module")
def reference(
    tmp_path_factory: pytest.TempPathFactory,
    model_folder: Path,
    images: list[Path],
    results: Results,
) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("reference") / "run"
    found = results(made_by("local:1", folder, model_folder, images))
    assert len(found) > 50
    return found


def differing(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    return sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))


def test_a_second_run_gives_the_same_bytes(
    tmp_path: Path,
    model_folder: Path,
    images: list[Path],
    results: Results,
    reference: dict[str, bytes],
) -> None:
    again = results(made_by("local:1", tmp_path / "run", model_folder, images[::-1]))
    assert differing(again, reference) == []


def test_two_workers_in_this_process_give_the_same_bytes(
    tmp_path: Path,
    model_folder: Path,
    images: list[Path],
    results: Results,
    reference: dict[str, bytes],
) -> None:
    found = results(made_by("local:2", tmp_path / "run", model_folder, images))
    assert differing(found, reference) == []


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_workers_on_ray_give_the_same_bytes(
    tmp_path: Path,
    model_folder: Path,
    images: list[Path],
    results: Results,
    reference: dict[str, bytes],
    count: int,
) -> None:
    found = results(made_by(f"ray:{count}", tmp_path / "run", model_folder, images))
    assert differing(found, reference) == []
