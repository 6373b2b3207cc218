"""What can begin before the driver is imported. Imports neither torch nor, where not asked, Ray.

Starting Ray takes seconds in which this process mostly waits: the driver's imports, the weights'
hashes and the measuring of models go on meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from saccade.jobs.hardware import WorkerChoice
from saccade.jobs.options import RunOptions
from saccade.workers.ray_settings import prepare_environment


def ray_address(options: RunOptions) -> str | None:
    """Of the cluster to join; None where a Ray of its own is started for the run."""
    return options.address or os.environ.get("RAY_ADDRESS")


@contextmanager
def ray_begun(options: RunOptions) -> Iterator[None]:
    """Have Ray started in the background for the length of a block, where workers run on it.

    Raises:
        RunError: nothing answers at the cluster's address.
    """
    if WorkerChoice.parse(options.workers).kind == "local":
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
