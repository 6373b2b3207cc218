"""RayJobs through kubectl: what it is told, and what is made of its answers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from saccade.jobs.clusters.kubectl import Kubectl
from saccade.jobs.clusters.submission import Claim, Submission
from saccade.pipeline.errors import RunError

BIG = Submission(
    *("/data/r.yaml", ("/data/i.csv",), "/data/big", "big", 3),
    image="saccade:1",
    claims=(Claim("archive", "/data"),),
)
FAKE = """#!/bin/sh
printf '%s\\n' "$*" >> "{folder}/asked"
case "$3" in
  create) cat > "{folder}/given";;
  get) cat "{folder}/answer";;
  patch) ;;
  logs) echo "what the job said";;
esac
exit "$(cat "{folder}/code")"
"""


class Fake:
    """A kubectl that notes what it is told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        program = folder / "kubectl"
        program.write_text(FAKE.format(folder=folder))
        program.chmod(0o755)
        self.code(0)

    def code(self, code: int) -> None:
        (self.folder / "code").write_text(str(code))

    def answer(self, tree: object) -> None:
        (self.folder / "answer").write_text(json.dumps(tree))

    def asked(self) -> list[str]:
        return (self.folder / "asked").read_text().splitlines()


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return Fake(tmp_path)


def rayjob(name: str, state: str | None) -> dict[str, object]:
    status = {} if state is None else {"status": {"jobDeploymentStatus": state}}
    return {"metadata": {"name": name}, **status}


def test_the_manifest_is_created_in_its_namespace(fake: Fake) -> None:
    Kubectl("lab").submit(BIG)
    assert fake.asked() == ["--namespace lab create -f -"]
    tree = yaml.safe_load((fake.folder / "given").read_text())
    assert tree["metadata"]["name"] == "big-3"


def test_attempts_are_told_from_other_jobs_and_their_states_in_our_words(fake: Fake) -> None:
    states = [None, "Initializing", "Running", "Complete", "Failed", "Suspended", "Retrying"]
    jobs = [rayjob(f"big-{n}", state) for n, state in enumerate(states, 1)]
    fake.answer({"items": [*jobs, rayjob("bigger-1", "Running")]})
    words = ["waiting", "waiting", "running", "done", "failed", "stopped", "waiting"]
    assert Kubectl("lab").attempts("big") == dict(enumerate(words, 1))


@pytest.mark.parametrize(
    ("state", "code"), [("Complete", 0), ("Failed", 1), ("Suspended", 1), ("Running", 75)]
)
def test_kubernetes_tells_success_from_the_rest(fake: Fake, state: str, code: int) -> None:
    fake.answer(rayjob("big-3", state))
    assert Kubectl("lab").exit_code("big-3") == code


def test_a_job_is_stopped_by_suspending_it(fake: Fake) -> None:
    Kubectl("lab").stop("big-3")
    (asked,) = fake.asked()
    assert "patch rayjobs.ray.io big-3" in asked
    assert '{"spec": {"suspend": true}}' in asked


def test_what_the_job_said_goes_to_the_screen(
    fake: Fake, capfd: pytest.CaptureFixture[str]
) -> None:
    Kubectl("lab").tell("big-3", follow=True)
    assert fake.asked() == ["--namespace lab logs job/big-3 --follow"]
    assert capfd.readouterr().out == "what the job said\n"


def test_a_refusal_is_an_error_and_so_is_a_missing_kubectl(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.code(1)
    with pytest.raises(RunError, match="kubectl create: exit code 1"):
        Kubectl("lab").submit(BIG)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(RunError, match="saccade render"):
        Kubectl("lab").submit(BIG)
