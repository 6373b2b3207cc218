"""What a row of a manifest costs: seconds of processor and bytes of memory, by rows and format.

One image under many names, each row with a pixel size and a change to a pass. Every list is read in
a process of its own; memory is the growth of its resident set at the peak, so that it holds what no
allocator of Python's sees.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import command, machine, table

from saccade.jobs.manifests.catalogue import Catalogue
from saccade.jobs.manifests.manifest import list_images


def main() -> None:
    options = arguments()
    if options.read:
        print(json.dumps(measure(options.read)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in options.rows:
            for suffix in ("csv", "jsonl"):
                path = write(Path(folder), count, suffix)
                found = in_a_process_of_its_own(path)
                rows.append([f"{count} rows of {suffix}", *told(found, count)])
    print(f"{machine()}\n`{command()}`\n")
    print(table(["", "us a row, read", "us a row, kept", "bytes a row", "peak MiB"], rows))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--read", type=Path, help="only measure the reading of this manifest")
    return parser.parse_args()


def write(folder: Path, count: int, suffix: str) -> Path:
    (folder / "x.tif").touch()
    path = folder / f"{count}.{suffix}"
    with path.open("w") as file:
        if suffix == "csv":
            file.write("image,name,mpp,passes.refine.tile\n")
            file.writelines(f"x.tif,slide-{n},0.25,{64 + n % 5}\n" for n in range(count))
        else:
            more = '"image": "x.tif", "mpp": 0.25, "passes.refine.tile": 64'
            file.writelines(f'{{"name": "slide-{n}", {more}}}\n' for n in range(count))
    return path


def in_a_process_of_its_own(path: Path) -> dict[str, float]:
    words = [sys.executable, __file__, "--read", str(path)]
    found: dict[str, float] = json.loads(subprocess.check_output(words, text=True))
    return found


def measure(path: Path) -> dict[str, float]:
    before, since = peak_nbytes(), time.process_time()
    listing = list_images([path])
    read = time.process_time()
    catalogue = Catalogue.of(listing)
    kept = time.process_time()
    assert len(catalogue) == len(listing)
    return {
        "read_seconds": read - since,
        "kept_seconds": kept - read,
        "grown_nbytes": peak_nbytes() - before,
        "peak_nbytes": peak_nbytes(),
    }


def peak_nbytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def told(found: dict[str, float], count: int) -> list[str]:
    return [
        f"{found['read_seconds'] / count * 1e6:.1f}",
        f"{found['kept_seconds'] / count * 1e6:.1f}",
        f"{found['grown_nbytes'] / count:.0f}",
        f"{found['peak_nbytes'] / 2**20:.0f}",
    ]


if __name__ == "__main__":
    main()
