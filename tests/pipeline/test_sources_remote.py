"""Images in an object store: the same pixels as from a disk, and few bytes on the way."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from saccade.pipeline import open_source
from saccade.pipeline.errors import (
    AccessDenied,
    BrokenImage,
    NoSuchObject,
    SourceError,
    StorageGone,
    StoreError,
    UnsupportedImage,
    UsageError,
)
from saccade.pipeline.geometry import Box
from saccade.pipeline.sources.base import Source
from saccade.pipeline.sources.file_cache import cache_root
from saccade.pipeline.sources.identities import moved_on
from saccade.pipeline.sources.tiff import TiffSource

if TYPE_CHECKING:
    from object_server import Bucket

SHAPE = (611, 797)


def picture(seed: int = 7, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """``(height, width, 3)`` uint8: smooth, so that lossy codecs keep it, with noise."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    ramp = (y * 3 + x * 5)[:, :, None] // 7 + np.arange(3) * 41
    return ((ramp + np.random.default_rng(seed).integers(0, 9, (*shape, 3))) % 251).astype(np.uint8)


def cog(path: Path, image: np.ndarray, **options: Any) -> Path:
    """A pyramid of tiles in SubIFDs."""
    with tifffile.TiffWriter(path) as writer:
        how = {"tile": (64, 64), "photometric": "rgb", **options}
        writer.write(image, subifds=2, **how)
        for step in (2, 4):
            writer.write(np.ascontiguousarray(image[::step, ::step]), subfiletype=1, **how)
    return path


def aperio(path: Path, image: np.ndarray, description: str = "Aperio |MPP = 0.5") -> Path:
    with tifffile.TiffWriter(path) as writer:
        how = {"tile": (64, 64), "photometric": "rgb", "compression": "jpeg"}
        writer.write(image, description=description, metadata=None, **how)
        writer.write(np.ascontiguousarray(image[::4, ::4]), metadata=None, **how)
    return path


def stripped(path: Path, image: np.ndarray) -> Path:
    tifffile.imwrite(path, image, rowsperstrip=11, compression="deflate")
    return path


def raw_strips(path: Path, image: np.ndarray) -> Path:
    tifffile.imwrite(path, image, rowsperstrip=1)
    return path


def planar(path: Path, image: np.ndarray) -> Path:
    planes = image.transpose(2, 0, 1)
    tifffile.imwrite(path, planes, planarconfig="separate", photometric="rgb", tile=(64, 64))
    return path


def ome_tiff(path: Path, image: np.ndarray) -> Path:
    tifffile.imwrite(
        path, image.transpose(2, 0, 1), ome=True, tile=(64, 64), photometric="minisblack"
    )
    return path


def png(path: Path, image: np.ndarray) -> Path:
    Image.fromarray(image).save(path)
    return path


FILES: dict[str, Callable[[Path, np.ndarray], Path]] = {
    "cog.tif": cog,
    "aperio.svs": aperio,
    "stripped.tif": stripped,
    "raw-strips.tif": raw_strips,
    "planar.tif": planar,
    "a.ome.tif": ome_tiff,
    "a b+c.png": png,
    "a.jpg": png,
}


def assert_same(here: Source, there: Source) -> None:
    """Whatever a source says, and pixels of boxes at every level."""
    for what in ("levels", "format", "channels", "channel_names", "dtype", "pixel_size", "nodata"):
        assert getattr(here, what) == getattr(there, what), what
    rng = np.random.default_rng(11)
    for number, level in enumerate(here.levels):
        for _ in range(5):
            y, x = (np.sort(rng.choice(side + 1, 2, replace=False)) for side in level.shape)
            box = Box(int(y[0]), int(x[0]), int(y[1]), int(x[1]))
            np.testing.assert_array_equal(here.read(number, box), there.read(number, box))
        whole = Box.of(level.shape)
        np.testing.assert_array_equal(here.read(number, whole), there.read(number, whole))


@pytest.mark.parametrize("name", FILES)
def test_pixels_are_those_of_the_file_on_a_disk(name: str, tmp_path: Path, bucket: Bucket) -> None:
    path = FILES[name](tmp_path / name, picture())
    uri = bucket.put(f"deep/{name}", path)
    with closing(open_source(path)) as here, closing(open_source(uri)) as there:
        assert there.uri == uri
        assert_same(here, there)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr_is_read_from_its_objects(zarr_format: int, tmp_path: Path, bucket: Bucket) -> None:
    image = picture()
    group = zarr.open_group(tmp_path / "a.ome.zarr", mode="w", zarr_format=zarr_format)  # type: ignore[arg-type]
    for number, step in enumerate((1, 2)):
        part = np.ascontiguousarray(image[::step, ::step].transpose(2, 0, 1))
        group.create_array(str(number), data=part, chunks=(1, 128, 128))
    axes = [{"name": n, "type": t} for n, t in (("c", "channel"), ("y", "space"), ("x", "space"))]
    datasets = [
        {"path": str(n), "coordinateTransformations": [{"type": "scale", "scale": [1, s, s]}]}
        for n, s in enumerate((1, 2))
    ]
    version = "0.4" if zarr_format == 2 else "0.5"
    document = {"multiscales": [{"version": version, "axes": axes, "datasets": datasets}]}
    group.attrs.update(document if zarr_format == 2 else {"ome": {"version": version, **document}})
    uri = bucket.put_folder("a.ome.zarr", tmp_path / "a.ome.zarr")
    bucket.put_folder("without-suffix", tmp_path / "a.ome.zarr")
    with closing(open_source(tmp_path / "a.ome.zarr")) as here, closing(open_source(uri)) as there:
        assert_same(here, there)
        before = there.identity()
    with closing(open_source(f"{bucket.url}/without-suffix")) as there:
        assert there.levels[0].shape == SHAPE
    assert not moved_on(before, uri)
    bucket.put("a.ome.zarr/0/c/0/0/0", b"other")
    with closing(open_source(uri)) as there:
        assert there.identity() != before


def test_real_slides_and_rasters_are_the_same_from_an_object_store(
    data: Path, bucket: Bucket
) -> None:
    names = ["slides/cmu-1-small-region.svs", "slides/tcga-jpeg2000-no-mpp.svs"]
    names += ["slides/boxes.tiff", "slides/small.svs", "rasters/cog_nodata.tif"]
    names += ["rasters/cog_uint8_rgb_mask.tif", "rasters/RGB.byte.tif", "rasters/cog_dateline.tif"]
    for name in names:
        uri = bucket.put(name, data / name)
        with closing(open_source(data / name)) as here, closing(open_source(uri)) as there:
            assert_same(here, there)


def test_a_glance_fetches_a_small_part_of_the_file(tmp_path: Path, bucket: Bucket) -> None:
    path = cog(tmp_path / "large.tif", picture(shape=(4096, 4096)))
    uri = bucket.put("large.tif", path)
    bucket.proxy.forget()
    with closing(open_source(uri)) as source:
        source.read(2, Box.of(source.levels[2].shape))
    levels = path.stat().st_size * (1 / 16) / (1 + 1 / 4 + 1 / 16)
    assert bucket.proxy.body_nbytes < levels + (1 << 20) < path.stat().st_size / 6
    assert bucket.proxy.requests.total() < 30
    assert not cache_root().exists()


def test_neighbouring_tiles_come_with_one_request(tmp_path: Path, bucket: Bucket) -> None:
    uri = bucket.put("a.tif", cog(tmp_path / "a.tif", picture()))
    with closing(open_source(uri)) as source:
        bucket.proxy.forget()
        source.read(0, Box(0, 0, 64, SHAPE[1]))
        assert bucket.proxy.requests == {"GET": 1}
        source.read(0, Box(5, 5, 60, 300))
        assert bucket.proxy.requests == {"GET": 1}, "tiles that were decoded are kept"


@pytest.mark.slow
def test_faults_on_the_way_change_no_pixel(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saccade.pipeline.remote_stores.SILENT_SECONDS", 3.0)
    monkeypatch.setenv("SACCADE_RETRY_SECONDS", "601")  # a store of this test's own
    path = cog(tmp_path / "a.tif", picture())
    uri = bucket.put("a.tif", path)
    bucket.proxy.stall_seconds = 4.0
    bucket.proxy.rates = {"500": 0.1, "503": 0.1, "reset": 0.1, "slow": 0.1, "stall": 0.04}
    with closing(open_source(path)) as here, closing(open_source(uri)) as there:
        assert_same(here, there)
    assert {"500", "503", "reset", "slow"} <= bucket.proxy.injected.keys()


def test_a_store_that_does_not_answer_is_gone_and_not_damage(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SACCADE_RETRY_SECONDS", "1")
    uri = bucket.put("a.tif", cog(tmp_path / "a.tif", picture()))
    with closing(open_source(uri)) as source:
        bucket.proxy.dead = True
        with pytest.raises(StorageGone, match="run the same command"):
            source.read(0, Box(0, 0, 300, 300))
        bucket.proxy.dead = False
        source.read(0, Box(0, 0, 300, 300))


def test_permission_that_is_withdrawn_stops_a_run(tmp_path: Path, bucket: Bucket) -> None:
    uri = bucket.put("a.tif", cog(tmp_path / "a.tif", picture()))
    with closing(open_source(uri)) as source:
        bucket.proxy.forbidden = True
        with pytest.raises(StorageGone, match="renew the credentials"):
            source.read(0, Box(0, 0, 300, 300))
        with pytest.raises(AccessDenied, match="no permission"):
            open_source(uri)


def test_what_is_not_there_is_named(bucket: Bucket) -> None:
    with pytest.raises(NoSuchObject, match="no such object"):
        open_source(f"{bucket.url}/nothing.tif")
    with pytest.raises(NoSuchObject, match="no such"):
        open_source("s3://no-such-bucket-at-all/nothing.tif")


def test_a_damaged_file_is_named_by_its_uri(tmp_path: Path, bucket: Bucket) -> None:
    whole = cog(tmp_path / "a.tif", picture()).read_bytes()
    uri = bucket.put("cut.tif", whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=uri):
        open_source(uri).read(0, Box.of(SHAPE))
    uri = bucket.put("noise.png", b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(BrokenImage, match=uri):
        open_source(uri)


def test_a_slide_of_several_files_is_refused(bucket: Bucket) -> None:
    uri = bucket.put("a.dcm", bytes(200))
    with pytest.raises(UnsupportedImage, match="copy its folder"):
        open_source(uri)


# ---------------------------------------------------------------------------------------- identity


def test_an_object_that_was_replaced_is_another_image(tmp_path: Path, bucket: Bucket) -> None:
    path = cog(tmp_path / "a.tif", picture(1))
    uri = bucket.put("a.tif", path)
    with closing(open_source(uri)) as source:
        then = source.identity()
    assert not moved_on(then, uri)
    bucket.put("a.tif", path)
    assert not moved_on(then, uri), "the same bytes put there again are the same image"
    bucket.put("a.tif", cog(path, picture(2)))
    assert "replaced" in moved_on(then, uri) or "bytes" in moved_on(then, uri)
    bucket.direct.delete(["a.tif"])
    assert "no such object" in moved_on(then, uri)


def test_an_object_replaced_while_it_is_open_is_not_mixed(tmp_path: Path, bucket: Bucket) -> None:
    uri = bucket.put("a.tif", cog(tmp_path / "a.tif", picture(1)))
    with closing(open_source(uri)) as source:
        bucket.put("a.tif", cog(tmp_path / "b.tif", picture(2)))
        with pytest.raises(SourceError, match="another object lies there"):
            source.read(0, Box(0, 0, 64, 64))


# ------------------------------------------------------------------------------------------- cache


def test_a_copy_is_fetched_once_and_kept(tmp_path: Path, bucket: Bucket) -> None:
    path = png(tmp_path / "a.png", picture())
    uri = bucket.put("a.png", path)
    for _ in range(2):
        with closing(open_source(uri)) as source:
            source.read(0, Box(0, 0, 5, 5))
    assert bucket.proxy.body_nbytes < 1.5 * path.stat().st_size


def test_copies_never_take_more_than_allowed(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [png(tmp_path / f"{seed}.png", picture(seed)) for seed in range(4)]
    uris = [bucket.put(path.name, path) for path in paths]
    room = sum(path.stat().st_size for path in paths[:2]) + 1000
    monkeypatch.setenv("SACCADE_CACHE_SIZE", str(room))
    for uri in uris:
        open_source(uri).close()
        kept = list(cache_root().rglob("*.png"))
        assert sum(path.stat().st_size for path in kept) <= room
    assert {path.name for path in kept} == {"2.png", "3.png"}, "those used last stay"


def test_a_copy_in_use_is_not_evicted(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [png(tmp_path / f"{seed}.png", picture(seed)) for seed in range(2)]
    uris = [bucket.put(path.name, path) for path in paths]
    monkeypatch.setenv("SACCADE_CACHE_SIZE", str(paths[0].stat().st_size + 1000))
    with closing(open_source(uris[0])) as first:
        with pytest.raises(StoreError, match="no room"):
            open_source(uris[1])
        first.read(0, Box(0, 0, 5, 5))
    open_source(uris[1]).close()


def test_a_file_larger_than_the_cache_is_refused(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = bucket.put("a.png", png(tmp_path / "a.png", picture()))
    monkeypatch.setenv("SACCADE_CACHE_SIZE", "1kB")
    with pytest.raises(SourceError, match="SACCADE_CACHE_SIZE"):
        open_source(uri)
    monkeypatch.setenv("SACCADE_CACHE_SIZE", "plenty")
    with pytest.raises(UsageError, match="a size like"):
        open_source(uri)


def test_what_a_killed_download_left_is_cleared_away(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = png(tmp_path / "a.png", picture())
    monkeypatch.setenv("SACCADE_CACHE_SIZE", str(path.stat().st_size + 1000))
    left = cache_root() / "0123.partial" / "b.png"
    left.parent.mkdir(parents=True)
    left.write_bytes(bytes(5000))
    open_source(bucket.put("a.png", path)).close()
    assert not left.parent.exists()


def test_two_processes_do_not_download_the_same(tmp_path: Path, bucket: Bucket) -> None:
    path = png(tmp_path / "a.png", picture())
    uri = bucket.put("a.png", path)
    script = (
        "import sys; from saccade.pipeline import open_source\n"
        "print(sys.stdin.readline(), open_source(sys.argv[1]).levels)"
    )
    import subprocess
    import sys

    children = [
        subprocess.Popen(
            [sys.executable, "-c", script, uri],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **bucket.environment},
        )
        for _ in range(2)
    ]
    bucket.proxy.rates = {"slow": 1.0}
    for child in children:
        assert child.stdin is not None
        child.stdin.write(b"go\n")
        child.stdin.flush()
    for child in children:
        assert str(SHAPE).encode() in child.communicate()[0]
    assert bucket.proxy.body_nbytes < 1.5 * path.stat().st_size


def test_a_lock_of_a_killed_process_is_gone(tmp_path: Path, bucket: Bucket) -> None:
    uri = bucket.put("a.png", png(tmp_path / "a.png", picture()))
    open_source(uri).close()
    (lock,) = (path for path in cache_root().glob("*.lock") if path.name != ".lock")
    with lock.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_tiff_is_never_copied(tmp_path: Path, bucket: Bucket) -> None:
    uri = bucket.put("a.tif", raw_strips(tmp_path / "a.tif", picture()))
    with closing(open_source(uri)) as source:
        assert isinstance(source, TiffSource)
    assert not cache_root().exists()
