"""Amounts of memory as people write and read them. Pure; knows no device and no model."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from saccade.pipeline.errors import UsageError

AMOUNT = re.compile(r"(?P<number>\d+(\.\d+)?)\s*(?P<unit>%|b?|[kmgt]i?b?)", re.IGNORECASE)
"""A number and a unit; kB to TB count in thousands, KiB to TiB and K to T in 1024s."""


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """How much may be used: so many bytes, or a share of all there is."""

    nbytes: int | None = None
    """Bytes, positive; None where a share is given."""
    share: float | None = None
    """Above 0 and at most 1; None where bytes are given."""

    def __post_init__(self) -> None:
        if (self.nbytes is None) == (self.share is None):
            raise ValueError(f"a limit is either bytes or a share; found {self}")
        if self.nbytes is not None and self.nbytes < 1:
            raise ValueError(f"a limit is a byte or more; found {self}")
        if self.share is not None and not 0 < self.share <= 1:
            raise ValueError(f"a share is above 0 and at most 1; found {self}")

    @classmethod
    def parse(cls, text: str) -> MemoryLimit:
        """From '8GiB', '500 MB', '1.5G', '70%' or a plain number of bytes.

        'G' alone is 'GiB'; 'GB' counts in thousands.

        Raises:
            UsageError: none of these, or nothing at all.
        """
        match = AMOUNT.fullmatch(text.strip())
        if match is None:
            raise UsageError(f"memory: '8GiB', '500MB' or '70%' expected; found {text!r}")
        number, unit = float(match["number"]), match["unit"]
        try:
            if unit == "%":
                return cls(share=number / 100)
            return cls(nbytes=round(number * _unit_nbytes(unit)))
        except ValueError as error:
            raise UsageError(
                f"memory: more than nothing, and at most 100%, expected; found {text!r}"
            ) from error

    def of(self, total_nbytes: int) -> int:
        """In bytes, where there are so many in all; never more than those."""
        if self.share is not None:
            return math.floor(total_nbytes * self.share)
        assert self.nbytes is not None
        return min(self.nbytes, total_nbytes)

    def __str__(self) -> str:
        if self.share is not None:
            return f"{self.share * 100:.10g}%"
        return f"{self.nbytes}B"


def _unit_nbytes(unit: str) -> int:
    letters = unit.upper()
    if letters in ("", "B"):
        return 1
    thousand = 1000 if letters.endswith("B") and "I" not in letters else 1024
    return int(thousand ** ("KMGT".index(letters[0]) + 1))


def format_nbytes(nbytes: int) -> str:
    """Three or more digits and a unit that counts in 1024s: '512 B', '1.50 GiB'.

    What ``MemoryLimit.parse`` makes of it differs from ``nbytes`` by less than half a per cent.
    """
    value, units = float(nbytes), ["B", "KiB", "MiB", "GiB", "TiB"]
    power = 0
    while abs(value) >= 1024 and power < len(units) - 1:
        value, power = value / 1024, power + 1
    if power == 0:
        return f"{nbytes} B"
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:.{digits}f} {units[power]}"
