"""A Ray of several nodes on this machine; each can be killed, like a machine that is lost."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

PATIENCE_SECONDS = 500
OBJECT_STORE_NBYTES = 80_000_000
JOIN_TRIES = 12
AGENTS = ("dashboard-agent-listen", "dashboard-agent-grpc", "runtime-env-agent", "metrics-export")
PLENTY_NBYTES = 4 * 2**30


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def below(pid: int) -> dict[int, str]:
    """Command lines of a process and all that it started, by process id."""
    children: dict[int, list[int]] = {}
    commands: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[1]
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        children.setdefault(int(parent), []).append(int(folder.name))
        commands[int(folder.name)] = command
    found: dict[int, str] = {}
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        if one in commands:
            found[one] = commands[one]
        waiting += children.get(one, [])
    return found


def kill_tree(pid: int) -> None:
    """SIGKILL, the first process first, so that none is left to tidy up."""
    for one in below(pid):
        try:
            os.kill(one, signal.SIGKILL)
        except ProcessLookupError:
            continue


class Node:
    """One node: a ``ray start --block`` and all that it started."""

    def __init__(self, arguments: list[str], environment: Mapping[str, str]) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115, closed with the node
        self._process = subprocess.Popen(
            [str(Path(sys.executable).with_name("ray")), "start", "--block", *arguments],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,
        )

    def said(self) -> str:
        self._log.seek(0)
        return self._log.read().decode()

    @property
    def up(self) -> bool:
        """Whether it has joined, or stands as the first."""
        return "Ray runtime started" in self.said()

    @property
    def ended(self) -> bool:
        """Whether it gave up."""
        return self._process.poll() is not None

    def processes(self, word: str) -> list[int]:
        """Ids of its processes with a word in their command line."""
        return [pid for pid, command in below(self._process.pid).items() if word in command]

    def kill(self) -> None:
        """Like a machine that is lost: nothing gets to say goodbye."""
        kill_tree(self._process.pid)
        self._process.wait()
        self._log.close()


class Nodes:
    """The nodes of one Ray that asks for a token.

    Args:
        folder: where its processes meet; a short path.
        jobs: whether it takes jobs, which costs a dashboard.
    """

    def __init__(self, folder: Path, *, jobs: bool) -> None:
        self.token = secrets.token_hex(32)
        self.port, self.dashboard_port = free_port(), free_port()
        self._nodes: list[Node] = []
        words = ["--head", "--num-cpus", 0, "--temp-dir", folder, "--port", self.port]
        dashboard = ["--dashboard-port", self.dashboard_port]
        self.head = self._up(*words, *(dashboard if jobs else ["--include-dashboard=false"]))
        if jobs:
            self._wait_for(self.dashboard_port)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def job_address(self) -> str:
        return f"http://127.0.0.1:{self.dashboard_port}"

    @property
    def environment(self) -> dict[str, str]:
        """Of whoever may use this Ray."""
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        others = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        mine = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, "PATH": path}
        quiet = {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
        # where the machine has other things to do, workers are not to starve, and take their time
        quiet |= {"RAY_worker_niceness": "0", "RAY_worker_register_timeout_seconds": "300"}
        quiet |= {"RAY_agent_register_timeout_ms": "300000", "RAY_raylet_start_wait_time_s": "300"}
        # a node that is lost should be missed within seconds, not half a minute
        prompt = {
            "RAY_health_check_initial_delay_ms": "1000",
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_failure_threshold": "10",
        }
        return others | mine | quiet | prompt

    def _start(self, *arguments: object) -> Node:
        shared = ["--node-ip-address=127.0.0.1", "--min-worker-port=0", "--max-worker-port=0"]
        shared.append(f"--object-store-memory={OBJECT_STORE_NBYTES}")
        shared.append(f"--memory={PLENTY_NBYTES}")
        # Ray waits 15 seconds, no more, for its agents to say which ports they chose
        shared += [f"--{agent}-port={free_port()}" for agent in AGENTS]
        node = Node([*map(str, arguments), *shared], self.environment)
        self._nodes.append(node)
        return node

    def _up(self, *arguments: object) -> Node:
        """A node that is up; on a busy machine, Ray gives some up before they are."""
        for _ in range(JOIN_TRIES):
            node = self._start(*arguments)
            while not (node.up or node.ended):
                time.sleep(0.2)
            if node.up:
                return node
            self.kill(node)
        raise AssertionError("no node comes up")

    def add(self, cpus: int = 1) -> Node:
        """One more node."""
        return self._up("--address", self.address, "--num-cpus", cpus)

    def _wait_for(self, port: int) -> None:
        patience = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                assert time.monotonic() < patience, self.head.said()
                time.sleep(0.2)

    def kill(self, node: Node) -> None:
        self._nodes.remove(node)
        node.kill()

    def close(self) -> None:
        for node in self._nodes[::-1]:
            node.kill()


@contextmanager
def ray_nodes(*, jobs: bool = False) -> Iterator[Nodes]:
    """A head without processors for work, and whatever is added to it; everything ends with it."""
    folder = Path(tempfile.mkdtemp(prefix="sr", dir="/tmp"))  # paths of sockets are short
    nodes = Nodes(folder, jobs=jobs)
    try:
        yield nodes
    finally:
        nodes.close()
        shutil.rmtree(folder, ignore_errors=True)
