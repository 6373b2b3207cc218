"""Several nodes on one machine: lost and added during a run, and runs handed over as jobs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from ray_nodes import PATIENCE_SECONDS, Node, Nodes, ray_nodes

Results = Callable[[Path], dict[str, bytes]]

ACTOR = "ray::UnitActor"
DRIVER = "saccade.jobs run"
MODEL = '''
"""A blur of dark ground: slow, or held up, for as long as a file of that name lies beside it."""
import time
from pathlib import Path

import torch

HERE = Path(__file__).parent


class Blur(torch.nn.Module):
    def forward(self, x):
        if (HERE / "slow").exists():
            time.sleep(1)
        while (HERE / "held").exists():
            time.sleep(0.1)
        return torch.nn.functional.avg_pool2d(1 - x.mean(1, keepdim=True), 5, 1, 2)


def build():
    return Blur()
'''
RECIPE = """
passes:
  - name: glance
    resolution: {downsample: 4}
    model: builtin:tissue
    tile: 32
  - name: focus
    resolution: {downsample: 1}
    model: {source: "model.py:build", classes: [dark], halo: 2, stride: 1, channels: 3}
    tile: 32
    batch: 1
    select: {by: top_fraction, fraction: 0.7}
output: {chunk: 32, shard: 64}
"""

pytestmark = [
    pytest.mark.timeout(3 * PATIENCE_SECONDS),
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="nodes are found in /proc"),
]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with ray_nodes() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def office() -> Iterator[Nodes]:
    """A Ray that takes jobs."""
    with ray_nodes(jobs=True) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, make_image: Callable[..., Path]) -> Path:
    """A folder with ``model.py``, ``recipe.yaml`` and two images."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "model.py").write_text(MODEL)
    (folder / "recipe.yaml").write_text(RECIPE)
    make_image(folder / "one.tif", 389, 509, 3)
    make_image(folder / "two.tif", 211, 307, 5)
    return folder


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "saccade.jobs", *map(str, words)]


def call(*words: object, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words), env=env, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )


@pytest.fixture(scope="module")
def alone(
    desk: Path, tmp_path_factory: pytest.TempPathFactory, results: Results
) -> dict[str, bytes]:
    """The results of a run that nothing disturbed, in one process."""
    run = tmp_path_factory.mktemp("alone") / "run"
    images = desk / "one.tif", desk / "two.tif"
    done = call(
        "run", desk / "recipe.yaml", *images, "-o", run, "--workers", "local:1", env=os.environ
    )
    assert done.returncode == 0, done.stderr
    return results(run)


class Brake:
    """The files that keep the model from getting on."""

    def __init__(self, desk: Path) -> None:
        self._slow, self._held = desk / "slow", desk / "held"

    def slow(self) -> None:
        self._slow.touch()

    def hold(self) -> None:
        self._held.touch()

    def release(self) -> None:
        self._slow.unlink(missing_ok=True)
        self._held.unlink(missing_ok=True)


@pytest.fixture
def brake(desk: Path) -> Iterator[Brake]:
    """Drawn so far that a run is slow."""
    one = Brake(desk)
    one.slow()
    yield one
    one.release()


def until(happened: Callable[[], object], what: str) -> None:
    patience = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < patience, what
        time.sleep(0.1)


def receipts(run: Path) -> int:
    files = run.glob("journal/**/*.jsonl")
    return sum(path.read_text().count('"kind":"receipt"') for path in files)


def actors(node: Node) -> list[int]:
    return node.processes(ACTOR)


@pytest.mark.parametrize("workers", ["ray", "ray:2"])
def test_a_node_that_comes_is_given_work_and_one_that_is_lost_costs_only_what_was_in_flight(
    nodes: Nodes,
    desk: Path,
    brake: Brake,
    alone: dict[str, bytes],
    results: Results,
    tmp_path: Path,
    workers: str,
) -> None:
    first = nodes.add()
    images = desk / "one.tif", desk / "two.tif"
    words = ("run", desk / "recipe.yaml", *images, "-o", tmp_path / "run", "--workers", workers)
    process = subprocess.Popen(
        command(*words, "--address", nodes.address),
        env=nodes.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        until(lambda: receipts(tmp_path / "run") >= 3, "no receipt")
        brake.hold()
        second = nodes.add()
        until(lambda: actors(second), "no actor on the new node")
        nodes.kill(first)
        brake.release()
        said, _ = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()
    assert process.returncode == 0, said
    assert results(tmp_path / "run") == alone
    nodes.kill(second)


@pytest.fixture
def place(office: Nodes) -> Iterator[Node]:
    """A node that carries two workers."""
    node = office.add(cpus=2)
    yield node
    office.kill(node)


def submitted(
    office: Nodes, desk: Path, run: Path, *more: object
) -> subprocess.CompletedProcess[str]:
    images = desk / "one.tif", desk / "two.tif"
    words = ("submit", desk / "recipe.yaml", *images, "-o", run, "--to", "ray", "--workers", 2)
    return call(*words, "--address", office.job_address, *more, env=office.environment)


def job(office: Nodes, verb: str, *words: object) -> subprocess.CompletedProcess[str]:
    return call("job", verb, *words, "--address", office.job_address, env=office.environment)


def test_a_job_outlives_its_driver_and_another_attempt_finds_everything_done(
    office: Nodes,
    place: Node,
    desk: Path,
    brake: Brake,
    alone: dict[str, bytes],
    results: Results,
    tmp_path: Path,
) -> None:
    run = tmp_path / "killed"
    done = submitted(office, desk, run)
    assert "killed-1 is handed over" in done.stdout, done.stderr
    until(lambda: receipts(run) >= 3, "no receipt")
    brake.hold()
    (driver,) = office.head.processes(DRIVER)
    os.kill(driver, signal.SIGKILL)
    brake.release()
    followed = job(office, "logs", run, "--follow")
    assert followed.returncode == 0, followed.stdout + followed.stderr
    assert "ended by signal 9" in followed.stdout
    assert results(run) == alone
    again = submitted(office, desk, run, "--follow")
    assert again.returncode == 0, again.stdout + again.stderr
    assert job(office, "status", run).stdout == "killed-1\tdone\nkilled-2\tdone\n"
    assert results(run) == alone


def test_a_job_that_is_stopped_ends_in_order_and_the_next_attempt_goes_on(
    office: Nodes,
    place: Node,
    desk: Path,
    brake: Brake,
    alone: dict[str, bytes],
    results: Results,
    tmp_path: Path,
) -> None:
    run = tmp_path / "stopped"
    assert submitted(office, desk, run, "--grace", 5).returncode == 0
    until(lambda: receipts(run) >= 3, "no receipt")
    brake.hold()
    refused = submitted(office, desk, run)
    assert refused.returncode == 2
    assert "stopped-1 is running" in refused.stderr
    assert "asked to stop" in job(office, "stop", run).stdout
    until(lambda: "stopped-1\tstopped" in job(office, "status", run).stdout, "it goes on")
    assert "stopped on request" in job(office, "logs", run).stdout
    brake.release()
    again = submitted(office, desk, run, "--follow")
    assert again.returncode == 0, again.stdout + again.stderr
    assert results(run) == alone


@pytest.mark.parametrize(
    ("token", "said"), [("0" * 64, "does not take the token"), ("", "does not take the token")]
)
def test_a_token_that_is_wrong_or_missing_is_said_to_be_so(
    office: Nodes, desk: Path, tmp_path: Path, token: str, said: str
) -> None:
    env = office.environment | {"RAY_AUTH_TOKEN": token, "HOME": str(tmp_path)}
    if not token:
        del env["RAY_AUTH_TOKEN"], env["RAY_AUTH_MODE"]
    done = call("job", "status", "any", "--address", office.job_address, env=env)
    assert done.returncode == 1
    assert said in done.stderr
    assert "RAY_AUTH_TOKEN_PATH" in done.stderr
    assert "Traceback" not in done.stderr
