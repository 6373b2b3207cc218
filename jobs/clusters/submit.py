"""Ray's job service: hands runs over, follows what they say, stops them.

Translates only: what is asked for is written in ``rendering.ray_jobs``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from saccade.jobs.clusters.packing import source_root, unpacked_wheel
from saccade.jobs.clusters.rendering.ray_jobs import request
from saccade.jobs.clusters.submission import Submission, attempts_among
from saccade.jobs.stopping import EXIT_INTERRUPTED
from saccade.pipeline.errors import RunError

STATES = {
    "PENDING": "waiting",
    "RUNNING": "running",
    "SUCCEEDED": "done",
    "FAILED": "failed",
    "STOPPED": "stopped",
}
CHATTY = ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env")
"""Parts of Ray that tell of every step they take."""
ADDRESS = "RAY_API_SERVER_ADDRESS"
"""What Ray's client heeds before any argument."""


class RayJobs:
    """The jobs of one Ray cluster. ``ray_settings.prepare_environment`` comes first.

    Args:
        address: 'http://HEAD:8265'; None is what the environment says, or this machine's.
        own_code: whether jobs are given this saccade where it runs from its sources, or use the one
            that the cluster's nodes have.
        say: prints.

    Raises:
        RunError: nothing answers there, or it does not take the token.
    """

    def __init__(
        self, address: str | None, *, own_code: bool = True, say: Callable[[str], None] = print
    ) -> None:
        self._address = address or os.environ.get(ADDRESS) or "this machine"
        self._own_code = own_code
        self._say = say
        for name in CHATTY:
            logging.getLogger(f"ray.{name}").setLevel(logging.WARNING)
        with self._named_errors(), _environment(address):
            self._client = JobSubmissionClient(address)

    def submit(self, submission: Submission) -> None:
        """Hand a run over, with the code that it runs.

        Raises:
            RunError: it was refused.
        """
        root = source_root() if self._own_code else None
        with self._named_errors(), tempfile.TemporaryDirectory() as folder:
            modules = [str(unpacked_wheel(root, Path(folder)))] if root else []
            self._client.submit_job(**request(submission, modules))

    def attempts(self, name: str) -> Mapping[int, str]:
        """The attempts at a run that the cluster remembers, and their states."""
        with self._named_errors():
            jobs = self._client.list_jobs()
        known = {job.submission_id: STATES[str(job.status)] for job in jobs if job.submission_id}
        return attempts_among(known, name)

    def tell(self, job: str, *, follow: bool) -> None:
        """Print what a job said; following, until it ends."""
        with self._named_errors():
            if follow:
                asyncio.run(self._follow(job))
            else:
                self._say(self._client.get_job_logs(job))

    async def _follow(self, job: str) -> None:
        async for lines in self._client.tail_job_logs(job):
            self._say(lines)

    def exit_code(self, job: str) -> int:
        """How the run ended in a job that has ended."""
        with self._named_errors():
            info = self._client.get_job_info(job)
        if info.driver_exit_code is not None:
            return int(info.driver_exit_code)
        return EXIT_INTERRUPTED if STATES[str(info.status)] == "stopped" else 1

    def stop(self, job: str) -> None:
        """Ask a job to stop in order; Ray ends it when its grace period is over."""
        with self._named_errors():
            self._client.stop_job(job)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except AuthenticationError as error:
            raise RunError(
                f"the Ray at {self._address} does not take the token: {_first_line(error)}; set "
                "RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to a file with it, to the cluster's"
            ) from error
        except ConnectionError as error:
            raise RunError(
                f"no job service at {self._address}: {_first_line(error)}; --address expects "
                "http://HEAD:8265 of a cluster whose dashboard is up"
            ) from error
        except (RuntimeError, ValueError, OSError) as error:
            raise RunError(f"the Ray at {self._address}: {_first_line(error)}") from error


@contextmanager
def _environment(address: str | None) -> Iterator[None]:
    """Have an address that was stated count more than those of the environment."""
    before = os.environ.get(ADDRESS)
    if address is not None:
        os.environ[ADDRESS] = address
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(ADDRESS, None)
        else:
            os.environ[ADDRESS] = before


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
