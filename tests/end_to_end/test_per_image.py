"""What a manifest changes for one image: where it is looked at, and how many passes look."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from fakes import Lab, noise, pass_of, several_passes
from PIL import Image

from saccade.jobs.driver import run
from saccade.jobs.options import RunOptions
from saccade.pipeline.recipe import Recipe
from saccade.pipeline.result import open_result

LOCAL = RunOptions(workers="local:1", device="cpu", skip_missing=True)


def recipe(**selector: Any) -> Recipe:
    """A glance at half the resolution, then whatever the selector wants."""
    passes = [
        pass_of("glance", "echo", 2, tile=32),
        pass_of("look", "echo", 1, tile=64, select=selector),
    ]
    return Recipe.model_validate(several_passes(passes, "uint8"))


def archive(folder: Path) -> list[dict[str, Any]]:
    """One image under several names, and a mask of its upper left quarter."""
    Image.fromarray(noise(256, 256)).save(folder / "x.png")
    mask = np.zeros((64, 64), np.uint8)
    mask[:32, :32] = 1
    Image.fromarray(mask).save(folder / "mask.png")
    rows: list[dict[str, Any]] = [{"image": "x.png", "name": "plain"}]
    rows.append({"image": "x.png", "name": "masked", "mask": "mask.png"})
    rows.append({"image": "x.png", "name": "short", "passes": "glance"})
    rows.append({"image": "gone.png", "name": "gone"})
    return rows


def test_an_image_has_a_mask_and_passes_of_its_own(tmp_path: Path, lab: Lab) -> None:
    rows = archive(tmp_path)
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = tmp_path / "run"
    tree = recipe(by="dilate", of="all", tiles=2)
    summary = run(tree, [tmp_path / "m.jsonl"], folder, LOCAL, model_folder=lab.models)
    assert summary.complete == ("plain", "masked", "short"), summary.quarantined
    plain, masked, short = (
        open_result(folder / "results" / f"{name}.ome.zarr") for name in summary.complete
    )
    quarter = np.zeros((4, 4), bool)
    quarter[:2, :2] = True
    assert (plain.passes["look"].status > 0).all()
    assert ((masked.passes["look"].status > 0) == quarter).all()
    same = masked.fused[:, :128, :128] == plain.fused[:, :128, :128]
    assert same.all().compute()
    assert list(short.passes) == ["glance"]
    (skipped,) = (folder / "skipped.jsonl").read_text().splitlines()
    assert json.loads(skipped)["where"] == str(tmp_path / "gone.png")
    run(tree, [tmp_path / "x.png"], folder, LOCAL, model_folder=lab.models)
    assert not (folder / "skipped.jsonl").exists()
