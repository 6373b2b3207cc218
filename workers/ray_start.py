"""Ray, joined or started in the background: that is mostly waiting, while others import and open.

One per process, as Ray itself is. Knows nothing of what runs on it, and imports neither models nor
torch: Ray's start can begin before theirs. ``ray_settings.prepare_environment`` comes first.
"""

from __future__ import annotations

import ctypes
import logging
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import ray

from saccade.pipeline.errors import RunError
from saccade.workers import ray_settings

Made = TypeVar("Made")
POLL_SECONDS = 0.5


class RayStart:
    """A Ray that stands, or soon will."""

    def __init__(self, address: str | None) -> None:
        # the system ends Ray's daemons with the thread that started them: it lives as long as Ray
        self._thread = ThreadPoolExecutor(1, "ray")
        self._connected = self._thread.submit(_connect, address)

    def then(self, make: Callable[[], Made]) -> Future[Made]:
        """Make something as soon as Ray stands; fails as the start did where it did.

        Raises (from the future):
            RunError: there is no Ray at the address, or it does not start here.
        """

        def made() -> Made:
            self._connected.result()
            return make()

        return self._thread.submit(made)

    def close(self) -> None:
        """Leave Ray, and end it where it was started here; waits until that is done."""
        self._thread.submit(ray.shutdown).result()
        self._thread.shutdown()


_begun: RayStart | None = None


def begin(address: str | None) -> RayStart:
    """Begin to join the cluster at the address, or to start one; the one begun where there is one.

    Args:
        address: of a cluster; None starts a Ray that only this machine can reach.
    """
    global _begun
    if _begun is None:
        _begun = RayStart(address)
    return _begun


def end() -> None:
    """Leave Ray, if it was begun; twice is no error."""
    global _begun
    begun, _begun = _begun, None
    if begun is not None:
        begun.close()


def await_nodes(address: str, count: int, seconds: float) -> None:
    """Wait until as many nodes are alive in the cluster at the address.

    Raises:
        RunError: there are fewer when the time is up.
    """
    until = time.monotonic() + seconds
    alive, why = 0, "nothing answers"
    while time.monotonic() < until:
        try:
            ray_settings.prepare_environment(address)
            _connect(address)
            alive = sum(node["Alive"] for node in ray.nodes())
            why = f"{alive} are there"
        except RunError as error:
            why = str(error)
        if alive >= count:
            return
        time.sleep(POLL_SECONDS)
    raise RunError(f"{count} nodes expected at {address} within {seconds:.0f} s; {why}")


def _connect(address: str | None) -> None:
    """Join the cluster at the address, or start one that only this machine can reach."""
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    private = {"address": "local", "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    try:
        with _signals_kept():
            if address:
                ray.init(address=address, ignore_reinit_error=True, **quiet)
            else:
                ray.init(**private, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = f"at {address}" if address else "on this machine"
        raise RunError(
            f"no Ray {where}: {first_line(error)}; check --address, or use --workers local"
        ) from error


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Put back the handlers that Ray replaces; its own abort the process three seconds later."""
    # Python lets only the main thread set handlers, and Ray does so from any
    libc = ctypes.CDLL(None)
    kept = {n: ctypes.create_string_buffer(1024) for n in (signal.SIGTERM, signal.SIGINT)}
    for number, action in kept.items():
        libc.sigaction(number, None, action)
    try:
        yield
    finally:
        for number, action in kept.items():
            libc.sigaction(number, action, None)


def first_line(error: BaseException) -> str:
    """The first line that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
