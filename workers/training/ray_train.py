"""The same training on several processes of a Ray cluster, through Ray Train.

Every process takes every step, on images and groups of its own; gradients are averaged. The first
writes checkpoints, log and what is left behind, so the output folder must be one that all reach.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from saccade.pipeline.errors import Interrupted, RunError, UsageError
from saccade.workers import ray_start
from saccade.workers.device import set_threads
from saccade.workers.training.card import Facts, leave_behind
from saccade.workers.training.team import Distributed
from saccade.workers.training.trainer import Trainer, TrainJob

STOP = "stop"
"""A file of this name in the output folder asks the processes to stop."""
STOP_SECONDS = 0.5
"""Between two looks whether somebody asked."""
BACKENDS = "cpu:gloo,cuda:nccl"


def train_on_ray(
    job: TrainJob,
    facts: Facts,
    workers: int,
    address: str | None,
    stop: Callable[[], bool] | None = None,
) -> bool:
    """Take all steps that are left on a cluster, and leave the weights behind.

    Args:
        job: what is trained; its paths are the same on all machines.
        facts: for the card.
        workers: processes.
        address: of the cluster; None starts one here.
        stop: asked now and then; True ends it after the next step.

    Returns:
        Whether it came to its end; else it was asked to stop.

    Raises:
        UsageError: Ray Train is not installed.
        RunError: a process failed.
    """
    try:
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer
    except ImportError as error:
        raise UsageError(
            "training on Ray needs Ray Train; install it with `pip install 'saccade[train]'`, or "
            "leave out 'ray' and --address to train in one process"
        ) from error
    ray_start.begin(address).then(lambda: None).result()
    try:
        with _asking(job.out / STOP, stop) as asked:
            TorchTrainer(
                partial(_work, job=job, facts=facts),
                torch_config=TorchConfig(backend="gloo" if job.device == "cpu" else BACKENDS),
                scaling_config=ScalingConfig(num_workers=workers, use_gpu=job.device != "cpu"),
                run_config=RunConfig(name="ray", storage_path=str(job.out.resolve())),
            ).fit()
            return not asked.exists()
    except Exception as error:
        raise RunError(f"training on Ray failed: {_cause(error)}") from error
    finally:
        ray_start.end()


@contextmanager
def _asking(path: Path, stop: Callable[[], bool] | None) -> Iterator[Path]:
    """Turn a wish to stop into a file that all processes look for; it is gone afterwards."""
    over = threading.Event()

    def ask() -> None:
        while not over.wait(STOP_SECONDS):
            if stop is not None and stop():
                path.touch()

    path.unlink(missing_ok=True)
    asking = threading.Thread(target=ask, name="saccade-train-stop", daemon=True)
    asking.start()
    try:
        yield path
    finally:
        over.set()
        asking.join()
        path.unlink(missing_ok=True)


def _cause(error: BaseException) -> str:
    return str(error.__cause__ or error)


def _work(settings: Mapping[str, Any] | None = None, *, job: TrainJob, facts: Facts) -> None:
    """One process of the team, from its models to the last step."""
    from ray.train.torch import get_device

    del settings
    if job.config.threads is not None:
        set_threads(job.config.threads)
    team = Distributed()
    trainer = Trainer(replace(job, device=str(get_device())), team)
    trainer.resume()
    try:
        trained = trainer.run(stop=partial(_is_there, job.out / STOP))
    except Interrupted:
        return
    if team.rank == 0:
        leave_behind(job, trained, facts)


def _is_there(path: Path) -> bool:
    return path.exists()
