"""Answers of whole batches as files, and who has claimed which batch of a unit.

    RUN/scratch/IMAGE/UNIT/   made by a driver that asks for help, gone when the unit is written
      KEY/                    one plan, model and recipe: answers of another are never taken
        17.claim              who answers batch 17: made exclusively
        17.npz                what was said of it, put there at once

Knows neither sides nor lanes. A file that is torn, or is not there any more, is a missing answer.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from saccade.pipeline.errors import StorageFull, StoreError
from saccade.pipeline.geometry import Box
from saccade.pipeline.store_shelf import PARTIAL, LocalShelf
from saccade.workers.answer import Said
from saccade.workers.reading import WindowPixels

LEAST_FREE_NBYTES = 2**30
"""Storage that answers leave to what a run must write."""


@dataclass(frozen=True, slots=True, eq=False)
class AnsweredBatch:
    """A batch that has been through the model: all that its unit wants to know of it."""

    windows: tuple[WindowPixels, ...]
    """As read; of a stored answer, pixels have their shape and dtype, and no content."""
    said: Mapping[int, Said]
    """By window of the batch; those without data have none."""
    splits: int = 0
    """How often it was halved to fit the device."""

    @property
    def nbytes(self) -> int:
        """Of what was said."""
        return sum(array.nbytes for one in self.said.values() for array in _arrays(one).values())


class SharedAnswers:
    """Batches of one unit that several workers answer.

    Args:
        unit_folder: of the unit, below the run's scratch folder.
        key: a digest of all that answers depend on; asked for when there is something to look for.
    """

    def __init__(self, unit_folder: Path, key: Callable[[], str]) -> None:
        self.unit_folder = unit_folder
        self._key = key

    @cached_property
    def _folder(self) -> Path:
        return self.unit_folder / self._key()

    @property
    def there(self) -> bool:
        """Whether anybody helps, or did."""
        return self.unit_folder.is_dir() and self._folder.is_dir()

    def begin(self) -> None:
        """Let there be help.

        Raises:
            OSError: the driver wants none any more, or it can't be had.
        """
        self._folder.mkdir(exist_ok=True)

    def claim(self, index: int, side: str) -> bool:
        """Take a batch on; False where somebody has.

        Raises:
            OSError: there is no such folder any more, or nothing can be written.
        """
        try:
            with (self._folder / f"{index}.claim").open("x") as file:
                file.write(side)
        except FileExistsError:
            return False
        return True

    def claimed_by(self, index: int) -> str | None:
        """Which side has taken a batch on; empty for a moment, None where nobody has.

        Raises:
            OSError: it can't be read.
        """
        try:
            return (self._folder / f"{index}.claim").read_text()
        except FileNotFoundError:
            return None

    def put(self, index: int, answered: AnsweredBatch) -> None:
        """Store what was said of a batch, at once.

        Raises:
            StorageFull: little is left, and that is not for answers.
            OSError: it can't be written; nothing stands there then.
        """
        if shutil.disk_usage(self._folder).free < LEAST_FREE_NBYTES + 2 * answered.nbytes:
            raise StorageFull(f"{self._folder}: too little space is left to help")
        partial = self._folder / f"{index}.{uuid4().hex}{PARTIAL}"
        try:
            with partial.open("xb") as file:
                np.savez(file, **_flat(answered))  # type: ignore[arg-type]
            partial.replace(self._folder / f"{index}.npz")
        except BaseException:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise

    def get(self, index: int) -> AnsweredBatch | None:
        """What was said of a batch; None where that is not there.

        Raises:
            ValueError: something is there that can't be read.
        """
        path = self._folder / f"{index}.npz"
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return _unflat(dict(arrays))
        except FileNotFoundError:
            return None
        except Exception as error:  # whatever a damaged archive makes its reader say
            raise ValueError(f"{path}: a whole answer expected; found {error}") from error

    def clear(self) -> None:
        """The unit is written: nobody needs them."""
        clear_scratch(self.unit_folder)


def drop_claims(unit_folder: Path, side: str) -> None:
    """Forget what one side had taken on and nobody is at any more; stored answers stay."""
    with suppress(OSError):
        for claim in unit_folder.glob("*/*.claim"):
            with suppress(OSError):  # the unit may have been written by somebody else
                if claim.read_text() == side:
                    claim.unlink()


def clear_scratch(folder: Path) -> None:
    """Remove a folder of answers at once: who still writes there finds it gone."""
    with suppress(StoreError, OSError):
        LocalShelf(folder.parent).delete(folder.name)
    with suppress(OSError):  # others' answers lie there, or there never were any
        folder.parent.rmdir()


# ------------------------------------------------------------------------------------ as arrays


def _flat(answered: AnsweredBatch) -> dict[str, np.ndarray]:
    windows = [_facts(window) for window in answered.windows]
    facts = {"splits": answered.splits, "said": sorted(answered.said), "windows": windows}
    arrays = {"facts": np.frombuffer(json.dumps(facts).encode(), np.uint8)}
    for i, window in enumerate(answered.windows):
        if window.valid is not None:
            arrays[f"{i} valid"] = window.valid
    for i, said in answered.said.items():
        arrays |= {f"{i} said {name}": array for name, array in _arrays(said).items()}
    return arrays


def _arrays(said: Said) -> dict[str, np.ndarray]:
    planes = {f"plane {name}": plane for name, plane in said.planes.items()}
    features = {} if said.features is None else {"features": said.features}
    return {"scores": said.scores, **planes, **features}


def _facts(window: WindowPixels) -> dict[str, Any]:
    return {
        "shape": window.pixels.shape,
        "dtype": window.pixels.dtype.str,
        "lost": [box.as_tuple() for box in window.lost],
        "reasons": window.reasons,
        "context_lost": window.context_lost,
    }


def _unflat(arrays: Mapping[str, np.ndarray]) -> AnsweredBatch:
    facts = json.loads(arrays["facts"].tobytes())
    windows = (_window(f, arrays.get(f"{i} valid")) for i, f in enumerate(facts["windows"]))
    said = {i: _said(dict(_below(arrays, f"{i} said "))) for i in facts["said"]}
    return AnsweredBatch(tuple(windows), said, facts["splits"])


def _window(facts: Mapping[str, Any], valid: np.ndarray | None) -> WindowPixels:
    blank = np.zeros((), facts["dtype"])
    return WindowPixels(
        pixels=np.broadcast_to(blank, facts["shape"]),  # which costs no memory
        valid=valid,
        lost=tuple(Box(*numbers) for numbers in facts["lost"]),
        reasons=tuple(facts["reasons"]),
        context_lost=facts["context_lost"],
    )


def _said(arrays: dict[str, np.ndarray]) -> Said:
    return Said(arrays["scores"], dict(_below(arrays, "plane ")), arrays.get("features"))


def _below(arrays: Mapping[str, np.ndarray], start: str) -> Iterator[tuple[str, np.ndarray]]:
    return ((name[len(start) :], array) for name, array in arrays.items() if name.startswith(start))
