from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import Lab, noise, pass_of, several_passes

from saccade.pipeline.recipe import Recipe
from saccade.pipeline.result import open_result
from saccade.pipeline.store import ImageStore
from saccade.workers.folder import RunFolder
from saccade.workers.steps import finalise


class Killed(BaseException):
    """Stands for the end of a process."""


def recipe() -> dict[str, Any]:
    passes = [pass_of("glance", "echo", 4, tile=16), pass_of("refine", "echo", 1, tile=32)]
    return several_passes(passes, keep=["refine"])


def files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize("method", ["drop", "finish"])
@pytest.mark.parametrize("after", [False, True])
def test_a_finalise_that_was_killed_can_be_run_again(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, method: str, after: bool
) -> None:
    tree = Recipe.model_validate(recipe())
    image = noise(131, 97)
    finished = lab.run_all(tree.model_dump(mode="json"), {"one": image}).folder
    folder = RunFolder(finished)
    whole = files(folder.result("one"))
    timing = open_result(finished).facts["timing"]

    # As it was before the last step, and killed in the middle of it.
    real = getattr(ImageStore, method)

    def killed(self: ImageStore, *arguments: Any) -> None:
        if after:
            real(self, *arguments)
        raise Killed

    again = until_finalise(lab, recipe(), image)
    plan = again.read_image_plan("one")
    with monkeypatch.context() as patch:
        patch.setattr(ImageStore, method, killed)
        with pytest.raises(Killed):
            finalise(again, plan, tree, timing)
    counts = finalise(again, plan, tree, timing)
    assert set(counts["passes"]) == {"glance", "refine"}
    found = files(again.result("one"))
    assert found.keys() == whole.keys()
    differing = [key for key in whole if whole[key] != found[key]]
    assert differing in ([], ["zarr.json"])  # which names the image's own path
    np.testing.assert_array_equal(
        np.asarray(open_result(again.root).fused), np.asarray(open_result(finished).fused)
    )
    assert finalise(again, plan, tree, timing) == counts


def until_finalise(lab: Lab, tree: dict[str, Any], image: np.ndarray) -> RunFolder:
    """A run of which all but the last step is done."""
    from saccade.workers import context

    kept = context.finalise
    try:
        context.finalise = _nothing  # type: ignore[assignment]
        return RunFolder(lab.run_all(tree, {"one": image}).folder)
    finally:
        context.finalise = kept


def _nothing(*arguments: Any, **named: Any) -> dict[str, Any]:
    return {}
