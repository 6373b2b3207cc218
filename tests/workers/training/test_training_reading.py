"""Opening an image with its truth: all of it or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from training import write_set

from saccade.jobs.manifests.manifest import find_images
from saccade.pipeline.errors import SaccadeError
from saccade.pipeline.models.base import ModelSpec
from saccade.pipeline.recipe import PassRecipe, Recipe, Resolution
from saccade.pipeline.sources import open_source
from saccade.pipeline.sources.base import Source
from saccade.pipeline.truth import load_truth
from saccade.workers.folder import RunFolder
from saccade.workers.tasks import ImageEntry
from saccade.workers.training.frozen import Freezer, FrozenImage
from saccade.workers.training.reading import PassSight, TrainingImage


def frozen(entry: ImageEntry, folder: Path) -> FrozenImage:
    one = PassRecipe(name="glance", resolution=Resolution(downsample=1), model="a.py:b")
    recipe = Recipe(passes=(one,))
    return Freezer(recipe, (ModelSpec(("spot",)),), RunFolder(folder / "out"), 0.0)(entry)


def test_an_image_whose_truth_is_missing_is_closed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = write_set(tmp_path / "set")
    entry = find_images([str(images / "i3.png")])[0]
    truth = load_truth(images / "truth.yaml").model_copy(update={"path": "nowhere/{name}.png"})
    closed: list[str] = []

    def opened(uri: str) -> Source:
        source = open_source(uri)
        close = source.close
        monkeypatch.setattr(source, "close", lambda: (closed.append(uri), close()), raising=False)
        return source

    sight = PassSight("glance", 32, 8, 2, ("spot",))
    known = frozen(entry, tmp_path)
    monkeypatch.setattr("saccade.workers.training.frozen.open_source", opened)
    with pytest.raises(SaccadeError, match="nowhere"):
        TrainingImage(known, truth, [sight])
    assert closed == [entry.uri]
