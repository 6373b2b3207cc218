"""The main job on one slide, for a first look: what `make demo` runs."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from rich.console import Console

from saccade.jobs.driver import run
from saccade.jobs.options import RunOptions
from saccade.jobs.picture import draw_pictures
from saccade.jobs.progress import Progress
from saccade.jobs.sample import truth_path, write_sample_slide
from saccade.jobs.stopping import StopSignal, heeding_signals

REAL_SLIDE = Path("../shared/data/slides/cmu-1-small-region.svs")
"""A real slide that may lie beside a checkout of the project."""


def run_demo(output: Path, slide: Path | None, workers: str, console: Console) -> Iterator[str]:
    """Run glance, focus and refine over a slide; says where the picture and the result are."""
    chosen = slide or (REAL_SLIDE if REAL_SLIDE.exists() else sample_slide(output, console))
    progress = Progress(console)
    try:
        with heeding_signals(StopSignal()) as stop:
            summary = run(
                demo_recipe(),
                [chosen],
                output / "run",
                RunOptions(workers=workers),
                observe=progress,
                stop=stop,
            )
    finally:
        progress.close()
    yield f"slide:   {chosen}"
    for picture in draw_pictures(summary.folder):
        yield f"picture: {picture}"
    for name in summary.complete:
        yield f"result:  {summary.folder / 'results' / name}.ome.zarr"


def demo_recipe() -> Path:
    """The three-pass recipe that ships with the package."""
    return Path(str(files("saccade.jobs") / "demo.yaml"))


def sample_slide(folder: Path, console: Console) -> Path:
    """A generated slide with known truth; made once, then used again."""
    path = folder / "sample.tif"
    if not truth_path(path).exists():
        console.print(f"drawing a slide of 16384 x 16384 pixels: {path}", highlight=False)
        write_sample_slide(path)
    return path
