"""What a run counts, scraped from a real Ray as Prometheus would."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from saccade.jobs.monitoring.metrics import REGISTRY

SLOW_MODEL = """
import time
from torch import nn

class Slow(nn.Module):
    def forward(self, x):
        time.sleep(0.2)
        return x.mean(1, keepdim=True)

def build():
    return Slow()
"""
RECIPE = """
passes:
  - name: only
    resolution: {downsample: 1}
    model:
      {source: "slow.py:build", classes: [a], halo: 0, stride: 1, channels: 3, activation: none}
    tile: 64
    window: 64
    batch: 1
output: {chunk: 64, shard: 64}
"""
PATIENCE_SECONDS = 240
STARTS = 4


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Head:
    """A Ray that tells its metrics, in a process group of its own."""

    def __init__(self, folder: Path) -> None:
        port, self.metrics_port = free_port(), free_port()
        self.address = f"127.0.0.1:{port}"
        command = [
            Path(sys.executable).with_name("ray"), "start", "--block", "--head",
            "--node-ip-address=127.0.0.1", f"--port={port}", "--num-cpus=1",
            "--include-dashboard=false", f"--metrics-export-port={self.metrics_port}",
            f"--dashboard-agent-listen-port={free_port()}", "--object-store-memory=80000000",
            "--min-worker-port=0", "--max-worker-port=0", f"--temp-dir={folder}",
        ]  # fmt: skip
        quick = {"RAY_metrics_report_interval_ms": "1000", "RAY_USAGE_STATS_ENABLED": "0"}
        self._log = folder / "said.txt"
        with self._log.open("w") as said:
            self._process = subprocess.Popen(
                command, stdout=said, stderr=said, start_new_session=True, env=os.environ | quick
            )

    @property
    def said(self) -> str:
        return self._log.read_text()

    def stands(self) -> bool:
        """Wait for it; False where Ray gave up, which it does after 30 s on a busy machine."""
        while "Ray runtime started" not in self.said:
            if self._process.poll() is not None:
                assert "timed out during startup" in self.said, self.said
                return False
            time.sleep(0.2)
        return True

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@pytest.fixture
def ray_head() -> Iterator[Head]:
    for _ in range(STARTS):
        with tempfile.TemporaryDirectory(prefix="sm", dir="/tmp", ignore_cleanup_errors=True) as at:
            head = Head(Path(at))
            try:
                if head.stands():
                    yield head
                    return
            finally:
                head.kill()
    pytest.skip(f"this machine is too busy: Ray gave up starting {STARTS} times")


def scraped(port: int) -> dict[str, float]:
    """Sums over all labels, by name."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    sums: dict[str, float] = {}
    for family in families:
        for sample in family.samples:
            if "saccade" in sample.name and sample.labels.get("run") == "run":
                sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return sums


@pytest.mark.slow
def test_prometheus_finds_every_metric_of_the_registry_in_a_real_ray(
    ray_head: Head,
    inputs: Path,
    tmp_path: Path,
    start_saccade: Callable[..., subprocess.Popen[str]],
) -> None:
    (tmp_path / "slow.py").write_text(SLOW_MODEL)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    process = start_saccade(
        "run", tmp_path / "recipe.yaml", inputs / "one.tif", "-o", tmp_path / "run",
        "--workers", "ray:1", "--address", ray_head.address, "--device", "cpu",
        env={"RAY_metrics_report_interval_ms": "1000"},
    )  # fmt: skip
    wanted = {f"ray_{m.name}{'_count' * (m.kind == 'histogram')}" for m in REGISTRY}
    wanted -= {"ray_saccade_failures_total", "ray_saccade_splits_total"}  # nothing fails here
    found: dict[str, float] = {}
    while process.poll() is None and not wanted <= found.keys():
        found |= scraped(ray_head.metrics_port)  # a gauge is told once each time that it is set
        time.sleep(0.5)
    assert wanted <= found.keys()
    assert found["ray_saccade_tiles_total"] >= 1
    assert found["ray_saccade_images"] == 1
    _, complaints = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, complaints
