"""What is wrong with a list of images, as values; all of it is told at once."""

from __future__ import annotations

from dataclasses import dataclass

MAX_LISTED = 20
"""Problems that are told on the screen."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that keeps an image, a row or a whole manifest from being used."""

    where: str
    """The argument, file and line, or image."""
    why: str
    """What was expected, what was found, what to do."""

    def __str__(self) -> str:
        return f"{self.where}: {self.why}"
