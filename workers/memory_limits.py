"""How much memory this host has left for this process: /proc and control groups.

Parsing is pure; only ``host_memory`` and ``resident_nbytes`` look at the system. Knows no device.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

UNLIMITED_NBYTES = 2**60
"""A control group's limit from here on is none at all."""
ROOT = Path("/")


@dataclass(frozen=True, slots=True)
class HostMemory:
    """A host, or the container that this process lives in."""

    total_nbytes: int
    """All there is, or all that a control group grants."""
    available_nbytes: int
    """What a process could still take without pushing others out."""


def parse_kilobytes(text: str) -> dict[str, int]:
    """Bytes by name, from the lines 'Name: 123 kB' of /proc/meminfo or /proc/self/status."""
    lines = (line.partition(":") for line in text.splitlines())
    split = ((name, value.split()) for name, _, value in lines)
    return {name: int(v[0]) * 1024 for name, v in split if len(v) == 2 and v[1] == "kB"}


def parse_limit(text: str) -> int | None:
    """A control group's limit in bytes; None where there is none."""
    word = text.strip()
    return None if word == "max" or int(word) >= UNLIMITED_NBYTES else int(word)


def parse_inactive_file(text: str) -> int:
    """File pages, counted as used, that the kernel gives back when asked; from memory.stat."""
    values = dict(line.split() for line in text.splitlines() if line)
    return int(values.get("total_inactive_file", values.get("inactive_file", 0)))


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """Where one version of control groups keeps what it knows of a process's memory."""

    mount: PurePosixPath
    """Folder of the hierarchy."""
    path: PurePosixPath
    """Of the process's group within it."""
    limit_file: str
    """Holds the limit."""
    usage_file: str
    """Holds what is used."""

    def folders(self) -> Iterator[PurePosixPath]:
        """The group and all it lies in: each of them may limit it.

        In a container the path is the host's, and only the mount itself may be there.
        """
        yield from (self.mount / part for part in (self.path, *self.path.parents))


def parse_control_groups(text: str) -> list[ControlGroup]:
    """The groups that /proc/self/cgroup names, of both versions."""
    found = []
    for line in text.splitlines():
        number, controllers, path = line.split(":", 2)
        relative = PurePosixPath(path.lstrip("/"))
        base = PurePosixPath("sys/fs/cgroup")
        if number == "0":
            found.append(ControlGroup(base, relative, "memory.max", "memory.current"))
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
            found.append(ControlGroup(base / "memory", relative, *names))
    return found


def host_memory(root: Path = ROOT) -> HostMemory:
    """What this process could take: the least that the host and its control groups leave."""
    meminfo = root / "proc/meminfo"
    if not meminfo.is_file():  # not Linux
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return HostMemory(total, total - resident_nbytes(root))
    values = parse_kilobytes(meminfo.read_text())
    total, available = values["MemTotal"], values["MemAvailable"]
    for limit, used in _control_group_limits(root):
        total, available = min(total, limit), min(available, max(0, limit - used))
    return HostMemory(total, available)


def _control_group_limits(root: Path) -> Iterator[tuple[int, int]]:
    """Limit and use, in bytes, of every group that limits this process."""
    groups = root / "proc/self/cgroup"
    for group in parse_control_groups(groups.read_text()) if groups.is_file() else []:
        for folder in (root / inside for inside in group.folders()):
            if not (folder / group.limit_file).is_file():
                continue
            limit = parse_limit((folder / group.limit_file).read_text())
            if limit is not None:
                used = int((folder / group.usage_file).read_text())
                yield limit, used - parse_inactive_file((folder / "memory.stat").read_text())


def resident_nbytes(root: Path = ROOT) -> int:
    """What this process holds now; where the system does not tell, the most it ever held."""
    status = root / "proc/self/status"
    if status.is_file():
        return parse_kilobytes(status.read_text())["VmRSS"]
    return most_resident_nbytes()


def most_resident_nbytes() -> int:
    """The most that this process ever held."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
