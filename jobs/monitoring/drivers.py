"""Who works on a run: its drivers, by what they wrote into the journal. Never writes."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from saccade.jobs.processes import is_there

QUIET_SECONDS = 600.0
"""A driver on another host that wrote nothing for so long is not believed to be at work."""


@dataclass
class DriverSeen:
    """One driver, as the journal knows it."""

    epoch: int
    """Its number among the starts of drivers."""
    host: str
    """Where it runs, or ran."""
    pid: int
    """Its process there."""
    started: str
    """When, ISO 8601."""
    last_at: float | None = None
    """When it last wrote, in seconds since 1970; None where it does not say."""
    ended: bool = False
    """Whether it closed its journal in good order."""

    def at_work(self, now: float) -> bool:
        """Whether it seems to be there still; a process of this host is looked for."""
        if self.ended:
            return False
        if self.host == socket.gethostname():
            return is_there(self.pid)
        return self.last_at is not None and now - self.last_at < QUIET_SECONDS


@dataclass
class Drivers:
    """The newest driver of each journal of a run."""

    newest: dict[str, DriverSeen] = field(default_factory=dict)
    """By the part of the run that it works on; '' is the whole."""
    starts: int = 0
    """Drivers that there ever were."""

    def add(self, record: Mapping[str, Any]) -> None:
        """Take a record of the journal in."""
        part = str(record.get("shard", ""))
        if record["kind"] == "opened":
            self.starts += 1
            self.newest[part] = DriverSeen(
                record["epoch"], record["host"], record["pid"], record["started"]
            )
        elif (driver := self.newest.get(part)) is not None:
            driver.last_at = record.get("at", driver.last_at)
            driver.ended = driver.ended or record["kind"] == "closed"

    def at_work(self, now: float) -> list[DriverSeen]:
        """Those that seem to be there still."""
        return [driver for driver in self.newest.values() if driver.at_work(now)]
