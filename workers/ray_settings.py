"""What Ray should know before it is imported: quiet, private, and with its token. No Ray here."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path

from saccade.pipeline.errors import RunError

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Sends nothing home, and leaves CUDA_VISIBLE_DEVICES alone."""
PROMPT = {
    "RAY_raylet_client_connect_timeout_milliseconds": "50",
    "RAY_raylet_client_num_connect_attempts": "200",
}
"""A raylet that looks for its own object store a moment too early looks again after 50 ms, not a
second, and gives up after the same ten seconds."""
HOST_AND_PORT = re.compile(r"(?P<host>\[[^\]]+\]|[^:/]+):(?P<port>\d+)")
CONNECT_SECONDS = 5.0


def prepare_environment(address: str | None) -> None:
    """Set what Ray reads from the environment, where the user has not set it.

    Raises:
        RunError: nothing answers at a cluster's address; Ray itself would wait for minutes.
    """
    for name, value in (QUIET | PROMPT).items():
        os.environ.setdefault(name, value)
    if address is None:
        return
    if has_token(os.environ, Path.home()):
        # `ray start` asks for the token as soon as there is one; `ray.init` sends it if told so
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    _check_reachable(address)


def has_token(environment: Mapping[str, str], home: Path) -> bool:
    """Whether there is a token to show to a cluster, in one of the places where Ray looks."""
    named = environment.get("RAY_AUTH_TOKEN") or environment.get("RAY_AUTH_TOKEN_PATH")
    return bool(named) or (home / ".ray" / "auth_token").is_file()


def _check_reachable(address: str) -> None:
    match = HOST_AND_PORT.fullmatch(address)
    if match is None:  # 'auto', or a ray:// address with a port of its own
        return
    host = match["host"].strip("[]")
    try:
        socket.create_connection((host, int(match["port"])), CONNECT_SECONDS).close()
    except OSError as error:
        raise RunError(
            f"no Ray at {address}: {error.strerror or error}; start one with 'ray start --head', "
            "check --address, or leave it out to run on this machine"
        ) from error
