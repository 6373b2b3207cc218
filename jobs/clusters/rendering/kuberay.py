"""A submission as a RayJob of KubeRay, ``ray.io/v1``. Pure; knows no Kubernetes.

One pod carries one worker, or those that share a GPU. The head carries none: only the driver.
"""

from __future__ import annotations

import math
from importlib.metadata import version
from typing import Any

import yaml

from saccade.jobs.clusters.submission import Submission
from saccade.pipeline.errors import UsageError

Tree = dict[str, Any]

MIB = 2**20
WORKER_CPUS, WORKER_NBYTES = 1.0, 4 * 2**30
"""Of one worker where nothing is stated."""
HEAD_CPUS, HEAD_NBYTES = 2, 4 * 2**30
"""Of the head: Ray's own services and the driver."""
OBJECTS_NBYTES = 128 * 10**6
"""Of Ray's object store: pixels never travel through it."""
SHARED_NBYTES = 256 * MIB
"""Of /dev/shm, which holds the object store, and counts as memory of its pod."""
POD_NBYTES = 2**30
"""What a pod holds beside its workers: Ray's daemons and /dev/shm."""
IDLE_SECONDS = 60
"""After which a pod without a worker is given back."""
USER = 1000
"""As whom everything runs; the image has such a user."""
PREFACE = """\
# Every pod sees recipe, images and run folder on its claims. Exit codes other than 0 are a failed
# job, also 3: finished, with images set aside. A job that is tried again goes on in the run folder.
"""
GPU = "nvidia.com/gpu"
"""What Kubernetes calls a GPU."""


def render(submission: Submission) -> str:
    """A manifest in YAML, for ``kubectl create -f -``.

    Raises:
        UsageError: something is missing that pods need.
    """
    _check(submission)
    return PREFACE + yaml.safe_dump(rayjob(submission), sort_keys=False, width=100)


def rayjob(submission: Submission) -> Tree:
    """The manifest as a tree."""
    labels = {"app.kubernetes.io/name": "saccade", "app.kubernetes.io/instance": submission.name}
    spec: Tree = {
        "entrypoint": submission.entrypoint(),
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": submission.keep_seconds,
        "backoffLimit": submission.retries,
        "rayClusterSpec": _cluster(submission),
    }
    if submission.deadline_seconds:
        spec["activeDeadlineSeconds"] = submission.deadline_seconds
    named = {"name": submission.job, "namespace": submission.namespace, "labels": labels}
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": named, "spec": spec}


def _check(submission: Submission) -> None:
    if not submission.image:
        raise UsageError("--image: one that has saccade in it expected (infra/Dockerfile)")
    for path in (submission.recipe, *submission.images, submission.run):
        if "://" not in path and not any(claim.holds(path) for claim in submission.claims):
            raise UsageError(
                f"{path} lies on no claim, so no pod would see it; state where it is with "
                "--claim NAME:/PATH"
            )
    gpus = submission.worker.gpus or 0
    if 0 < gpus < 1 and not math.isclose(1 / gpus, round(1 / gpus), rel_tol=0.01):
        raise UsageError(
            f"--worker-gpus: a part that fills a GPU (0.5, 0.25) expected; found {gpus:g}"
        )


def _cluster(submission: Submission) -> Tree:
    group = _worker_group(submission)
    grows = group["minReplicas"] < group["maxReplicas"]
    tree: Tree = {
        "rayVersion": version("ray"),
        "authOptions": {"mode": "token"},
        "enableInTreeAutoscaling": grows,
    }
    if grows:
        tree["autoscalerOptions"] = {
            "version": "v2",
            "upscalingMode": "Default",
            "idleTimeoutSeconds": IDLE_SECONDS,
        }
    head = _resources(HEAD_CPUS, HEAD_NBYTES)
    tree["headGroupSpec"] = {
        # no processor is offered to workers there
        "rayStartParams": _start_params() | {"num-cpus": "0", "dashboard-host": "0.0.0.0"},
        "template": _pod(submission, "ray-head", head, gpus=0),
    }
    tree["workerGroupSpecs"] = [group]
    return tree


def _worker_group(submission: Submission) -> Tree:
    size = submission.worker
    gpus = size.gpus or 0
    sharing = round(1 / gpus) if 0 < gpus < 1 else 1
    most = math.ceil((submission.workers or 1) / sharing)
    least = most
    if submission.least_workers is not None:
        least = math.ceil(submission.least_workers / sharing)
    memory_nbytes = sharing * (size.memory_nbytes or WORKER_NBYTES) + POD_NBYTES
    resources = _resources(sharing * (size.cpus or WORKER_CPUS), memory_nbytes)
    return {
        "groupName": "gpu-workers" if gpus else "cpu-workers",
        "replicas": least,
        "minReplicas": least,
        "maxReplicas": most,
        "rayStartParams": _start_params(),
        "template": _pod(submission, "ray-worker", resources, gpus=math.ceil(gpus)),
    }


def _start_params() -> Tree:
    return {"object-store-memory": str(OBJECTS_NBYTES)}


def _resources(cpus: float, memory_nbytes: int) -> Tree:
    return {"cpu": f"{math.ceil(cpus)}", "memory": f"{math.ceil(memory_nbytes / MIB)}Mi"}


def _pod(submission: Submission, name: str, resources: Tree, gpus: int) -> Tree:
    """A pod whose requests are its limits: it is not the first to go where memory is short."""
    if gpus:
        resources = resources | {GPU: str(gpus)}
    mounts = [{"name": f"claim-{n}", "mountPath": c.mount} for n, c in _numbered(submission)]
    container: Tree = {
        "name": name,
        "image": submission.image,
        "resources": {"requests": resources, "limits": dict(resources)},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "shared-memory", "mountPath": "/dev/shm"}, *mounts],
    }
    if submission.secrets:
        container["envFrom"] = [{"secretRef": {"name": secret}} for secret in submission.secrets]
    spec: Tree = {
        "terminationGracePeriodSeconds": submission.grace_seconds + 30,
        "securityContext": {"runAsNonRoot": True, "runAsUser": USER, "fsGroup": USER},
        "containers": [container],
        "volumes": [_shared_memory(), *_volumes(submission)],
    }
    if gpus:
        spec["tolerations"] = [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}]
    return {"spec": spec}


def _shared_memory() -> Tree:
    limit = f"{SHARED_NBYTES // MIB}Mi"
    return {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": limit}}


def _volumes(submission: Submission) -> list[Tree]:
    return [
        {"name": f"claim-{number}", "persistentVolumeClaim": {"claimName": claim.name}}
        for number, claim in _numbered(submission)
    ]


def _numbered(submission: Submission) -> list[tuple[int, Any]]:
    return list(enumerate(submission.claims, 1))
