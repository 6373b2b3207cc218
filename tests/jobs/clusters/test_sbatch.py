"""Slurm through its commands: what they are told, and what is made of their answers."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.jobs.clusters.allocation import Allocation
from saccade.jobs.clusters.sbatch import STATES, WORST_FIRST, Slurm, state_of, worst_code
from saccade.jobs.clusters.submission import Submission
from saccade.pipeline.errors import RunError, UsageError

COMMANDS = ("sbatch", "squeue", "scontrol", "scancel")
FAKE = """#!/bin/sh
printf '%s\\n' "{name} $*" >> "{folder}/asked"
case "{name} $*" in
  sbatch*) cat > "{folder}/given";;
  *%j\\|%F\\|%T*) cat "{folder}/numbers";;
  squeue*) cat "{folder}/states";;
  scontrol*) cat "{folder}/shown";;
esac
"""


class Fake:
    """Slurm's commands, which note what they are told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in COMMANDS:
            self.program(name, FAKE.format(name=name, folder=folder))

    def program(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)
        (self.folder / name).chmod(0o755)

    def says(self, states: list[str], shown: str = "", job: str = "big-1") -> None:
        """Tasks of one job in these states, and what is shown of each."""
        lines = "".join(f"{job}|{state}\n" for state in states)
        (self.folder / "states").write_text(lines)
        (self.folder / "numbers").write_text(lines.replace("|", "|7|"))
        (self.folder / "shown").write_text(shown)

    def asked(self) -> list[str]:
        return (self.folder / "asked").read_text().splitlines()


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return Fake(tmp_path)


def run(folder: Path) -> Submission:
    return Submission("/data/r.yaml", ("/data/i.csv",), str(folder / "big"), "big", 3)


def test_what_is_submitted_is_what_render_prints_and_its_logs_have_a_folder(fake: Fake) -> None:
    submission = run(fake.folder)
    Slurm(Allocation(count=4)).submit(submission)
    assert "#SBATCH --array=1-4" in (fake.folder / "given").read_text()
    assert (fake.folder / "big" / "logs").is_dir()


def test_attempts_are_found_by_the_name_of_the_run_alone(fake: Fake) -> None:
    fake.says(["RUNNING", "COMPLETED"])
    states = (fake.folder / "states").read_text() + "big-2|PENDING\nbigger-3|RUNNING\nbig|RUNNING\n"
    (fake.folder / "states").write_text(states)
    assert Slurm().attempts("big") == {1: "running", 2: "waiting"}


@given(st.lists(st.sampled_from(WORST_FIRST), min_size=1))
def test_an_array_goes_on_as_long_as_a_task_does_and_failed_if_one_did(states: list[str]) -> None:
    state = state_of(states)
    assert state in states
    assert (state == "running") == ("running" in states)
    assert (state == "done") == (set(states) == {"done"})
    if state == "stopped":
        assert not {"failed", "waiting"} & set(states)


def test_a_job_that_slurm_no_longer_knows_is_over() -> None:
    assert state_of(()) == "done"
    assert set(STATES.values()) <= set(WORST_FIRST)


@pytest.mark.parametrize("codes", list(itertools.permutations([0, 3, 75, 1])))
def test_an_error_is_worse_than_an_interruption_and_that_worse_than_images_set_aside(
    codes: tuple[int, ...],
) -> None:
    assert worst_code(codes) == 1
    assert worst_code(code for code in codes if code != 1) == 75
    assert worst_code(code for code in codes if code in (0, 3)) == 3
    assert worst_code([0, 0]) == 0


@pytest.mark.parametrize(
    ("states", "exits", "code"),
    [
        (["COMPLETED", "COMPLETED"], ["0:0", "0:0"], 0),
        (["COMPLETED", "FAILED"], ["0:0", "3:0"], 3),
        (["COMPLETED", "FAILED"], ["0:0", "0:9"], 1),
        (["COMPLETED", "CANCELLED"], ["0:0", "0:15"], 75),
    ],
)
def test_a_job_s_exit_code_is_that_of_its_worst_task(
    fake: Fake, states: list[str], exits: list[str], code: int
) -> None:
    fake.says(states, "".join(f"JobId=7\n   ExitCode={one}\n" for one in exits))
    assert Slurm().exit_code("big-1") == code


def test_logs_of_all_tasks_are_told_in_their_order_and_a_missing_one_is_none(fake: Fake) -> None:
    logs = [fake.folder / f"{n}.out" for n in (1, 2, 3)]
    logs[1].write_text("second\n")
    logs[0].write_text("first\n")
    fake.says(["RUNNING"], "".join(f"   StdOut={log}\n" for log in reversed(logs)))
    told: list[str] = []
    Slurm(say=told.append).tell("big-1", follow=False)
    assert told == ["first\n", "second\n"]


def test_following_ends_when_every_task_has(fake: Fake) -> None:
    log = fake.folder / "1.out"
    log.write_text("all of it")
    fake.says(["COMPLETED"], f"   StdOut={log}\n")
    told: list[str] = []
    Slurm(say=told.append).tell("big-1", follow=True)
    assert told == ["all of it"]


def test_stopping_cancels_by_name(fake: Fake) -> None:
    Slurm().stop("big-1")
    assert fake.asked() == ["scancel --name=big-1"]


def test_a_refusal_is_told_in_slurm_s_own_words(fake: Fake) -> None:
    fake.program("sbatch", "#!/bin/sh\necho 'invalid partition specified: gpu' >&2\nexit 1\n")
    with pytest.raises(RunError, match="sbatch: invalid partition specified: gpu"):
        Slurm().submit(run(fake.folder))


def test_without_slurm_the_script_can_still_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunError, match="'saccade render' prints the script"):
        Slurm().submit(run(tmp_path))


@pytest.mark.parametrize("option", ["exclusive", "--mem=1\n#SBATCH --uid=0"])
def test_an_option_that_is_none_is_refused(option: str) -> None:
    with pytest.raises(UsageError, match="--sbatch"):
        Allocation(options=(option,))
