"""What devices waited for between images is read from a journal as it was written."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from saccade.pipeline.models.base import Views
from saccade.pipeline.recipe_file import load_recipe
from saccade.pipeline.sources import open_source

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
MODULES = ("borders_spans", "borders_device", "borders_crops")


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in MODULES:
        sys.modules.pop(name, None)


def sweep(unit: str, device: tuple[float, float], **more: Any) -> dict[str, Any]:
    spans = {"device": list(device), **more.pop("spans", {})}
    seconds = {"device": device[1] - device[0]}
    named = {"kind": "receipt", "unit": unit, "image": unit[0], "worker": "w", "pass": "refine"}
    return {**named, "spans": spans, "seconds": seconds, **more}


def step(unit: str, kind: str, span: tuple[float, float]) -> dict[str, Any]:
    spans, seconds = {"step": list(span)}, {"step": span[1] - span[0]}
    named = {"kind": "receipt", "unit": unit, "image": unit[0], "worker": "v", "step": kind}
    return {**named, "spans": spans, "seconds": seconds}


def given(unit: str, worker: str, at: float) -> dict[str, Any]:
    return {"kind": "started", "unit": unit, "image": unit[0], "worker": worker, "at": at}


def test_a_gap_between_images_is_told_from_one_within() -> None:
    from borders_spans import waits

    units = [sweep("a1", (0, 2)), sweep("a2", (3, 5)), sweep("b1", (12, 20)), sweep("b2", (19, 23))]
    waited = waits("w", units)
    assert (waited.seconds, waited.at_borders, waited.borders, waited.longest) == (23, 7, 1, 7)
    assert waited.busy == 2 + 2 + 8 + 4


def test_every_second_of_a_gap_has_one_cause_the_nearest_to_the_device() -> None:
    from borders_spans import History, waits

    before, after = sweep("a1", (0, 2)), sweep("b1", (29, 31), spans={"read": [24, 30]})
    records = [
        before,
        given("b0", "v", 5),
        step("b0", "select", (8, 13)),
        given("b1", "w", 18),
        after,
    ]
    history = History(records, sleeping=True)
    (gap,) = waits("w", [before, after]).gaps
    told = history.causes(gap)
    assert told == {
        "driver": (5 - 2) + (18 - 13),
        "steps' line": 8 - 5,
        "select": 13 - 8,
        "open": 24 - 18,
        "read": 29 - 24,
    }
    assert sum(told.values()) == gap.seconds


def test_a_gap_counts_as_idle_only_as_far_as_processors_had_nothing_to_do() -> None:
    from borders_spans import History, waits

    before, after = sweep("a1", (0, 2)), sweep("b1", (13, 17))
    busy = [step("c0", "prepare", (0, 7)), step("d0", "finalise", (5, 20))]
    (gap,) = waits("w", [before, after]).gaps
    for sleeping in (True, False):
        history = History([before, after, *busy], sleeping=sleeping)
        assert history.idle_seconds(gap, cores=1) == 0
        assert history.idle_seconds(gap, cores=2) == gap.seconds - (7 - 5)
        assert history.idle_seconds(gap, cores=3) == gap.seconds


def test_a_device_that_sleeps_takes_no_processor_and_one_that_computes_does() -> None:
    from borders_spans import History, waits

    gapped = [sweep("a1", (0, 2)), sweep("b1", (5, 7))]
    other = sweep("c1", (0, 9), worker="v")
    (gap,) = waits("w", gapped).gaps
    assert History([*gapped, other], sleeping=True).idle_seconds(gap, cores=1) == gap.seconds
    assert History([*gapped, other], sleeping=False).idle_seconds(gap, cores=1) == 0


def test_the_stand_in_for_a_device_answers_for_a_cell_by_its_own_pixels() -> None:
    from borders_device import build

    pixels = torch.rand(2, 3, 24, 16, generator=torch.Generator().manual_seed(5))
    model = build(seconds_per_megapixel=0.0, stride=4)
    whole = model(Views(pixels)).scores
    assert whole.shape == (2, 1, 6, 4)
    assert torch.equal(model(Views(pixels[:, :, 8:16])).scores, whole[:, :, 2:4])


def test_crops_are_pyramids_of_what_was_there_and_the_recipe_reads(tmp_path: Path) -> None:
    from borders_crops import recipe_text, write_crops

    pixels = np.random.default_rng(3).integers(0, 255, (768, 1024, 3), np.uint8)
    image = tmp_path / "image.tif"
    tifffile.imwrite(image, pixels, tile=(256, 256), photometric="rgb")
    crops = write_crops([image], 2, tmp_path)
    shapes = set()
    for crop in crops:
        source = open_source(str(crop))
        shapes.add(source.levels[0].shape)
        assert [round(level.downsample) for level in source.levels] == [1, 4, 16]
        source.close()
    assert len(shapes) == 2
    (tmp_path / "recipe.yaml").write_text(recipe_text(0.3))
    assert [one.name for one in load_recipe(tmp_path / "recipe.yaml").passes] == [
        "glance",
        "refine",
    ]
