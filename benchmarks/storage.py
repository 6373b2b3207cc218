"""How fast shards are written: ours beside plain zarr and tensorstore, the same array and codecs.

Every writer makes the same sharded array: files of 4096 pixels, chunks of 512, zstd at our level,
nothing forced to disk. A turn writes all shards of one array into a fresh folder, as many at once
as there are threads, and every library is held to that many threads of its own. Writers take turns
within each repetition and ratios are taken within a repetition; CPU seconds are of the whole
process. Whatever was written is read back once, by zarr, and must be equal. Nothing is written by
tensorstore where it is not installed: it is no dependency of the project (``pip install
tensorstore``).

    python benchmarks/storage.py                       # 8192 px, 3 repetitions: about three minutes
    python benchmarks/storage.py --side 4096 --repetitions 1
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from common import command, machine, table
from zarr.codecs import ZstdCodec

from saccade.pipeline.geometry import Box
from saccade.pipeline.store_layout import ArraySpec
from saccade.pipeline.store_metadata import array as array_metadata
from saccade.pipeline.store_metadata import as_json
from saccade.pipeline.store_shards import ZSTD_LEVEL, encode_shard
from saccade.pipeline.store_shelf import LocalShelf
from saccade.workers.allocator import keep_large_blocks

SHARD_PX, CHUNK_PX = 4096, 512
NAME = "0"

Put = Callable[[Box, np.ndarray], None]
"""Write one shard; returns once it stands."""
Writer = Callable[[Path, np.ndarray, int], Put]
"""A folder, the whole array (for shape and type), threads; returns what writes a shard of it."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One array, written once."""

    seconds: float
    """Wall clock."""
    cpu_seconds: float
    """Of the whole process."""


def spec_of(data: np.ndarray) -> ArraySpec:
    """As our own results have it."""
    fill = 0.0 if data.dtype == np.uint8 else math.nan
    sides = (CHUNK_PX, CHUNK_PX), (SHARD_PX, SHARD_PX)
    return ArraySpec(NAME, data.shape, data.dtype, fill, *sides)


def saccade_writer(folder: Path, data: np.ndarray, threads: int) -> Put:
    del threads  # a shard is encoded by whoever writes it
    spec, shelf = spec_of(data), LocalShelf(folder)
    shelf.put(f"{NAME}/zarr.json", as_json(array_metadata(spec)))

    def put(box: Box, values: np.ndarray) -> None:
        ((key, _),) = spec.shards(box)
        encoded = encode_shard(spec, values)
        assert encoded is not None
        shelf.put(key, encoded)

    return put


def zarr_writer(folder: Path, data: np.ndarray, threads: int) -> Put:
    zarr.config.set({"threading.max_workers": threads, "async.concurrency": threads})
    made = zarr.create_array(
        folder / NAME,
        shape=data.shape,
        dtype=data.dtype,
        chunks=(CHUNK_PX, CHUNK_PX),
        shards=(SHARD_PX, SHARD_PX),
        compressors=ZstdCodec(level=ZSTD_LEVEL),
        fill_value=spec_of(data).fill,
    )

    def put(box: Box, values: np.ndarray) -> None:
        made[box.slices] = values

    return put


def tensorstore_writer(folder: Path, data: np.ndarray, threads: int) -> Put:
    import tensorstore  # type: ignore[import-not-found, unused-ignore]

    limit = {"limit": threads}
    made: Any = tensorstore.open(
        {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(folder / NAME)}},
        create=True,
        dtype=data.dtype,
        shape=data.shape,
        fill_value=np.asarray(spec_of(data).fill, data.dtype),
        chunk_layout=tensorstore.ChunkLayout(
            write_chunk_shape=(SHARD_PX, SHARD_PX), read_chunk_shape=(CHUNK_PX, CHUNK_PX)
        ),
        codec=tensorstore.CodecSpec(TENSORSTORE_CODEC),
        context=tensorstore.Context(
            {
                "data_copy_concurrency": limit,
                "file_io_concurrency": limit,
                "file_io_sync": False,
            }
        ),
    ).result()

    def put(box: Box, values: np.ndarray) -> None:
        made[box.slices].write(values).result()

    return put


TENSORSTORE_CODEC = {
    "driver": "zarr3",
    "codecs": [
        {
            "name": "sharding_indexed",
            "configuration": {
                "codecs": [
                    {"name": "bytes", "configuration": {"endian": "little"}},
                    {"name": "zstd", "configuration": {"level": ZSTD_LEVEL}},
                ],
            },
        }
    ],
}
WRITERS: dict[str, Writer] = {"saccade": saccade_writer, "zarr": zarr_writer}
if importlib.util.find_spec("tensorstore"):
    WRITERS["tensorstore"] = tensorstore_writer


def smooth_scores(side_px: int) -> np.ndarray:
    """What a model says of tissue: slow waves between 0 and 1, float64."""
    y, x = np.ogrid[:side_px, :side_px]
    return (2 + np.sin(y / 310) * np.cos(x / 170) + np.sin((x + y) / 97)) / 4


def arrays(side_px: int) -> dict[str, np.ndarray]:
    """What is stored, by kind."""
    waves = smooth_scores(side_px)
    random = np.random.default_rng(7)
    grain = random.normal(0, 0.002, (side_px, side_px))
    return {
        "scores, uint8": np.round(255 * np.clip(waves + grain, 0, 1)).astype(np.uint8),
        "scores, float32": np.clip(waves + grain, 0, 1).astype(np.float32),
        "labels, uint8": 1 + (waves > 0.5).astype(np.uint8),
        "noise, uint8": random.integers(1, 256, (side_px, side_px), np.uint8),
        "noise, float32": random.random((side_px, side_px), np.float32),
    }


def write(writer: Writer, data: np.ndarray, threads: int, *, check: bool) -> Turn:
    """One turn; opening is not counted, and neither is reading back."""
    boxes = list(spec_of(data).shards(Box.of((data.shape[0], data.shape[1]))))
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(threads) as pool:
        put = writer(Path(temporary), data, threads)
        since, cpu = time.perf_counter(), time.process_time()
        for _ in pool.map(lambda named: put(named[1], data[named[1].slices]), boxes):
            pass
        turn = Turn(time.perf_counter() - since, time.process_time() - cpu)
        if check:
            back: Any = zarr.open_array(Path(temporary) / NAME, mode="r")
            np.testing.assert_array_equal(back[:], data)
        return turn


def compare(data: np.ndarray, threads: int, repetitions: int) -> list[str]:
    """Medians per writer; then how many times as fast as ours others are; then CPU seconds."""
    turns = [
        {name: write(one, data, threads, check=number == 0) for name, one in WRITERS.items()}
        for number in range(repetitions)
    ]
    seconds = [{name: turn.seconds for name, turn in each.items()} for each in turns]
    cpu = [{name: turn.cpu_seconds for name, turn in each.items()} for each in turns]
    return [
        *_cells(seconds, lambda each, name: data.nbytes / 1e6 / each[name], WRITERS, "{:.0f}"),
        *_cells(seconds, lambda each, name: each["saccade"] / each[name], OTHERS, "{:.2f}x"),
        *_cells(cpu, lambda each, name: each["saccade"] / each[name], OTHERS, "{:.2f}x"),
    ]


OTHERS = [name for name in WRITERS if name != "saccade"]


def _cells(
    turns: Sequence[dict[str, float]],
    value: Callable[[dict[str, float], str], float],
    names: Sequence[str] | dict[str, Writer],
    form: str,
) -> list[str]:
    return [form.format(statistics.median(value(turn, name) for turn in turns)) for name in names]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=8192, help="of the array, in pixels")
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    keep_large_blocks()  # as workers do
    print(f"{machine()}\n$ {command()}\n")
    rows = [
        [name, str(threads), *compare(data, threads, options.repetitions)]
        for name, data in arrays(options.side).items()
        for threads in (1, 2)
    ]
    speed = [f"{name} / saccade" for name in OTHERS]
    cpu = [f"CPU of saccade / {name}" for name in OTHERS]
    print(table(["MB/s written", "threads", *WRITERS, *speed, *cpu], rows))
    if "tensorstore" not in WRITERS:
        print("\ntensorstore is not installed: not measured.")
    print(
        "\nSpeeds of uncompressed bytes. Tensorstore would be used where it wins by 1.5x or more."
    )


if __name__ == "__main__":
    main()
