"""A host's memory shared out: workers, and the lanes that read ahead and write behind. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from saccade.pipeline.errors import PlanError
from saccade.workers.memory import Budget
from saccade.workers.memory_size import format_nbytes

MOST_READ_NBYTES = 256 * 2**20
"""More pixels than this, read ahead, no longer help."""
MOST_WRITE_NBYTES = 512 * 2**20
"""More scores than this, waiting for storage, no longer help."""


@dataclass(frozen=True, slots=True)
class LaneBudgets:
    """What one worker's lanes may hold."""

    read_nbytes: int
    """Pixels that may wait for the device; one batch of windows or more."""
    write_nbytes: int
    """Scores that may wait for storage; one unit or more."""


@dataclass(frozen=True, slots=True)
class LaneNeeds:
    """The least that one worker's lanes hold, by the pass that needs most of each."""

    window_nbytes: int
    """Pixels of the largest batch of windows."""
    window_pass: str
    """The pass that reads it."""
    unit_nbytes: int
    """Scores of the largest unit."""
    unit_pass: str
    """The pass that writes it."""

    @property
    def least_nbytes(self) -> int:
        """A batch being read, a unit being filled, and one being written."""
        return self.window_nbytes + 2 * self.unit_nbytes


def lane_budgets(
    host: Budget,
    workers: int,
    needs: LaneNeeds,
    *,
    most_read_nbytes: int = MOST_READ_NBYTES,
    most_write_nbytes: int = MOST_WRITE_NBYTES,
) -> LaneBudgets:
    """Share what a host's workers have left among their lanes.

    What is beyond the least goes to reading ahead first: a device that waits for pixels is idle,
    one whose scores wait is not.

    Args:
        host: allowed for all workers of this host together, reserved by each one of them: the
            interpreter and libraries, and on a CPU the weights and the forward pass.
        workers: on this host.
        needs: the least that lanes hold.
        most_read_nbytes: read-ahead beyond this is not used, unless a batch needs it.
        most_write_nbytes: likewise for write-behind.

    Raises:
        PlanError: not even one batch and two units fit; names what needs most.
    """
    each = host.shared_by(workers)
    spare = each.free_nbytes - needs.least_nbytes
    if spare < 0:
        raise PlanError(_refusal(host, workers, needs))
    read = min(needs.window_nbytes + spare, max(most_read_nbytes, needs.window_nbytes))
    left = each.free_nbytes - needs.unit_nbytes - read
    return LaneBudgets(read, min(left, max(most_write_nbytes, needs.unit_nbytes)))


def workers_that_fit(host: Budget, wanted: int, needs: LaneNeeds) -> int:
    """The most workers, up to those wanted, whose lanes have what they need; 0 where none has."""
    each_nbytes = host.reserved_nbytes + needs.least_nbytes
    return min(wanted, host.allowed_nbytes // each_nbytes) if each_nbytes else wanted


def _refusal(host: Budget, workers: int, needs: LaneNeeds) -> str:
    each = host.shared_by(workers)
    return (
        f"{_worst(host, needs)}; a worker needs {format_nbytes(needs.least_nbytes)} "
        f"beside the {format_nbytes(host.reserved_nbytes)} that it reserves, and is allowed "
        f"{format_nbytes(each.allowed_nbytes)} (1/{workers} of "
        f"{format_nbytes(host.allowed_nbytes)}); {_remedy(host, workers, needs)}"
    )


def _worst(host: Budget, needs: LaneNeeds) -> str:
    window, unit = needs.window_nbytes, 2 * needs.unit_nbytes
    if host.reserved_nbytes > max(window, unit):
        return f"what each worker reserves is most: {format_nbytes(host.reserved_nbytes)}"
    if window > unit:
        return f"pass {needs.window_pass!r}: a batch of windows holds {format_nbytes(window)}"
    return f"pass {needs.unit_pass!r}: two units hold {format_nbytes(unit)}"


def _remedy(host: Budget, workers: int, needs: LaneNeeds) -> str:
    fewer = workers_that_fit(host, workers, needs)
    if fewer:
        return f"run at most {fewer} workers here (--workers), or allow more with --memory"
    least = format_nbytes(host.reserved_nbytes + needs.least_nbytes)
    return (
        f"allow at least {least} with --memory, or set a smaller 'batch' or 'window' for the "
        "pass, or a smaller output.shard"
    )
