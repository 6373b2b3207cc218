"""Where measurements lie: frozen in the run, and copied to the user's cache. Measures nothing.

What is frozen in a run decides bytes, so the first to write wins, nothing is ever replaced, and a
file that can't be understood stops the run. The cache only saves time: whatever is wrong with it,
it is measured anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar
from uuid import uuid4

from saccade.pipeline.errors import StoreError


class Measured(Protocol):
    """What was measured, as plain JSON."""

    def to_dict(self) -> dict[str, Any]:
        """As written."""
        ...


M = TypeVar("M", bound=Measured)
Parse = Callable[[Mapping[str, Any]], M]
"""The inverse of ``to_dict``."""


def cache_folder(kind: str = "calibration") -> Path | None:
    """Where this user's measurements of one kind lie; None for a user without a home."""
    base = os.environ.get("XDG_CACHE_HOME")
    home = Path(base) if base else Path("~/.cache").expanduser()
    return home / "saccade" / kind if home.is_absolute() else None


def read_frozen(folder: Path, key: str, parse: Parse[M]) -> M | None:
    """What a run has settled on; None where it has not yet.

    Raises:
        StoreError: it is there and can't be understood.
    """
    path = folder / f"{key}.json"
    try:
        return parse(json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path}: what images of this run were made with can't be understood "
            f"({error}); restore it, or use a new folder"
        ) from error


def freeze(folder: Path, key: str, measured: M, parse: Parse[M]) -> M:
    """Settle a run on a measurement, unless another worker was first; returns the one that holds.

    Raises:
        StoreError: it can't be written.
    """
    path = folder / f"{key}.json"
    try:
        _put_first(path, measured)
    except FileExistsError:
        pass  # the first wins
    except OSError as error:
        raise StoreError(f"{path}: what was measured can't be written: {error}") from error
    held = read_frozen(folder, key, parse)
    assert held is not None
    return held


def _put_first(path: Path, measured: Measured) -> None:
    """Write a whole file under a name that nobody has taken, or raise ``FileExistsError``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{uuid4().hex}.partial")
    try:
        with draft.open("w") as file:
            json.dump(measured.to_dict(), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def read_cached(folder: Path | None, key: str, parse: Parse[M]) -> M | None:
    """What the user's cache knows; None where it knows nothing, or nothing that makes sense."""
    if folder is None:
        return None
    try:
        return parse(json.loads((folder / f"{key}.json").read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # measuring again costs seconds, and replaces it


def write_cached(folder: Path | None, key: str, measured: Measured) -> None:
    """Let later runs know; a cache that can't be written is none."""
    if folder is not None:
        with suppress(OSError):
            path = folder / f"{key}.json"
            path.unlink(missing_ok=True)
            _put_first(path, measured)
