"""Several passes against one: what is computed, how long it takes, how much it agrees.

On one slide, with one model and tiles of 256 pixels: the untrained U-Net of ``networks.py``, whose
cost is real and whose answers mean nothing, or the built-in ``hematoxylin``, of which the opposite
is true. Tiles are judged by a focus pass of hematoxylin, four times coarser, in both cases:

1. *windows*: planned only. Pixels through the model, halos included, per selected pixel, where 10
   to 50 % of the tissue's tiles are selected: the highest ones, as the focus pass finds them, and
   as many at random; single tiles against neighbours merged into windows of 512, 768, 1024 pixels.
2. *runs*: dense over the tissue (glance, then every tissue tile) against three passes (glance,
   focus, the model) that refine 10 to 50 % of those tiles. Pixels and seconds from the journals;
   agreement with the dense run: share of equal labels and mean |dp|, over all tissue (where both
   passes run one model) and over the refined part alone.
3. *un-tiled*: one forward pass over the middle of the tissue, as large as ``--whole`` says, against
   the dense run: pixels, seconds and agreement on the same ground.

Runs take place one after the other in one process, with one local worker. *Overhead* is the glance,
preparing, selecting, finalising, and fusing (the finest pass's write lane), in busy seconds, as a
share of the dense run's wall seconds; *focus* stands apart.

    python benchmarks/multipass.py                    # the generated slide of 8192 pixels
    python benchmarks/multipass.py SLIDE --mpp 0.5    # one of your own
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from common import command, machine, table
from networks import ready

from saccade.jobs.driver import run
from saccade.jobs.journals.journal import read_records
from saccade.jobs.monitoring.tally import ImageTally
from saccade.jobs.options import RunOptions
from saccade.jobs.sample import write_sample_slide
from saccade.pipeline.geometry import Box
from saccade.pipeline.layout import PassLayout
from saccade.pipeline.plan import plan_sweep
from saccade.pipeline.result import Result, open_result
from saccade.pipeline.sources import open_source
from saccade.pipeline.sources.plane import Plane

SHARES = (0.1, 0.2, 0.3, 0.5)
WINDOWS_PX = (256, 512, 768, 1024)
RECIPE = """\
version: 1
passes:
  - name: glance
    resolution: {{mpp: {glance:g}}}
    model: builtin:tissue
{focus}  - name: refine
    resolution: {{mpp: {mpp:g}}}
    model: {model}
    tile: 256
{window}    select: {select}
"""
FOCUS = """\
  - name: focus
    resolution: {{mpp: {focus:g}}}
    model: {model}
    tile: 64
    select: {tissue}
"""
TISSUE = "{by: foreground, above: 0.5, share: 0.01}"
HIGHEST = "{{by: top_fraction, fraction: {share:g}, signal: nuclei, statistic: mean}}"


UNET = '"{folder}/networks.py:UNet"'
HEMATOXYLIN = "{{source: builtin:hematoxylin, options: {{radius_px: {radius_px}}}}}"
MODELS = ("unet", "hematoxylin")


@dataclass(frozen=True, slots=True)
class Done:
    """One run that is complete."""

    result: Result
    """What it left."""
    tally: ImageTally
    """Its journal, counted."""
    step_seconds: float
    """Of prepare, select and finalise."""
    seconds: float
    """Wall clock, from start to end."""

    @property
    def refine(self) -> PassLayout:
        """The finest pass."""
        return self.result.plan.last

    @property
    def pixels(self) -> int:
        """Through models, halos included, all passes; those of coarser passes count as they are."""
        return sum(self.tally.pixels.values())

    @property
    def overhead_seconds(self) -> float:
        """Busy seconds of the glance, of all steps, and of fusing."""
        fusing = self.tally.seconds["refine"].get("write", 0.0)
        return self.step_seconds + self.busy_seconds("glance") + fusing

    def busy_seconds(self, name: str) -> float:
        """Of all lanes of a pass; 0 where there is none of this name."""
        return sum(self.tally.seconds.get(name, {}).values())


def recipe_text(options: argparse.Namespace, model: str, share: float | None = None) -> str:
    """A recipe: dense over the tissue, or with the highest share of it refined."""
    mpp, select, focus = options.mpp, TISSUE, ""
    if share is not None:
        select = HIGHEST.format(share=share)
        focus = FOCUS.format(focus=4 * mpp, tissue=TISSUE, model=model_text("hematoxylin", 4))
    window = f"    window: {options.window}\n" if options.window else ""
    refine = model_text(model, 16)
    return RECIPE.format(
        glance=16 * mpp, focus=focus, mpp=mpp, model=refine, window=window, select=select
    )


def model_text(model: str, radius_px: int) -> str:
    """A pass's model; the radius is the one of hematoxylin."""
    folder = Path(__file__).resolve().parent
    return (
        UNET.format(folder=folder) if model == "unet" else HEMATOXYLIN.format(radius_px=radius_px)
    )


def done(slide: Path, folder: Path, text: str) -> Done:
    """Run a recipe with one local worker."""
    folder.mkdir()
    recipe, out = folder / "recipe.yaml", folder / "run"
    recipe.write_text(text)
    since = time.perf_counter()
    summary = run(recipe, [slide], out, RunOptions(workers="local:1"))
    seconds = time.perf_counter() - since
    if summary.quarantined:
        raise SystemExit(f"the run set an image aside: {summary.quarantined}")
    (name,) = summary.complete
    steps = sum(r["seconds"]["step"] for r in read_records(out / "journal") if "step" in r)
    result = open_result(out / "results" / f"{name}.ome.zarr")
    return Done(result, summary.tally.images[name], steps, seconds)


# ----------------------------------------------------------------------------------- 1. windows


def selected(one: Done) -> np.ndarray:
    """``(tile rows, tile columns)`` bool: the finest pass's tiles that were chosen."""
    selection = one.result.passes["refine"].selection
    assert selection is not None
    return selection.mask(one.refine.tiles)


def scattered(tissue: np.ndarray, count: int) -> np.ndarray:
    """As many tiles of the tissue, at random."""
    chosen = np.zeros(tissue.size, bool)
    tiles = np.random.default_rng(0).permutation(np.flatnonzero(tissue))[:count]
    chosen[tiles] = True
    return chosen.reshape(tissue.shape)


def computed_ratio(layout: PassLayout, chosen: np.ndarray, window_px: int) -> float:
    """Pixels through the model per pixel of the selected tiles, as a plan says."""
    wanted = replace(layout, window_tiles=max(1, window_px // layout.tile_px), batch=1)
    units = plan_sweep("slide", wanted, chosen)
    computed = sum(window.read.area for unit in units for window in unit.windows)
    return computed / int(layout.tiles.areas()[chosen].sum())


def window_rows(dense: Done, sparse: dict[float, Done]) -> Iterator[list[str]]:
    """One row per share and way to choose."""
    for share, one in sparse.items():
        highest = selected(one)
        ways = {
            "highest": highest,
            "scattered": scattered(selected(dense), int(highest.sum())),
        }
        for way, chosen in ways.items():
            ratios = (computed_ratio(one.refine, chosen, window) for window in WINDOWS_PX)
            yield [f"{share:.0%} {way}", str(int(chosen.sum())), *(f"{r:.2f}" for r in ratios)]
    ratios = (computed_ratio(dense.refine, selected(dense), window) for window in WINDOWS_PX)
    yield ["all tissue", str(int(selected(dense).sum())), *(f"{r:.2f}" for r in ratios)]


# -------------------------------------------------------------------------------------- 2. runs


@dataclass
class Agreement:
    """How much two answers agree, gathered block by block."""

    pixels: int = 0
    equal: int = 0
    difference: float = 0.0

    def add(self, first: np.ndarray, second: np.ndarray) -> None:
        """Take ``(C, n)`` probabilities in, of the same pixels."""
        self.pixels += first.shape[1]
        self.equal += int((labels_of(first) == labels_of(second)).sum())
        self.difference += float(np.abs(first - second).mean(0).sum())

    def cells(self) -> list[str]:
        """Share of equal labels, mean |dp|."""
        if not self.pixels:
            return ["-", "-"]
        return [f"{self.equal / self.pixels:.2%}", f"{self.difference / self.pixels:.4f}"]


def labels_of(scores: np.ndarray) -> np.ndarray:
    """The strongest class; of a single one whether it is at least a half."""
    labels: np.ndarray = scores.argmax(0) if len(scores) > 1 else scores[0] >= 0.5
    return labels


def agreement(dense: Done, other: Done, tiles: np.ndarray) -> Agreement:
    """Over the tiles given, both as stored."""
    found = Agreement()
    grid = dense.refine.tiles
    first, second = dense.result.scores, other.result.scores
    for index in np.flatnonzero(tiles):
        where = (slice(None), *grid.box(int(index)).slices)
        pair = [np.asarray(scores[where].compute()) for scores in (first, second)]
        found.add(*(one.reshape(len(one), -1) for one in pair))
    return found


def run_rows(dense: Done, sparse: dict[float, Done], alike: bool) -> Iterator[list[str]]:
    """One row per run; ``alike`` says whether the focus answers what the model does."""
    tissue = selected(dense)
    for name, one in {"dense": dense, **{f"{s:.0%}": d for s, d in sparse.items()}}.items():
        chosen = selected(one)
        selected_px = int(one.refine.tiles.areas()[chosen].sum())
        refined_px = one.tally.pixels["refine"]
        yield [
            name,
            str(int(chosen.sum())),
            f"{one.pixels / 1e6:.0f}",
            f"{refined_px / selected_px:.2f}",
            f"{one.seconds:.1f}",
            f"{dense.seconds / one.seconds:.2f}x",
            f"{one.busy_seconds('focus'):.1f}",
            f"{one.overhead_seconds:.2f}",
            f"{one.overhead_seconds / dense.seconds:.1%}",
            *(agreement(dense, one, tissue).cells() if alike else ["-", "-"]),
            *agreement(dense, one, tissue & chosen).cells(),
        ]


# ---------------------------------------------------------------------------------- 3. un-tiled


def whole_row(slide: Path, dense: Done, side_px: int) -> list[str]:
    """One forward pass over the middle of the tissue, and the dense run on the same ground."""
    layout, tissue = dense.refine, selected(dense)
    box = _middle(layout, tissue, side_px)
    pixels = Plane(open_source(slide), layout.plane).read(box)
    model = ready("U-Net")
    since = time.perf_counter()
    with torch.inference_mode():
        given = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2).to(torch.float32) / 255
        answer = model(given).softmax(1)[0].numpy()
    seconds = time.perf_counter() - since
    # an image's edge inside the tissue: what lies within the halo of it saw less than the run did
    inner = box.grow(-layout.halo_px)
    found = Agreement()
    for index in np.flatnonzero(tissue):
        tile = layout.tiles.box(int(index))
        if inner.contains(tile):
            tiled = np.asarray(dense.result.scores[(slice(None), *tile.slices)].compute())
            whole = answer[(slice(None), *tile.relative_to(box).slices)]
            found.add(tiled.reshape(len(tiled), -1), whole.reshape(len(whole), -1))
    speed = dense.tally.pixels["refine"] / dense.tally.seconds["refine"]["device"]
    return [
        f"{box.height} x {box.width}",
        f"{box.area / 1e6:.1f}",
        f"{seconds:.1f}",
        f"{box.area / 1e6 / seconds:.2f}",
        f"{speed / 1e6:.2f}",
        *found.cells(),
    ]


def _middle(layout: PassLayout, tissue: np.ndarray, side_px: int) -> Box:
    """A square around the middle of the tissue, on the model's own grid."""
    rows, columns = np.nonzero(tissue)
    corner = []
    for centre, length in zip((rows.mean(), columns.mean()), layout.plane.shape, strict=True):
        start = int(centre * layout.tile_px) - side_px // 2
        corner.append(max(0, min(start, length - side_px)) // layout.multiple * layout.multiple)
    y0, x0 = corner
    return Box(y0, x0, y0 + side_px, x0 + side_px)


def report(slide: Path, folder: Path, model: str, options: argparse.Namespace) -> None:
    """Run everything with one model and print its tables."""
    # the first run meets cold code and files
    done(slide, folder / "warm", recipe_text(options, model, SHARES[0]))
    dense = done(slide, folder / "dense", recipe_text(options, model))
    sparse = {
        share: done(slide, folder / f"{share:g}", recipe_text(options, model, share))
        for share in SHARES
    }
    head = [f"{model}, halo {dense.refine.halo_px} px: computed per selected", "tiles"]
    head += [f"window {window}" for window in WINDOWS_PX]
    print(table(head, [*window_rows(dense, sparse)]))
    head = [model, "tiles", "MP computed", "per selected", "seconds", "speed", "focus s"]
    head += ["overhead s", "of dense", "labels", "|dp|", "labels refined", "|dp| refined"]
    print(f"\n{table(head, [*run_rows(dense, sparse, model == 'hematoxylin')])}\n")
    if model == "unet":
        head = ["un-tiled", "MP", "seconds", "MP/s", "MP/s of dense", "labels", "|dp|"]
        print(f"{table(head, [whole_row(slide, dense, options.whole)])}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slide", nargs="?", type=Path, help="default: a generated one")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--side", type=int, default=8192, help="of the generated slide, in pixels")
    parser.add_argument("--mpp", type=float, default=0.5, help="of the finest pass")
    parser.add_argument("--window", type=int, help="longest side of windows; default: left open")
    parser.add_argument("--whole", type=int, default=1536, help="side of the un-tiled pass")
    options = parser.parse_args()
    print(f"{machine()}\n$ {command()}\n")
    with tempfile.TemporaryDirectory() as folder:
        slide = options.slide or Path(folder) / "generated.tif"
        if options.slide is None:
            write_sample_slide(slide, options.side)
        for model in options.models:
            (Path(folder) / model).mkdir()
            report(slide, Path(folder) / model, model, options)


if __name__ == "__main__":
    main()
