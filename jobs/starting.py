"""What can begin before the driver is imported. Imports neither torch nor, where not asked, Ray.

Starting Ray takes seconds in which this process mostly waits: the driver's imports, the weights'
hashes and the measuring of models go on meanwhile.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from saccade.jobs.hardware import WorkerChoice
from saccade.jobs.journals.records import epoch_path, epochs
from saccade.jobs.journals.sharing import journals
from saccade.jobs.manifests.names import Names
from saccade.jobs.options import RunOptions
from saccade.workers.ray_settings import prepare_environment


def ray_address(options: RunOptions) -> str | None:
    """Of the cluster to join; None where a Ray of its own is started for the run."""
    return options.address or os.environ.get("RAY_ADDRESS")


ENDS = (b'{"kind":"image"', b'{"kind":"quarantine"')
"""How the journal's lines begin that end an image."""
AGAIN = b'{"kind":"restart"'
"""How those begin that make it begin anew."""


def seems_ended(journal: Path, names: Names | Iterable[str], options: RunOptions) -> bool:
    """Whether a glance at a run's journal finds every image ended, so that Ray may not be needed.

    A hint, cheap enough to come before everything else: only lines that end an image are read, and
    none is checked. What is left to do is decided by the whole journal, later.

    Args:
        journal: the whole run's; there may be none.
        names: of the images asked for.
        options: of the run; what may begin images anew counts as work.
    """
    if options.force or options.retry:
        return False
    asked = names if isinstance(names, Names) else Names.of(names)
    ended = bytearray(len(asked))
    try:
        for _, folder in journals(journal, options.shard):
            for number in epochs(folder):
                _mark_ended(epoch_path(folder, number), asked, ended)
    except (OSError, ValueError, LookupError):
        return False
    return all(ended)


def _mark_ended(path: Path, names: Names, ended: bytearray) -> None:
    with path.open("rb") as file:
        for line in file:
            if not line.startswith((*ENDS, AGAIN)):
                continue
            place = names.place(json.loads(line)["image"])
            if place is not None:
                ended[place] = line.startswith(ENDS)


@contextmanager
def ray_begun(options: RunOptions, *, needed: bool = True) -> Iterator[None]:
    """Have Ray started in the background for the length of a block, where workers run on it.

    Args:
        options: of the run.
        needed: whether there is work for it; where there is none, nothing is started.

    Raises:
        RunError: nothing answers at the cluster's address.
    """
    if not needed or WorkerChoice.parse(options.workers).kind == "local":
        yield
        return
    address = ray_address(options)
    prepare_environment(address)
    from saccade.workers import ray_start

    ray_start.begin(address)
    try:
        yield
    finally:
        ray_start.end()
