"""Container files by rules: nothing here builds or starts one."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "infra" / "Dockerfile").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "infra" / "compose.yaml").read_text())
SECRET = re.compile(r"(token|password|secret|key)[ \t]*[=:][ \t]*[^\s$/]", re.IGNORECASE)
TAGGED = re.compile(r"[a-z0-9./-]+:\d+\.\d+\.\d+[a-z0-9.-]*")


def instructions(text: str) -> list[tuple[str, str]]:
    """Of a Dockerfile: keyword and the rest, continued lines joined, comments left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split()[0], line.split(None, 1)[1]) for line in joined.splitlines() if line]


INSTRUCTIONS = instructions(DOCKERFILE)


def having(keyword: str) -> list[str]:
    return [rest for word, rest in INSTRUCTIONS if word == keyword]


def test_it_begins_on_a_base_that_an_argument_chooses() -> None:
    assert INSTRUCTIONS[0] == ("ARG", "BASE=python:3.12.11-slim-bookworm")
    assert [rest.split()[0] for rest in having("FROM")] == ["${BASE}", "${BASE}"]


def test_every_base_that_is_named_is_pinned_to_a_version() -> None:
    named = re.findall(r"BASE=(\S+)", DOCKERFILE)
    assert len(named) == 2
    assert all(TAGGED.fullmatch(base) for base in named), named


def test_what_runs_is_not_root_and_nothing_is_installed_as_anyone_else() -> None:
    words = [word for word, _ in INSTRUCTIONS]
    last = len(words) - words[::-1].index("USER") - 1
    assert INSTRUCTIONS[last][1] == "1000"
    assert "RUN" not in words[last:]
    assert set(words) <= {"ARG", "FROM", "SHELL", "RUN", "ENV", "WORKDIR", "COPY", "USER", "CMD"}


def test_package_lists_and_caches_are_not_kept() -> None:
    for command in having("RUN"):
        if "apt-get update" in command:
            assert "rm -rf /var/lib/apt/lists/*" in command
        if "apt-get install" in command:
            assert command.count("--no-install-recommends") == command.count("apt-get install")
        if "pip install" in command:
            assert "--no-cache-dir" in command
            assert "--constraint constraints.txt" in command


def test_every_run_is_a_command_that_a_shell_can_read() -> None:
    for command in having("RUN"):
        assert shlex.split(command)
    assert having("SHELL") == ['["/bin/sh", "-eu", "-c"]'] * 2


def test_what_is_copied_is_there_and_let_through() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert ignored[0] == "*"
    sources = [rest for rest in having("COPY") if not rest.startswith("--from")]
    for rest in sources:
        for name in rest.split()[:-1]:
            assert (ROOT / name).exists()
            assert f"!{name}" in ignored


@pytest.mark.parametrize("file", ["Dockerfile", "compose.yaml"])
def test_no_secret_is_written_down(file: str) -> None:
    text = (ROOT / "infra" / file).read_text()
    assert not SECRET.search(re.sub(r"(?m)^\s*#.*$", "", text))


def test_two_nodes_join_by_a_token_that_is_a_file_of_the_host() -> None:
    services = COMPOSE["services"]
    assert set(services) == {"head", "worker"}
    for service in services.values():
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
        assert service["environment"]["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/ray_token"
        assert service["secrets"] == ["ray_token"]
        assert service["command"][:2] == ["ray", "start"]
        assert "--block" in service["command"]
        assert service["cap_drop"] == ["ALL"]
    assert COMPOSE["secrets"]["ray_token"]["file"].startswith("${RAY_TOKEN_FILE:?")
    assert "--address=head:6379" in services["worker"]["command"]
    assert services["worker"]["depends_on"]["head"]["condition"] == "service_healthy"


def test_nothing_listens_beyond_the_host() -> None:
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:8265:8265"]


def test_both_nodes_see_the_data_where_the_host_sees_it() -> None:
    for service in COMPOSE["services"].values():
        (volume,) = service["volumes"]
        assert volume["source"] == volume["target"]
