"""One contender of the raster benchmark in a process of its own: a COG in, a raster of labels out.

    python rasters_contenders.py NAME RASTER OUT --window 1024 --threads 2

Each is what a careful user of that tool would write: the same network, the halo that makes its
answers exact, as many threads as it is given. What none does is work that the others do not have.
"""

from __future__ import annotations

import argparse
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from saccade.pipeline.geometry import Box, Grid

Contender = Callable[[Path, Path, int, int], None]

PEAK = "peak_nbytes "
"""Begins the last line that a contender prints."""
RECIPE = """\
version: 1
passes:
  - name: dense
    resolution: {{level: 0}}
    model: "{folder}/rasters_network.py:BandNet"
precision: {precision}
output: {{keep: []}}
"""


def saccade(raster: Path, out: Path, window_px: int, threads: int) -> None:
    """A dense pass in this process; it lays its windows out itself, and stores scores, too."""
    _saccade(raster, out, "float32")


def saccade_auto(raster: Path, out: Path, window_px: int, threads: int) -> None:
    """The same in whichever arithmetic and layout was measured to be fastest."""
    _saccade(raster, out, "auto")


def _saccade(raster: Path, out: Path, precision: str) -> None:
    from saccade.jobs import RunOptions, run
    from saccade.pipeline import load_recipe

    recipe = out.with_suffix(".yaml")
    recipe.write_text(RECIPE.format(folder=Path(__file__).resolve().parent, precision=precision))
    summary = run(load_recipe(recipe), [str(raster)], out, RunOptions(workers="local"))
    if not summary.complete:
        raise SystemExit(f"{raster}: a complete run expected, found {summary}")


def dask_overlap(raster: Path, out: Path, window_px: int, threads: int) -> None:
    """Dask's ``map_overlap`` over tifffile's zarr store, into a zarr array."""
    import dask
    import dask.array as da
    import tifffile
    import zarr
    from rasters_network import BANDS, HALO_PX

    net = _net(1)  # the parallel threads are dask's
    chunks = (window_px, window_px, BANDS)

    def label(block: np.ndarray) -> np.ndarray:
        return _labels(net, block)

    with tifffile.imread(raster, aszarr=True, series=0, level=0) as store:
        pixels = da.from_zarr(zarr.open(store, mode="r")).rechunk(chunks)
        depth = {0: HALO_PX, 1: HALO_PX, 2: 0}
        meta = np.empty((0, 0), np.uint8)
        answer = da.map_overlap(
            label, pixels, depth=depth, boundary="none", drop_axis=2, dtype=np.uint8, meta=meta
        )
        with dask.config.set(scheduler="threads", num_workers=threads):
            answer.to_zarr(str(out))


def rasterio_loop(raster: Path, out: Path, window_px: int, threads: int) -> None:
    """A loop over windows with a halo, read and written by rasterio."""
    import rasterio
    from rasterio.windows import Window

    net = _net(threads)
    with rasterio.open(raster) as source:
        profile = _label_profile(source.profile)
        with rasterio.open(out, "w", **profile) as file:
            for core in Grid((source.height, source.width), window_px):
                seen = core.grow(_halo()).clip((source.height, source.width))
                window = Window(seen.x0, seen.y0, seen.width, seen.height)
                labels = _labels(net, np.moveaxis(source.read(window=window), 0, 2))
                inside = core.relative_to(seen).slices
                place = Window(core.x0, core.y0, core.width, core.height)
                file.write(labels[inside], 1, window=place)


def monai_sliding(raster: Path, out: Path, window_px: int, threads: int) -> None:
    """MONAI's ``sliding_window_inference`` over the whole raster in memory, constant blending."""
    import rasterio
    import tifffile
    import torch
    from monai.inferers import sliding_window_inference
    from rasters_network import HALO_PX, SCALE

    net = _net(threads)
    pixels = torch.from_numpy(tifffile.imread(raster, level=0).astype(np.float32))
    with torch.inference_mode():
        views = (pixels / SCALE).permute(2, 0, 1)[None]
        overlap = 2 * HALO_PX / window_px
        logits = sliding_window_inference(views, (window_px, window_px), 1, net, overlap=overlap)
        labels = logits[0].argmax(0).to(torch.uint8).numpy()
    with rasterio.open(raster) as source:
        profile = _label_profile(source.profile)
    with rasterio.open(out, "w", **profile) as file:
        file.write(labels, 1)


CONTENDERS: dict[str, Contender] = {
    "saccade": saccade,
    "saccade, auto": saccade_auto,
    "dask map_overlap": dask_overlap,
    "rasterio loop": rasterio_loop,
    "MONAI": monai_sliding,
}
"""By the name that tables give them."""


def labels_of(name: str, out: Path, box: Box) -> np.ndarray:
    """What a contender answered in a box."""
    if name.startswith("saccade"):
        from saccade.pipeline import open_result

        result = next((out / "results").glob("*.ome.zarr"))
        return np.asarray(open_result(result).labels[box.slices])
    if name.startswith("dask"):
        import zarr

        return np.asarray(zarr.open_array(out, mode="r")[box.slices])
    import rasterio
    from rasterio.windows import Window

    with rasterio.open(out) as file:
        window = Window(box.x0, box.y0, box.width, box.height)
        return np.asarray(file.read(1, window=window))


def whole(pixels: np.ndarray) -> np.ndarray:
    """Labels of ``(H, W, 4)`` samples by one forward pass."""
    return _labels(_net(1), pixels)


def _net(threads: int):  # type: ignore[no-untyped-def]
    import torch
    from rasters_network import BandNet

    torch.set_num_threads(threads)
    return BandNet().eval().requires_grad_(False)


def _halo() -> int:
    from rasters_network import HALO_PX

    return HALO_PX


def _labels(net, pixels: np.ndarray) -> np.ndarray:  # type: ignore[no-untyped-def]
    import torch
    from rasters_network import SCALE

    with torch.inference_mode():
        views = torch.from_numpy(pixels.astype(np.float32)) / SCALE
        return net(views.permute(2, 0, 1)[None])[0].argmax(0).to(torch.uint8).numpy()


def _label_profile(profile: dict) -> dict:  # type: ignore[type-arg]
    """Of a tiled, compressed raster of labels on the same grid."""
    kept = {key: profile[key] for key in ("width", "height", "crs", "transform")}
    return kept | {
        "driver": "GTiff", "count": 1, "dtype": "uint8", "tiled": True,
        "blockxsize": 512, "blockysize": 512, "compress": "deflate",
    }  # fmt: skip


def peak_nbytes() -> int:
    """Most resident memory of this program so far; not what its parent held before it began."""
    status = Path("/proc/self/status")
    if status.is_file():
        (line,) = (one for one in status.read_text().splitlines() if one.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=CONTENDERS)
    parser.add_argument("raster", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--window", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if options.out.is_dir():
        shutil.rmtree(options.out)
    CONTENDERS[options.name](options.raster, options.out, options.window, options.threads)
    print(f"\n{PEAK}{peak_nbytes()}")


if __name__ == "__main__":
    main()
