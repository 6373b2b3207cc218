"""What follows the end of a supervised command: again, or its exit code passed on. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from saccade.jobs.stopping import EXIT_INTERRUPTED

SAID = (0, 1, 2, 3)
"""Exit codes by which a command says itself how it ended; all others are interruptions."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How one life of the command ended."""

    code: int
    """Exit code; below 0 the signal that ended it."""
    seconds: float
    """How long it had lived."""


@dataclass(frozen=True, slots=True)
class Leave:
    """End with this exit code."""

    code: int
    """Of the command, or 75: the same command resumes."""


@dataclass(frozen=True, slots=True)
class Again:
    """Start the command again."""

    short_lives: int
    """Lives in a row that were short, this one included."""
    pause_seconds: float
    """To wait before."""


def after(
    ending: Ending,
    short_lives: int,
    *,
    stopping: bool,
    restarts: int,
    long_seconds: float = 600.0,
    most_pause_seconds: float = 60.0,
) -> Leave | Again:
    """What to do after a life of the command.

    Args:
        ending: how it ended.
        short_lives: lives in a row before this one that were short.
        stopping: whether somebody asked for the end.
        restarts: short lives in a row that are followed by another.
        long_seconds: a life as long as this got somewhere, and counting begins anew.
        most_pause_seconds: the longest pause; the first is a second, each next one twice as long.
    """
    if ending.code in SAID:
        return Leave(ending.code)
    if stopping:
        return Leave(EXIT_INTERRUPTED)
    short_lives = 0 if ending.seconds >= long_seconds else short_lives + 1
    if short_lives > restarts:
        return Leave(EXIT_INTERRUPTED)
    return Again(short_lives, min(most_pause_seconds, 2.0 ** max(0, short_lives - 1)))
