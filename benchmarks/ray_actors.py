"""The actors of a Ray that a driver started for itself, as processes."""

from __future__ import annotations

from pathlib import Path


def actors_below(driver: int) -> list[int]:
    """Process ids of the Ray actors below a driver; found through ``/proc``."""
    children: dict[int, list[int]] = {}
    names: dict[int, str] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = status.read_text()
        except OSError:
            continue
        pid, (name, rest) = int(status.parent.name), text.split("(", 1)[1].rsplit(")", 1)
        children.setdefault(int(rest.split()[1]), []).append(pid)
        names[pid] = name
    found, below = [], [driver]
    while below:
        pid = below.pop()
        below += children.get(pid, [])
        found += [pid] if names.get(pid, "").startswith("ray::UnitActor") else []
    return sorted(found)
