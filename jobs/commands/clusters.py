"""Verbs for clusters: ``submit``, ``render``, ``job``, ``supervise``.

Parse and print; decide nothing.
"""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saccade.jobs.clusters.allocation import Mode
from saccade.jobs.commands.words import (
    EXIT_COMPLETE,
    WorkerCpus,
    WorkerGpus,
    WorkerMemory,
    complaints,
    screen,
    worker_size,
)

if TYPE_CHECKING:
    from saccade.jobs.clusters.allocation import Allocation
    from saccade.jobs.clusters.submission import Jobs, Submission

app = typer.Typer()
jobs_app = typer.Typer(help="What became of runs handed over to a cluster.", no_args_is_help=True)
app.add_typer(jobs_app, name="job")


class Target(StrEnum):
    """Kinds of clusters."""

    RAY = "ray"
    KUBERAY = "kuberay"
    SLURM = "slurm"


To = Annotated[Target, typer.Option("--to", help="The kind of cluster.")]
Address = Annotated[
    str | None, typer.Option(help="Of Ray's job service: 'http://HEAD:8265'. Only --to ray.")
]
Namespace = Annotated[str, typer.Option(help="Of Kubernetes. Only --to kuberay.")]
Follow = Annotated[bool, typer.Option(help="Print what the job says until it ends.")]
JobName = Annotated[str, typer.Argument(help="Name or folder of a run; its last attempt is meant.")]


def submit_command(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="A recipe, as the cluster's machines see it.")],
    images: Annotated[
        list[str], typer.Argument(help="Manifests, files, folders, globs, likewise.")
    ],
    output: Annotated[str, typer.Option("-o", "--output", help="The run's folder, likewise.")],
    to: To,
    address: Address = None,
    name: Annotated[str | None, typer.Option(help="Of the run; else from its folder.")] = None,
    workers: Annotated[int | None, typer.Option(help="At most.", min=1)] = None,
    least_workers: Annotated[
        int | None, typer.Option(help="Kept where a cluster grows and shrinks.", min=0)
    ] = None,
    worker_cpus: WorkerCpus = None,
    worker_gpus: WorkerGpus = None,
    worker_memory: WorkerMemory = None,
    run_options: Annotated[
        str, typer.Option(help="More options of 'saccade run', in quotes: '--fsync --mpp 0.5'.")
    ] = "",
    restarts: Annotated[
        int, typer.Option(help="Of the driver, in a row without getting anywhere.", min=0)
    ] = 5,
    grace: Annotated[int, typer.Option(help="Seconds to finish units when stopped.", min=0)] = 30,
    deadline: Annotated[
        str | None, typer.Option(help="End the job after '90m', '12h', '2d'. Not --to ray.")
    ] = None,
    image: Annotated[str, typer.Option(help="Of containers. Only --to kuberay.")] = "",
    namespace: Namespace = "default",
    claim: Annotated[
        list[str] | None, typer.Option(help="Storage of pods: 'NAME:/PATH'. Only --to kuberay.")
    ] = None,
    secret: Annotated[
        list[str] | None, typer.Option(help="A secret that becomes environment variables, by name.")
    ] = None,
    own_code: Annotated[
        bool, typer.Option(help="Send this saccade along where it runs from its sources.")
    ] = True,
    slurm_mode: Annotated[
        Mode, typer.Option(help="Slurm: an array of independent drivers, or a Ray over the nodes.")
    ] = Mode.ARRAY,
    shards: Annotated[
        int, typer.Option(help="Parts of the run, each a task of Slurm's array.", min=1)
    ] = 1,
    nodes: Annotated[int, typer.Option(help="Of --slurm-mode ray.", min=1)] = 1,
    partition: Annotated[str | None, typer.Option(help="Of Slurm.")] = None,
    account: Annotated[str | None, typer.Option(help="Who pays, to Slurm.")] = None,
    sbatch: Annotated[
        list[str] | None, typer.Option(help="More for sbatch: '--constraint=a100'.")
    ] = None,
    setup: Annotated[
        list[str] | None, typer.Option(help="A line before the run: 'module load cuda'. Slurm.")
    ] = None,
    follow: Follow = False,
) -> None:
    """Hand a run over to a cluster. 'render' prints what this would hand over."""
    from saccade.jobs.clusters.allocation import Allocation
    from saccade.jobs.clusters.submission import (
        Claim,
        Submission,
        name_of_run,
        next_attempt,
        seconds_of,
    )
    from saccade.pipeline.errors import UsageError

    if to is Target.RAY and deadline is not None:
        raise UsageError("--deadline: Ray ends no job by itself; leave it out")
    here = to is not Target.KUBERAY
    submission = Submission(
        recipe=_absolute(recipe, here),
        images=tuple(_absolute(image, here) for image in images),
        run=_absolute(output, here),
        name=name or name_of_run(output),
        run_options=tuple(shlex.split(run_options)),
        workers=workers,
        least_workers=least_workers,
        worker=worker_size(worker_cpus, worker_gpus, worker_memory),
        restarts=restarts,
        grace_seconds=grace,
        deadline_seconds=seconds_of(deadline),
        image=image,
        namespace=namespace,
        claims=tuple(map(Claim.parse, claim or ())),
        secrets=tuple(secret or ()),
    )
    allocation = Allocation(
        mode=slurm_mode,
        count=shards if slurm_mode is Mode.ARRAY else nodes,
        partition=partition,
        account=account,
        options=tuple(sbatch or ()),
        setup=tuple(setup or ()),
    )
    if context.info_name == "render":
        print(_rendered(submission, to, allocation), end="")
        return
    jobs = _jobs(to, address, namespace, own_code=own_code, allocation=allocation)
    submission = next_attempt(submission, jobs.attempts(submission.name))
    jobs.submit(submission)
    screen.print(f"{submission.job} is handed over", highlight=False)
    if follow:
        jobs.tell(submission.job, follow=True)
        _leave_as(jobs, submission.job)


app.command("submit")(submit_command)
app.command("render", help="Print what 'submit' would hand over, to be read and edited.")(
    submit_command
)


@jobs_app.command("status")
def status_command(
    name: JobName, to: To = Target.RAY, address: Address = None, namespace: Namespace = "default"
) -> None:
    """Say in which state the attempts at a run are."""
    from saccade.jobs.clusters.submission import name_of_run

    name = name_of_run(name)
    for number, state in _jobs(to, address, namespace).attempts(name).items():
        print(f"{name}-{number}\t{state}")


@jobs_app.command("logs")
def logs_command(
    name: JobName,
    to: To = Target.RAY,
    address: Address = None,
    namespace: Namespace = "default",
    follow: Follow = False,
) -> None:
    """Print what the last attempt said."""
    jobs = _jobs(to, address, namespace)
    job, _ = _last(jobs, name)
    jobs.tell(job, follow=follow)
    if follow:
        _leave_as(jobs, job)


@jobs_app.command("stop")
def stop_command(
    name: JobName, to: To = Target.RAY, address: Address = None, namespace: Namespace = "default"
) -> None:
    """Ask the last attempt to stop in order. Submitting again goes on where it stopped."""
    from saccade.jobs.clusters.submission import ENDED

    jobs = _jobs(to, address, namespace)
    job, state = _last(jobs, name)
    if state in ENDED:
        screen.print(f"{job} has ended: {state}", highlight=False)
        return
    jobs.stop(job)
    screen.print(f"{job} is asked to stop", highlight=False)


@app.command(
    "supervise", context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
)
def supervise_command(
    context: typer.Context,
    restarts: Annotated[
        int, typer.Option(help="Short lives in a row that are followed by another.", min=0)
    ] = 5,
) -> None:
    """Run another saccade command; again where it is cut short. 'saccade supervise run ...'."""
    from saccade.jobs.clusters.supervising import supervise

    def tell(line: str) -> None:
        complaints.print(f"saccade supervise: {line}", markup=False, highlight=False)

    raise typer.Exit(supervise(context.args, restarts, tell))


@app.command("await-nodes", hidden=True)
def await_nodes_command(
    count: Annotated[int, typer.Argument(help="Of nodes.", min=1)],
    address: Annotated[str, typer.Option(help="Of a Ray cluster: 'HEAD:PORT'.")],
    seconds: Annotated[float, typer.Option(help="To wait at most.")] = 300.0,
) -> None:
    """Wait until a Ray has as many nodes; fail where it has not in time."""
    from saccade.workers.ray_settings import prepare_environment

    prepare_environment(None)  # before Ray is imported
    from saccade.workers.ray_start import await_nodes

    await_nodes(address, count, seconds)


def _absolute(path: str, here: bool) -> str:
    """A path as every machine sees it, where this one is like the others."""
    return str(Path(path).absolute()) if here and "://" not in path else path


def _rendered(submission: Submission, to: Target, allocation: Allocation) -> str:
    from saccade.jobs.clusters.rendering import kuberay, ray_jobs, slurm

    if to is Target.SLURM:
        return slurm.render(submission, allocation)
    return kuberay.render(submission) if to is Target.KUBERAY else ray_jobs.render(submission)


def _jobs(
    to: Target,
    address: str | None,
    namespace: str,
    *,
    own_code: bool = True,
    allocation: Allocation | None = None,
) -> Jobs:
    if to is Target.SLURM:
        from saccade.jobs.clusters.sbatch import Slurm

        return Slurm(allocation, say=lambda text: print(text, end="", flush=True))
    if to is Target.KUBERAY:
        from saccade.jobs.clusters.kubectl import Kubectl

        return Kubectl(namespace)
    from saccade.workers.ray_settings import prepare_environment

    prepare_environment(address or "http://")
    from saccade.jobs.clusters.submit import RayJobs

    return RayJobs(address, own_code=own_code, say=lambda text: print(text, end="", flush=True))


def _last(jobs: Jobs, name: str) -> tuple[str, str]:
    """The last attempt at a run, and its state."""
    from saccade.jobs.clusters.submission import name_of_run
    from saccade.pipeline.errors import RunError

    name = name_of_run(name)
    attempts = jobs.attempts(name)
    if not attempts:
        raise RunError(f"the cluster knows no attempt at {name}; 'saccade submit' makes one")
    return f"{name}-{max(attempts)}", attempts[max(attempts)]


def _leave_as(jobs: Jobs, job: str) -> None:
    code = jobs.exit_code(job)
    if code != EXIT_COMPLETE:
        raise typer.Exit(code)
