"""The main job on one slide, for a first look: what ``make demo`` runs.

A real slide where one lies beside the checkout, else a generated one, whose lesions are known: then
the demonstration also says how many of them were found worth refining.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from rich.console import Console

from saccade.jobs.driver import RunSummary, run
from saccade.jobs.manifests.manifest import name_of
from saccade.jobs.monitoring.progress import Progress
from saccade.jobs.options import RunOptions
from saccade.jobs.pictures.picture import draw_pictures
from saccade.jobs.pictures.words import percent
from saccade.jobs.sample import SampleTruth, truth_path, write_sample_slide
from saccade.jobs.stopping import StopSignal, heeding_signals
from saccade.pipeline.errors import RunError
from saccade.pipeline.geometry import Box
from saccade.pipeline.result import Result, open_result

REAL_SLIDE = Path("../shared/data/slides/cmu-1-small-region.svs")
"""A real slide that may lie beside a checkout of the project."""
SAMPLE_SIDE_PX = 16384
"""Side of the slide that is drawn where there is none."""
JUDGED_DOWNSAMPLE = 16
"""The truth is compared at about this many pixels of the slide per pixel."""


def run_demo(
    output: Path,
    slide: Path | None,
    workers: str,
    console: Console,
    *,
    side_px: int = SAMPLE_SIDE_PX,
) -> Iterator[str]:
    """Run glance, focus and refine over a slide; gives the lines to print, as they become true.

    Run again, it goes on where it stopped, and finds everything done where it did not.

    Args:
        output: the folder for the run, and for a generated slide.
        slide: any slide; the real one, or else a generated one, where None.
        workers: as in ``RunOptions``.
        console: shows progress.
        side_px: side of a generated slide, in pixels.

    Raises:
        RunError: the slide could not be finished; the message says why.
        SaccadeError: as ``driver.run`` and ``draw_pictures`` do.
    """
    chosen = slide or (REAL_SLIDE if REAL_SLIDE.exists() else _sample(output, side_px, console))
    summary = _run(chosen, output / "run", workers, console)
    name = name_of(chosen)
    if name in summary.quarantined:
        raise RunError(f"{chosen}: {summary.quarantined[name]}")
    yield f"slide:   {chosen}"
    yield from (f"picture: {path}" for path in draw_pictures(summary.folder, name))
    result = summary.folder / "results" / f"{name}.ome.zarr"
    yield f"result:  {result}"
    if truth_path(chosen).exists():
        truth = SampleTruth.read(truth_path(chosen))
        yield f"truth:   {how_it_fared(open_result(result), truth)}"


def demo_recipe() -> Path:
    """The three-pass recipe that ships with the package."""
    return Path(str(files("saccade.jobs") / "demo.yaml"))


def _run(slide: Path, folder: Path, workers: str, console: Console) -> RunSummary:
    progress = Progress(console)
    options = RunOptions(workers=workers)
    try:
        with heeding_signals(StopSignal()) as stop:
            return run(demo_recipe(), [slide], folder, options, observe=progress, stop=stop)
    finally:
        progress.close()


def _sample(folder: Path, side_px: int, console: Console) -> Path:
    """A generated slide with known truth; made once, then used again."""
    path = folder / "sample.tif"
    if not (path.exists() and truth_path(path).exists()):
        console.print(f"drawing a slide of {side_px} x {side_px} pixels: {path}", highlight=False)
        write_sample_slide(path, side_px)
    return path


@dataclass(frozen=True, slots=True)
class Fared:
    """How a result compares with what is known of a generated slide. All in [0, 1]."""

    refined: float
    """Share of the slide that the last pass looked at."""
    nests_refined: float
    """Share of the lesions' pixels that it looked at."""
    inside: float
    """Mean score inside the lesions."""
    outside: float
    """Mean score in the rest of the tissue."""

    def __str__(self) -> str:
        return (
            f"{percent(self.refined)} of the slide was refined, with {percent(self.nests_refined)} "
            f"of the lesions' area in it; mean score {self.inside:.2f} inside lesions, "
            f"{self.outside:.2f} in other tissue"
        )


def how_it_fared(result: Result, truth: SampleTruth) -> Fared:
    """Compare a complete result with the truth, at a coarse level of its pyramid."""
    plan = result.plan
    finest = round(plan.last.score_downsample)
    level = min((JUDGED_DOWNSAMPLE // finest).bit_length() - 1, len(result.levels) - 1)
    downsample = finest * 2**level
    scores = result.levels[level].compute()[0] / 255
    nests = truth.nest_mask(Box.of(scores.shape), downsample)
    tissue = truth.tissue_mask(Box.of(scores.shape), downsample)
    refined = _at_pixels(result.coverage == len(plan.passes), result, scores.shape, downsample)
    return Fared(
        refined=result.summary()["refined"],
        nests_refined=float(refined[nests].mean()),
        inside=float(scores[nests].mean()),
        outside=float(scores[tissue & ~nests].mean()),
    )


def _at_pixels(
    tiles: np.ndarray, result: Result, shape: tuple[int, int], downsample: int
) -> np.ndarray:
    """One value per tile as one per pixel: that of the tile which a pixel's centre lies in."""
    side = result.plan.last.tile_px * result.plan.last.plane.downsample
    rows, columns = (
        np.minimum(((np.arange(n) + 0.5) * downsample // side).astype(np.int64), count - 1)
        for n, count in zip(shape, tiles.shape, strict=True)
    )
    found: np.ndarray = tiles[np.ix_(rows, columns)]
    return found
