"""Submissions written down for each kind of cluster, held against the rules of their readers."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from saccade.jobs.clusters.rendering import kuberay, ray_jobs
from saccade.jobs.clusters.submission import Claim, Submission
from saccade.jobs.options import WorkerSize
from saccade.pipeline.errors import UsageError

GIB = 2**30
SCHEMA = json.loads((Path(__file__).parents[2] / "rayjob_schema.json").read_text())
ARCHIVE = Claim("archive", "/data")
BIG = Submission(
    "/data/recipe.yaml",
    ("/data/images.jsonl", "/data/more/*.svs"),
    "/data/runs/big",
    "big",
    workers=7,
    image="registry.example/saccade:1",
    claims=(ARCHIVE,),
)
submissions = st.builds(
    replace,
    st.just(BIG),
    attempt=st.integers(1, 9999),
    workers=st.integers(3, 500),
    least_workers=st.none() | st.integers(0, 3),
    worker=st.builds(
        WorkerSize,
        cpus=st.none() | st.sampled_from([0.5, 1, 3, 16]),
        gpus=st.sampled_from([None, 0, 0.25, 0.33, 0.5, 1, 2]),
        memory_nbytes=st.none() | st.integers(1, 2**40),
    ),
    deadline_seconds=st.none() | st.integers(1, 10**6),
    keep_seconds=st.integers(0, 10**6),
    retries=st.integers(0, 9),
    claims=st.sampled_from([(ARCHIVE,), (ARCHIVE, Claim("more", "/more"))]),
    secrets=st.sampled_from([(), ("object-store",), ("one", "two")]),
)


def tree_of(submission: Submission) -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load(kuberay.render(submission))
    return tree


def pods(tree: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = tree["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def group_of(submission: Submission) -> dict[str, Any]:
    (group,) = tree_of(submission)["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert isinstance(group, dict)
    return group


def nbytes(quantity: str) -> int:
    assert quantity.endswith("Mi")
    return int(quantity[:-2]) * 2**20


@given(submissions)
def test_every_manifest_fits_the_schema_of_a_rayjob(submission: Submission) -> None:
    Draft202012Validator(SCHEMA).validate(tree_of(submission))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "activeDeadlineSeconds"), 0),
        (("spec", "shutdownAfterJobFinishes"), False),
        (("spec", "backofLimit"), 1),
        (("metadata", "name"), "Big_1"),
        (("spec", "rayClusterSpec", "rayVersion"), "2.51.0"),
        (("spec", "rayClusterSpec", "authOptions", "mode"), "none"),
        (("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
    ],
)
def test_the_schema_refuses_what_the_operator_refuses(path: tuple[str, ...], value: object) -> None:
    tree = tree_of(BIG)
    node = tree
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    assert list(Draft202012Validator(SCHEMA).iter_errors(tree))


@given(submissions)
def test_every_pod_is_whole_in_itself(submission: Submission) -> None:
    for pod in pods(tree_of(submission)):
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert len(volumes) == len(pod["volumes"])
        (container,) = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert pod["securityContext"]["runAsNonRoot"]
        shared = next(v["emptyDir"] for v in pod["volumes"] if "emptyDir" in v)
        assert shared["medium"] == "Memory"
        assert nbytes(shared["sizeLimit"]) > kuberay.OBJECTS_NBYTES


@given(submissions)
def test_pods_have_room_for_the_workers_they_carry_and_together_for_all(
    submission: Submission,
) -> None:
    group, size = group_of(submission), submission.worker
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    gpus = size.gpus or 0
    carried = round(1 / gpus) if 0 < gpus < 1 else 1
    assert group["maxReplicas"] * carried >= (submission.workers or 1)
    assert (group["maxReplicas"] - 1) * carried < (submission.workers or 1)
    assert 0 <= group["minReplicas"] == group["replicas"] <= group["maxReplicas"]
    assert int(limits["cpu"]) >= carried * (size.cpus or 1)
    assert nbytes(limits["memory"]) >= carried * (size.memory_nbytes or 0) + 2**29
    assert float(limits.get("nvidia.com/gpu", 0)) >= gpus


def test_a_cluster_scales_only_where_its_bounds_differ() -> None:
    def scales(submission: Submission) -> bool:
        return bool(tree_of(submission)["spec"]["rayClusterSpec"]["enableInTreeAutoscaling"])

    assert not scales(BIG)
    assert scales(replace(BIG, least_workers=2))
    assert not scales(replace(BIG, least_workers=7))


def test_gpu_workers_ask_for_gpus_and_may_go_where_only_those_go() -> None:
    plain, fast = group_of(BIG), group_of(replace(BIG, worker=WorkerSize(gpus=1)))
    assert (plain["groupName"], fast["groupName"]) == ("cpu-workers", "gpu-workers")
    assert "tolerations" not in plain["template"]["spec"]
    (toleration,) = fast["template"]["spec"]["tolerations"]
    assert toleration["key"] == "nvidia.com/gpu"


def test_secrets_are_named_and_never_shown() -> None:
    for pod in pods(tree_of(replace(BIG, secrets=("object-store",)))):
        (container,) = pod["containers"]
        assert container["envFrom"] == [{"secretRef": {"name": "object-store"}}]
        assert "env" not in container


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"image": ""}, "--image"),
        ({"recipe": "/home/me/recipe.yaml"}, "/home/me/recipe.yaml lies on no claim"),
        ({"images": ("s3://bucket/a.csv", "/tmp/b.csv")}, "/tmp/b.csv lies on no claim"),
        ({"worker": WorkerSize(gpus=0.7)}, "--worker-gpus"),
    ],
)
def test_what_pods_would_miss_is_said_before_they_start(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        kuberay.render(replace(BIG, **changes))


def test_a_job_of_ray_is_asked_for_by_name_and_may_stop_in_order() -> None:
    asked = ray_jobs.request(replace(BIG, attempt=3, grace_seconds=50), ["/tmp/saccade"])
    assert asked["submission_id"] == "big-3"
    assert asked["entrypoint"] == BIG.entrypoint().replace("--grace 30", "--grace 50")
    assert asked["runtime_env"]["py_modules"] == ["/tmp/saccade"]
    assert int(asked["runtime_env"]["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]) > 50
    assert "py_modules" not in ray_jobs.request(BIG)["runtime_env"]


def test_the_printed_script_asks_for_the_same() -> None:
    asked = ray_jobs.request(BIG)
    words = shlex.split(ray_jobs.render(BIG), comments=True)
    assert words[words.index("--submission-id") + 1] == asked["submission_id"]
    assert json.loads(words[words.index("--runtime-env-json") + 1]) == asked["runtime_env"]
    assert json.loads(words[words.index("--metadata-json") + 1]) == asked["metadata"]
    assert tuple(words[words.index("--") + 1 :]) == BIG.command()
