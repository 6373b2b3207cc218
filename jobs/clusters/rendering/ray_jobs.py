"""A submission as a job of Ray. Pure; knows no Ray."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any

from saccade.jobs.clusters.submission import Submission

STOP_SECONDS = 30
"""What a run may take to stop beyond its grace period, before Ray ends it."""


def request(submission: Submission, modules: Sequence[str] = ()) -> dict[str, Any]:
    """What Ray is asked for.

    Args:
        submission: the job.
        modules: folders with Python modules that every process of the job is given.
    """
    # three seconds is what Ray grants by default
    stop_seconds = submission.grace_seconds + STOP_SECONDS
    environment: dict[str, Any] = {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(stop_seconds)}}
    if modules:
        environment["py_modules"] = list(modules)
    return {
        "submission_id": submission.job,
        "entrypoint": submission.entrypoint(),
        "runtime_env": environment,
        "metadata": {"saccade_run": submission.run},
    }


def render(submission: Submission) -> str:
    """The same as a shell script that uses Ray's command line."""
    asked = request(submission)
    environment = shlex.quote(json.dumps(asked["runtime_env"]))
    return f"""\
#!/bin/sh
# RAY_API_SERVER_ADDRESS is http://HEAD:8265; a cluster that asks for a token is shown the one of
# RAY_AUTH_TOKEN_PATH where RAY_AUTH_MODE=token. Ray takes a submission id only once. saccade is
# installed on every node of the cluster; recipe, images and run folder have the same paths there.
exec ray job submit --no-wait \\
  --submission-id {asked["submission_id"]} \\
  --runtime-env-json {environment} \\
  --metadata-json {shlex.quote(json.dumps(asked["metadata"]))} \\
  -- {asked["entrypoint"]}
"""
