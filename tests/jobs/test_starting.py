from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from saccade.jobs.driver import run
from saccade.jobs.options import RunOptions
from saccade.jobs.starting import seems_ended


@pytest.mark.parametrize("module", ["saccade.jobs.starting", "saccade.jobs.cli"])
def test_ray_can_begin_before_torch_is_imported(module: str) -> None:
    """Torch takes a second to import; Ray's daemons start in that second."""
    code = f"import sys, {module}; sys.exit('torch' in sys.modules or 'ray' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def journal(folder: Path, *epochs: tuple[tuple[str, str], ...]) -> Path:
    """A journal's folder; one file per epoch, of kinds of record and images."""
    for number, records in enumerate(epochs, 1):
        lines = [f'{{"kind":"{kind}","image":"{image}","epoch":1}}\n' for kind, image in records]
        (folder / f"{number:06d}.jsonl").write_text("".join(lines))
    return folder


ANY = RunOptions("ray")


def test_a_run_seems_ended_when_every_image_asked_for_is_complete_or_set_aside(
    tmp_path: Path,
) -> None:
    found = journal(
        tmp_path,
        (("started", "a"), ("image", "a"), ("receipt", "b")),
        (("quarantine", "b"), ("receipt", "c")),
    )
    assert seems_ended(found, ["a", "b"], ANY)
    assert not seems_ended(found, ["a", "b", "c"], ANY)
    assert not seems_ended(found, ["a", "d"], ANY)
    assert not seems_ended(tmp_path / "none", ["a"], ANY)


def test_an_image_that_begins_anew_has_not_ended(tmp_path: Path) -> None:
    found = journal(tmp_path, (("image", "a"),), (("restart", "a"),))
    assert not seems_ended(found, ["a"], ANY)
    again = journal(tmp_path, (("image", "a"),), (("restart", "a"), ("image", "a")))
    assert seems_ended(again, ["a"], ANY)


def test_what_may_begin_images_anew_counts_as_work(tmp_path: Path) -> None:
    found = journal(tmp_path, (("image", "a"),))
    assert not seems_ended(found, ["a"], RunOptions("ray", force=True))
    assert not seems_ended(found, ["a"], RunOptions("ray", retry=True))


def test_a_line_cut_short_is_no_end(tmp_path: Path) -> None:
    found = journal(tmp_path, (("image", "a"),))
    (found / "000002.jsonl").write_text('{"kind":"image","ima')
    assert not seems_ended(found, ["a"], ANY)


def test_a_finished_run_on_ray_is_answered_without_ray(tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).integers(0, 255, (70, 70, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(64, 64), photometric="rgb")
    one = {"name": "one", "resolution": {"downsample": 1}, "model": "builtin:tissue"}
    (tmp_path / "recipe.yaml").write_text(json.dumps({"passes": [one]}))
    recipe, output = tmp_path / "recipe.yaml", tmp_path / "run"
    first = run(recipe, [tmp_path / "a.tif"], output, RunOptions("local:1", device="cpu"))
    assert first.complete == ("a",)
    code = (
        "import sys; from saccade.jobs.cli import app\n"
        f"app({['run', str(recipe), str(tmp_path / 'a.tif'), '-o', str(output)]!r}"
        ", standalone_mode=False)\n"
        "sys.exit('ray' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "1 results in" in done.stdout
