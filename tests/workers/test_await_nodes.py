"""Waiting for the nodes of a cluster: it ends with the last of them, or says who was missing."""

from __future__ import annotations

import pytest

from saccade.pipeline.errors import RunError
from saccade.workers import ray_start


@pytest.fixture
def joining(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Nodes of a cluster, alive or not; one more is alive whenever somebody asks."""
    nodes: list[bool] = [False]

    def asked() -> list[dict[str, bool]]:
        nodes.append(True)
        return [{"Alive": alive} for alive in nodes]

    monkeypatch.setattr(
        "saccade.workers.ray_start.ray_settings.prepare_environment", lambda address: None
    )
    monkeypatch.setattr(ray_start, "_connect", lambda address: None)
    monkeypatch.setattr("saccade.workers.ray_start.ray.nodes", asked)
    monkeypatch.setattr(ray_start, "POLL_SECONDS", 0.0)
    return nodes


def test_it_waits_until_as_many_as_were_asked_for_are_alive(joining: list[bool]) -> None:
    ray_start.await_nodes("127.0.0.1:1", 3, 60.0)
    assert joining == [False, True, True, True]


def test_too_few_nodes_are_an_error_that_counts_them(
    joining: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 0.0, 1.0, 2.0])
    monkeypatch.setattr("saccade.workers.ray_start.time.monotonic", lambda: next(clock))
    monkeypatch.setattr("saccade.workers.ray_start.time.sleep", lambda seconds: None)
    with pytest.raises(RunError, match=r"9 nodes expected at 127\.0\.0\.1:1 within 2 s; 2 are th"):
        ray_start.await_nodes("127.0.0.1:1", 9, 2.0)


def test_a_cluster_that_does_not_answer_is_asked_until_the_time_is_up(
    joining: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(address: str | None) -> None:
        raise RunError(f"no Ray at {address}")

    clock = iter([0.0, 0.0, 1.0, 2.0])
    monkeypatch.setattr(ray_start, "_connect", refused)
    monkeypatch.setattr("saccade.workers.ray_start.time.monotonic", lambda: next(clock))
    monkeypatch.setattr("saccade.workers.ray_start.time.sleep", lambda seconds: None)
    with pytest.raises(RunError, match="no Ray at 127"):
        ray_start.await_nodes("127.0.0.1:1", 1, 2.0)
    assert joining == [False]
