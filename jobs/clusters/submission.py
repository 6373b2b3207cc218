"""A run handed over to a cluster: what is run, on how many workers, and what keeps it alive.

Values and their rules. Knows no cluster; ``rendering`` writes them down for each kind of one.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Protocol

from saccade.jobs.options import WorkerSize
from saccade.pipeline.errors import UsageError

NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")
"""Names of runs on clusters: with an attempt after them, still a label that Kubernetes takes."""
DURATION = re.compile(r"(?P<number>\d+)\s*(?P<unit>[smhd]?)")
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
ENDED = ("done", "failed", "stopped")
"""Of the words for states, beside 'waiting' and 'running', those that are an end."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Storage of a Kubernetes cluster, and where pods see it."""

    name: str
    """Of a persistent volume claim."""
    mount: str
    """An absolute path."""

    @classmethod
    def parse(cls, text: str) -> Claim:
        """From 'NAME:/PATH'.

        Raises:
            UsageError: it is something else.
        """
        name, _, mount = text.partition(":")
        if not (name and mount.startswith("/")):
            raise UsageError(f"--claim: 'NAME:/PATH' expected; found {text!r}")
        return cls(name, mount)

    def holds(self, path: str) -> bool:
        """Whether a path lies on it."""
        return PurePosixPath(path).is_relative_to(self.mount)


@dataclass(frozen=True, slots=True)
class Submission:
    """One attempt at a run on a cluster."""

    recipe: str
    """Path or address, as the cluster's machines see it; absolute."""
    images: tuple[str, ...]
    """Manifests, files, folders or globs, likewise."""
    run: str
    """The run's folder, likewise; every attempt goes on in it."""
    name: str
    """Of the run on the cluster."""
    attempt: int = 1
    """From 1; schedulers take a name only once."""
    run_options: tuple[str, ...] = ()
    """More options of ``saccade run``."""
    workers: int | None = None
    """At most; None is as many as the cluster carries."""
    local: bool = False
    """One worker, in the driver's own process, instead of actors."""
    least_workers: int | None = None
    """Kept, where a cluster grows and shrinks; None is as many as at most."""
    worker: WorkerSize = field(default_factory=WorkerSize)
    """What each worker takes."""
    restarts: int = 5
    """Short lives of the driver in a row that are followed by another."""
    grace_seconds: int = 30
    """Time for units in flight when the run is asked to stop."""
    deadline_seconds: int | None = None
    """After which the cluster ends the job; None is never."""
    keep_seconds: int = 3600
    """For which what is left of an ended job stays to be looked at."""
    retries: int = 1
    """Times that the cluster starts a failed job anew, machines and all."""
    image: str = ""
    """Of containers."""
    namespace: str = "default"
    """Of Kubernetes."""
    claims: tuple[Claim, ...] = ()
    """Storage that every pod sees."""
    secrets: tuple[str, ...] = ()
    """Names of Kubernetes secrets whose keys become environment variables."""

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise UsageError(
                "--name: at most 40 lower-case letters, digits and -, a letter first, expected; "
                f"found {self.name!r}"
            )
        if self.least_workers is not None and self.least_workers > (self.workers or 0):
            raise UsageError(
                f"--least-workers: at most the {self.workers or 'number of'} --workers expected; "
                f"found {self.least_workers}"
            )

    @property
    def job(self) -> str:
        """Identifies this attempt on the cluster."""
        return f"{self.name}-{self.attempt}"

    def command(self) -> tuple[str, ...]:
        """What the job runs, once: it keeps the run alive and passes its exit code on."""
        words = ["python", "-m", "saccade.jobs", "supervise", "--restarts", str(self.restarts)]
        words += ["run", self.recipe, *self.images, "-o", self.run]
        words += ["--workers", self._workers()]
        words += ["--grace", str(self.grace_seconds)]
        return (*words, *self._worker_options(), *self.run_options)

    def _workers(self) -> str:
        if self.local:
            return "local"
        return f"ray:{self.workers}" if self.workers else "ray"

    def _worker_options(self) -> Iterable[str]:
        size = self.worker
        if size.cpus:
            yield from ("--worker-cpus", f"{size.cpus:g}")
        if size.gpus:
            yield from ("--worker-gpus", f"{size.gpus:g}", "--device", "cuda")
        if size.memory_nbytes:
            yield from ("--worker-memory", f"{size.memory_nbytes}B")

    def entrypoint(self) -> str:
        """The same as a line for a shell."""
        return shlex.join(self.command())


class Jobs(Protocol):
    """A cluster that takes jobs."""

    def submit(self, submission: Submission) -> None:
        """Hand a run over."""
        ...

    def attempts(self, name: str) -> Mapping[int, str]:
        """The attempts at a run that the cluster remembers, and their states."""
        ...

    def tell(self, job: str, *, follow: bool) -> None:
        """Print what a job said; following, until it ends."""
        ...

    def exit_code(self, job: str) -> int:
        """How the run ended in a job that has ended, as ``saccade run`` would say it."""
        ...

    def stop(self, job: str) -> None:
        """Ask a job to stop in order."""
        ...


def next_attempt(submission: Submission, attempts: Mapping[int, str]) -> Submission:
    """The submission as the attempt after those that there were.

    Raises:
        UsageError: one of them has not ended.
    """
    for number, state in attempts.items():
        if state not in ENDED:
            raise UsageError(
                f"{submission.name}-{number} is {state}: wait for it, stop it ('saccade job stop "
                f"{submission.name}'), or give this one another --name"
            )
    return replace(submission, attempt=max(attempts, default=0) + 1)


def attempts_among(jobs: Mapping[str, str], name: str) -> dict[int, str]:
    """Of jobs and their states, those that are attempts at a run, by number."""
    pattern = re.compile(re.escape(name) + r"-(\d+)")
    found = ((pattern.fullmatch(job), state) for job, state in jobs.items())
    return dict(sorted((int(match[1]), state) for match, state in found if match))


def name_of_run(run: str) -> str:
    """A name for a run on a cluster, from its folder."""
    label = re.sub(r"[^a-z0-9]+", "-", PurePosixPath(run).name.lower()).strip("-")
    return (label if label[:1].isalpha() else f"run-{label}")[:40].strip("-")


def seconds_of(text: str | None) -> int | None:
    """A duration as people write it: '90', '90s', '30m', '12h', '2d'.

    Raises:
        UsageError: none of these.
    """
    if text is None:
        return None
    match = DURATION.fullmatch(text.strip())
    if match is None or not int(match["number"]):
        raise UsageError(f"a duration such as '90s', '30m', '12h' or '2d' expected; found {text!r}")
    return int(match["number"]) * SECONDS[match["unit"]]
