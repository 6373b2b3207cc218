"""With which units idle workers help, and when they stop. Pure; how help is given is ``sharing``.

Whoever helps goes through a unit's batches from the last to the first and meets the worker that
has it. So help is worth something as long as more batches are left than there are workers at them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from saccade.workers.events import Help, HelpEnded, StopHelping
from saccade.workers.ledger import Entry
from saccade.workers.roster import Copy, Helping, Roster, Worker
from saccade.workers.straggling import LEAST_SECONDS, Paces


@dataclass(frozen=True, slots=True)
class HelpRule:
    """Which units are worth helping with."""

    least_seconds: float = LEAST_SECONDS / 2
    """A unit that usually takes less gets no help; nor does one of which nothing is known, before
    it has run for so long."""
    fewest_parts: float = 1.5
    """Batches that must be left per worker that is at them, the one that comes included."""
    most: int | None = None
    """Workers that help with one unit at most; 0 means no help at all, None that parts bound it."""


HELP_RULE = HelpRule()
NO_HELP = HelpRule(most=0)
UNKNOWN_SHARE = 0.5
"""What is taken to be left of a unit of which it is not known how long it takes."""
LATE_SHARE = 0.25
"""What is taken to be left, at least, of one that takes longer than usual."""


def share_left(seconds: float, expected_seconds: float | None, rule: HelpRule) -> float:
    """How much of a unit is left to do, in [0, 1]; 0 also where helping is not worth it.

    Args:
        seconds: for which it has run.
        expected_seconds: what it usually takes; None where that is not known.
        rule: what is worth it.
    """
    if expected_seconds is None:
        return UNKNOWN_SHARE if seconds >= rule.least_seconds else 0.0
    if expected_seconds < rule.least_seconds:
        return 0.0
    return max(LATE_SHARE, 1 - seconds / max(expected_seconds, 1e-9))


def help_to_give(
    roster: Roster, paces: Paces, now_seconds: float, rule: HelpRule = HELP_RULE
) -> Iterator[Help]:
    """Let every idle worker help where most is left per worker, as far as that is worth it."""
    if rule.most == 0 or roster.empty() is None:
        return
    shares = _shares(roster, paces, now_seconds, rule)
    helpers = Counter(id(w.helping.entry) for w in roster if w.helping)
    while idle := roster.empty():
        worth = [e for e, share in shares.items() if _is_worth(e, share, helpers[id(e)], rule)]
        if not worth:
            return
        entry = max(worth, key=lambda e: e.ref.work * shares[e] / (1 + helpers[id(e)]))
        helpers[id(entry)] += 1
        entry.helped = True
        idle.helping = Helping(entry, entry.attempt)
        yield Help(idle.name, entry.ref.id, entry.attempt)


def _is_worth(entry: Entry, share: float, helpers: int, rule: HelpRule) -> bool:
    enough = entry.ref.parts * share >= rule.fewest_parts * (2 + helpers)
    return enough and (rule.most is None or helpers < rule.most)


def _shares(roster: Roster, paces: Paces, now_seconds: float, rule: HelpRule) -> dict[Entry, float]:
    """What is left of each unit that may be helped with, by whichever attempt is the furthest."""
    shares: dict[Entry, float] = {}
    for worker in roster:
        for place, copy in enumerate(worker.timed()):
            if copy.counts_at(worker.name) and _may_be_helped(copy):
                # what waits behind another unit has not begun
                seconds = 0.0 if place else worker.seconds_of(copy, now_seconds)
                share = share_left(seconds, paces.guess_seconds(copy.entry.ref), rule)
                shares[copy.entry] = min(share, shares.get(copy.entry, 1.0))
    return shares


def _may_be_helped(copy: Copy) -> bool:
    entry = copy.entry
    return entry.ref.parts > 1 and not (entry.suspect or entry.help_over or entry.deadly)


def stop_helping(
    roster: Roster, entry: Entry | None = None, only: Worker | None = None
) -> Iterator[StopHelping]:
    """Tell those who help with a unit to stop; all who help at all where none is named."""
    if entry is not None and not entry.helped:
        return
    for worker in roster.helpers(entry):
        if worker.helping and only in (None, worker):
            worker.helping.stopping = True
            yield StopHelping(worker.name, worker.helping.entry.ref.id)


def end_help(roster: Roster, event: HelpEnded) -> None:
    """Take in that a worker helps no more; where it was not told so, nobody else need try.

    That holds until somebody else takes the unit over: what its last owner had begun is to be done
    again, and what the help of an owner before that one met says nothing of it.
    """
    ended = roster.end_help(event.worker, event.unit)
    if ended is None or not (event.reason or not ended.stopping):
        return
    if ended.attempt >= ended.entry.owned_since:
        ended.entry.help_over = True
