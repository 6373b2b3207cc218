"""What verbs share: their arguments, the screen, how a program says that it ended."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from saccade.jobs.limits import QuarantineLimit
    from saccade.jobs.options import WorkerSize
    from saccade.workers.memory_size import MemoryLimit

EXIT_COMPLETE, EXIT_ERROR, EXIT_USAGE, EXIT_QUARANTINED, EXIT_INTERRUPTED = 0, 1, 2, 3, 75

screen = Console()
complaints = Console(stderr=True, soft_wrap=True)

Images = Annotated[
    list[str],
    typer.Argument(
        help="Files, folders, globs, URLs, or manifests: CSV, JSON lines, Parquet, STAC items."
    ),
]
Formats = Annotated[
    str | None, typer.Option(help="What folders are searched for: 'svs,tif'; else any image.")
]
Asset = Annotated[
    str | None, typer.Option(help="Of STAC items, the asset that is the image; else by its role.")
]
RecipePath = Annotated[Path, typer.Argument(help="A recipe (YAML).")]
Workers = Annotated[
    str, typer.Option(help="'ray' (actors), 'local' (this process); a count: 'ray:4'.")
]
Device = Annotated[str, typer.Option(help="'cpu', 'cuda', 'cuda:1' or 'auto'.")]
HostMemory = Annotated[
    str | None, typer.Option("--memory", help="Of this host's, at most: '8GiB' or '70%'.")
]
GpuMemory = Annotated[
    str | None, typer.Option("--gpu-memory", help="Of each GPU's, at most: '8GiB' or '70%'.")
]
Address = Annotated[str | None, typer.Option(help="Of a Ray cluster; RAY_ADDRESS works too.")]
MaxFailures = Annotated[
    int, typer.Option(help="Failures of one unit until its image is set aside.", min=1)
]
MaxQuarantined = Annotated[
    str | None,
    typer.Option(
        help="Stop once more images than this are set aside: '50', or '10%' of the ended."
    ),
]
Grace = Annotated[float, typer.Option(help="Seconds to finish units on SIGTERM.")]
Fsync = Annotated[bool, typer.Option(help="Force every shard to disk.")]
WorkerCpus = Annotated[
    float | None, typer.Option(help="Processors that each worker takes of a cluster.")
]
WorkerGpus = Annotated[
    float | None, typer.Option(help="GPUs that each worker takes of a cluster; 0.5 shares one.")
]
WorkerMemory = Annotated[
    str | None, typer.Option(help="Memory that each worker takes of a cluster: '8GiB'.")
]
RunPath = Annotated[Path, typer.Argument(help="A run's folder.")]


def amount(text: str | None) -> MemoryLimit | None:
    """An amount of memory as a person types it: '8GiB', '70%'."""
    from saccade.workers.memory_size import MemoryLimit

    return None if text is None else MemoryLimit.parse(text)


def share(text: str | None) -> QuarantineLimit | None:
    """A number of images or a share of them as a person types it: '50', '10%'."""
    from saccade.jobs.limits import QuarantineLimit

    return None if text is None else QuarantineLimit.parse(text)


def worker_size(cpus: float | None, gpus: float | None, memory: str | None) -> WorkerSize:
    """What each worker takes of a cluster, as a person types it."""
    from saccade.jobs.options import WorkerSize
    from saccade.pipeline.errors import UsageError

    limit = amount(memory)
    if limit is not None and limit.nbytes is None:
        raise UsageError(f"--worker-memory: an amount such as '8GiB' expected; found {memory!r}")
    return WorkerSize(cpus, gpus, limit.nbytes if limit else None)
