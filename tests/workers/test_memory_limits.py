from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from saccade.workers import memory_limits
from saccade.workers.memory_limits import (
    HostMemory,
    host_memory,
    parse_control_groups,
    parse_inactive_file,
    parse_kilobytes,
    parse_limit,
    resident_nbytes,
)

MEMINFO = """MemTotal:       1000 kB
MemFree:         100 kB
MemAvailable:    700 kB
HugePages_Total:       0
Hugepagesize:       2048 kB
"""
VERSION_1 = """9:name=systemd:/
4:cpu,memory:/slurm/job_7
0::/
"""
VERSION_2 = "0::/kubepods/pod7/container\n"


def system(root: Path, files: dict[str, str]) -> Path:
    """A folder that looks like a system's root."""
    for name, text in {"proc/meminfo": MEMINFO, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def group(folder: str, limit: str, used: int, cached: int, version: int = 2) -> dict[str, str]:
    names = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        2: ("memory.max", "memory.current", "inactive_file"),
    }
    limit_file, usage_file, cache = names[version]
    return {
        f"{folder}/{limit_file}": f"{limit}\n",
        f"{folder}/{usage_file}": f"{used}\n",
        f"{folder}/memory.stat": f"anon 3\n{cache} {cached}\n",
    }


def test_lines_in_kilobytes_are_bytes_and_others_are_left_out() -> None:
    values = parse_kilobytes(MEMINFO)
    assert values["MemAvailable"] == 700 * 1024
    assert "HugePages_Total" not in values


@pytest.mark.parametrize(
    ("text", "limit"), [("max\n", None), ("9223372036854771712\n", None), ("1009\n", 1009)]
)
def test_no_limit_is_none_in_either_version(text: str, limit: int | None) -> None:
    assert parse_limit(text) == limit


def test_inactive_files_of_a_whole_tree_come_before_those_of_a_group() -> None:
    assert parse_inactive_file("inactive_file 3\ntotal_inactive_file 7\n") == 7
    assert parse_inactive_file("inactive_file 3\n") == 3
    assert parse_inactive_file("") == 0


def test_a_group_is_looked_for_in_its_own_folder_and_all_above() -> None:
    first, second = parse_control_groups(VERSION_1)
    assert [str(f) for f in first.folders()] == [
        "sys/fs/cgroup/memory/slurm/job_7",
        "sys/fs/cgroup/memory/slurm",
        "sys/fs/cgroup/memory",
    ]
    assert list(second.folders()) == [PurePosixPath("sys/fs/cgroup")]


def test_without_groups_the_host_says_what_there_is(tmp_path: Path) -> None:
    assert host_memory(system(tmp_path, {})) == HostMemory(1000 * 1024, 700 * 1024)


def test_the_lowest_of_all_limits_holds_and_cached_files_are_not_held(tmp_path: Path) -> None:
    base = "sys/fs/cgroup/kubepods"
    files = {
        "proc/self/cgroup": VERSION_2,
        **group(f"{base}/pod7/container", "max", 11, 0),
        **group(f"{base}/pod7", "500000", 301_000, 101_000),
        **group(base, "600000", 599_000, 3_000),
    }
    assert host_memory(system(tmp_path, files)) == HostMemory(500_000, 4_000)


def test_in_a_container_the_limit_stands_at_the_mount_itself(tmp_path: Path) -> None:
    limit = group("sys/fs/cgroup/memory", "400000", 103_000, 3_000, version=1)
    root = system(tmp_path, {"proc/self/cgroup": VERSION_1, **limit})
    assert host_memory(root) == HostMemory(400_000, 300_000)


def test_a_group_over_its_limit_leaves_nothing_and_not_less(tmp_path: Path) -> None:
    limit = group("sys/fs/cgroup", "400000", 500_000, 0)
    root = system(tmp_path, {"proc/self/cgroup": "0::/\n", **limit})
    assert host_memory(root).available_nbytes == 0


def test_a_limit_above_the_host_is_none(tmp_path: Path) -> None:
    limit = group("sys/fs/cgroup", "99000000000", 3, 0)
    root = system(tmp_path, {"proc/self/cgroup": "0::/\n", **limit})
    assert host_memory(root) == HostMemory(1000 * 1024, 700 * 1024)


def test_resident_memory_is_what_the_system_says(tmp_path: Path) -> None:
    root = system(tmp_path, {"proc/self/status": "VmHWM:\t 13 kB\nVmRSS:\t 11 kB\nThreads:\t3\n"})
    assert resident_nbytes(root) == 11 * 1024


def test_where_the_system_says_nothing_the_most_ever_held_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_limits, "most_resident_nbytes", lambda: 1009)
    assert resident_nbytes(tmp_path) == 1009
    there = host_memory(tmp_path)
    assert there.available_nbytes == there.total_nbytes - 1009


def test_this_host_has_more_than_this_process_holds() -> None:
    here = host_memory()
    assert 0 < resident_nbytes() < here.total_nbytes
    assert 0 <= here.available_nbytes <= here.total_nbytes
