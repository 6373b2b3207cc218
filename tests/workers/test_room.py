"""How many workers a cluster carries, and what each may hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.workers.memory_host import LaneBudgets
from saccade.workers.memory_size import MemoryLimit
from saccade.workers.room import Node, RayPlace, missing, spec_on, spec_within
from saccade.workers.tasks import WorkerSpec

GIB = 2**30
CLUSTER = "10.0.0.1:6379"
SPEC = WorkerSpec(Path("run"), "{}", Path())
nodes = st.lists(
    st.builds(Node, st.integers(0, 64), st.integers(0, 8), st.integers(0, 2**40)), max_size=7
)
places = st.builds(
    RayPlace,
    st.just(CLUSTER),
    st.integers(1, 8),
    st.sampled_from([0, 0.25, 1 / 3, 0.5, 1, 2]),
    st.integers(0, 2**36),
)


@given(nodes, places)
def test_no_node_is_given_more_than_it_has(cluster: list[Node], place: RayPlace) -> None:
    for node in cluster:
        count = place.carried_by(node)
        assert count * place.cpus <= node.cpus + 0.01 * place.cpus
        assert count * place.gpus <= node.gpus + 0.01 * place.gpus
        assert count * place.memory_nbytes <= node.memory_nbytes * 1.01 + place.memory_nbytes * 0.01


@given(nodes, places)
def test_settling_memory_costs_no_worker(cluster: list[Node], place: RayPlace) -> None:
    settled = place.settled(cluster)
    if place.memory_nbytes:
        assert settled == place
    else:
        assert list(map(settled.carried_by, cluster)) == list(map(place.carried_by, cluster))


@given(nodes, places, st.integers(1, 300), st.integers(0, 300))
def test_a_stated_number_waits_for_room_whatever_the_cluster_carries(
    cluster: list[Node], place: RayPlace, asked: int, have: int
) -> None:
    assert have + missing(cluster, place, asked, have) == max(have, asked)


def test_without_a_number_workers_come_as_nodes_come_and_none_is_begun_where_they_go() -> None:
    place = RayPlace(CLUSTER, cpus=2)
    assert missing([Node(0, 0, GIB)], place, None, 0) == 1  # one waits for a node to come
    assert missing([Node(7, 0, GIB)], place, None, 1) == 2
    assert missing([Node(7, 0, GIB), Node(5, 0, GIB)], place, None, 3) == 2
    assert missing([Node(5, 0, GIB)], place, None, 5) == 0


def test_three_workers_share_a_gpu_by_thirds() -> None:
    assert RayPlace(CLUSTER, cpus=1, gpus=1 / 3).carried_by(Node(64, 2, GIB)) == 6
    assert RayPlace(CLUSTER, cpus=1, gpus=0.33).carried_by(Node(64, 1, GIB)) == 3


def test_memory_is_an_even_part_of_the_node_that_has_the_least_for_each() -> None:
    cluster = [Node(4, 0, 20 * GIB), Node(8, 0, 24 * GIB), Node(0, 0, GIB)]
    assert RayPlace(CLUSTER).settled(cluster).memory_nbytes == 3 * GIB
    assert RayPlace(CLUSTER).settled([]).memory_nbytes == 0


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_worker_keeps_to_the_memory_that_was_set_aside_for_it(device: str) -> None:
    spec = WorkerSpec(Path("run"), "{}", Path(), device=device, sharing=2)
    orders = spec_on(RayPlace(CLUSTER, memory_nbytes=GIB), spec)
    lanes = LaneBudgets.within(GIB)
    assert (orders.read_nbytes, orders.write_nbytes) == (lanes.read_nbytes, lanes.write_nbytes)
    if device == "cpu":
        assert (orders.limit, orders.sharing) == (MemoryLimit(nbytes=GIB), 1)
    else:  # its limit is of the GPU's memory
        assert (orders.limit, orders.sharing) == (None, 2)
    assert spec_on(RayPlace(), spec) == spec


def test_where_none_was_set_aside_workers_share_their_node() -> None:
    node = Node(11, 0, GIB)
    assert spec_within(node, RayPlace(CLUSTER, cpus=3), SPEC).sharing == 3
    assert spec_within(Node(0, 0, 0), RayPlace(CLUSTER, cpus=3), SPEC).sharing == 1
    for settled in (RayPlace(), RayPlace(CLUSTER, memory_nbytes=GIB)):
        assert spec_within(node, settled, SPEC) == SPEC
