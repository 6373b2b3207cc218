"""RayJobs on Kubernetes through ``kubectl``, with the cluster and the rights that it is set up for.

Translates only: what is asked for is written in ``rendering.kuberay``.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from typing import Any

from saccade.jobs.clusters.rendering import kuberay
from saccade.jobs.clusters.submission import ENDED, Submission, attempts_among
from saccade.jobs.stopping import EXIT_INTERRUPTED
from saccade.pipeline.errors import RunError

STATES = {
    "Running": "running",
    "Complete": "done",
    "Failed": "failed",
    "Suspended": "stopped",
    "ValidationFailed": "failed",
}
"""Of a RayJob's deployment; all others are on their way to running."""


class Kubectl:
    """The RayJobs of one namespace."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace

    def submit(self, submission: Submission) -> None:
        """Create the RayJob.

        Raises:
            RunError: it was refused.
        """
        self._call("create", "-f", "-", given=kuberay.render(submission))

    def attempts(self, name: str) -> Mapping[int, str]:
        """The attempts at a run that are not deleted yet, and their states."""
        listed = json.loads(self._call("get", "rayjobs.ray.io", "-o", "json"))
        return attempts_among({j["metadata"]["name"]: state_of(j) for j in listed["items"]}, name)

    def tell(self, job: str, *, follow: bool) -> None:
        """Print what a job said, as its submitter heard it; following, until it ends."""
        words = ["logs", f"job/{job}", *(["--follow"] if follow else [])]
        self._call(*words, captured=False)

    def exit_code(self, job: str) -> int:
        """0 where the run is complete; Kubernetes knows no more than that."""
        state = state_of(json.loads(self._call("get", "rayjobs.ray.io", job, "-o", "json")))
        if state not in ENDED:
            return EXIT_INTERRUPTED
        return 0 if state == "done" else 1

    def stop(self, job: str) -> None:
        """Suspend the RayJob: its pods end, and the next attempt repeats the units in flight."""
        patch = json.dumps({"spec": {"suspend": True}})
        self._call("patch", "rayjobs.ray.io", job, "--type=merge", "-p", patch)

    def _call(self, *words: str, given: str | None = None, captured: bool = True) -> str:
        command = ["kubectl", "--namespace", self._namespace, *words]
        try:
            done = subprocess.run(command, input=given, capture_output=captured, text=True)
        except FileNotFoundError as error:
            raise RunError(
                "kubectl is not installed here; 'saccade render' prints the manifest"
            ) from error
        if done.returncode:
            said = (done.stderr or "").strip() or f"exit code {done.returncode}"
            raise RunError(f"kubectl {words[0]}: {said}")
        return done.stdout or ""


def state_of(rayjob: Mapping[str, Any]) -> str:
    """In which state a RayJob is."""
    return STATES.get(rayjob.get("status", {}).get("jobDeploymentStatus", ""), "waiting")
