"""One line per step: losses, learning rate, metrics. Steps taken again replace what was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TextIO

from saccade.pipeline.closing import Closing


class StepLog(Closing):
    """A file of JSON lines that holds every step once."""

    def __init__(self, path: Path, step: int, writes: bool = True) -> None:
        """Open it after so many steps; what it says of later ones is dropped."""
        self._file: TextIO | None = None
        if writes:
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = [line for line in _lines(path) if _step(line) <= step]
            path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
            self._file = path.open("a", encoding="utf-8")

    def add(
        self, step: int, losses: dict[str, float], rate: float, metrics: dict[str, Any] | None
    ) -> None:
        """Write what a step gave."""
        if self._file is not None:
            facts: dict[str, Any] = {"step": step, "rate": rate, "losses": losses}
            if metrics:
                facts["metrics"] = metrics
            self._file.write(json.dumps(facts) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Write nothing more."""
        if self._file is not None:
            self._file.close()


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def _step(line: str) -> float:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
