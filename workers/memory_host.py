"""A host's memory shared out: workers, and the lanes that read ahead and write behind. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from saccade.pipeline.errors import UsageError
from saccade.workers.memory import Budget
from saccade.workers.memory_size import format_nbytes

MOST_READ_NBYTES = 256 * 2**20
"""More pixels than this, read ahead, no longer help."""
MOST_WRITE_NBYTES = 512 * 2**20
"""More scores than this, waiting for storage, no longer help."""
READ_PART, WRITE_PART = 8, 4
"""Lanes get an eighth and a quarter of what is free, the forward pass and its unit the rest."""
WORKING_NBYTES = 256 * 2**20
"""A worker that has less than this beside what it reserves would compute in crumbs."""


@dataclass(frozen=True, slots=True)
class LaneBudgets:
    """What one worker's lanes may hold, beyond what a single batch or unit needs."""

    read_nbytes: int
    """Pixels that may wait for the device."""
    write_nbytes: int
    """Scores that may wait for storage."""

    @classmethod
    def within(cls, free_nbytes: int) -> LaneBudgets:
        """The part of a worker's free memory that is for lanes, as far as more of it helps."""
        return cls(
            min(free_nbytes // READ_PART, MOST_READ_NBYTES),
            min(free_nbytes // WRITE_PART, MOST_WRITE_NBYTES),
        )

    def held_nbytes(self, batch_nbytes: int, unit_nbytes: int) -> int:
        """The most that lanes hold of a pass: read ahead, being filled, and waiting to be written.

        Args:
            batch_nbytes: of the pixels of one batch; one alone is admitted whatever the budget.
            unit_nbytes: of the scores of one unit, likewise.
        """
        read = max(self.read_nbytes, batch_nbytes)
        return read + unit_nbytes + max(self.write_nbytes, unit_nbytes)


def share_of(host: Budget, workers: int, *, processes: bool) -> Budget:
    """One worker's part of what a host allows.

    Args:
        host: allowed for the whole run on this host; reserved by one process of it.
        workers: on this host.
        processes: whether each is a process beside the driver's, with a reserve of its own.
    """
    if not processes:
        each = host.free_nbytes // workers
        return Budget(host.reserved_nbytes + each, host.reserved_nbytes)
    left = host.free_nbytes  # the driver's own reserve is spent
    return Budget(left // workers, host.reserved_nbytes)


def workers_that_fit(host: Budget, wanted: int, *, processes: bool) -> int:
    """The most workers, up to those wanted, that have something left to work with.

    Raises:
        UsageError: not even one has.
    """
    for count in range(wanted, 0, -1):
        if share_of(host, count, processes=processes).free_nbytes >= WORKING_NBYTES:
            return count
    reserved = host.reserved_nbytes * (2 if processes else 1)
    raise UsageError(
        f"--memory: the interpreter, its libraries and the models hold {format_nbytes(reserved)} "
        f"before anything is computed, and {format_nbytes(host.allowed_nbytes)} are allowed; allow "
        f"at least {format_nbytes(reserved + WORKING_NBYTES)}"
        + (", or use --workers local, which needs one process less" if processes else "")
    )
