"""Where calibrations lie: frozen in the run, and copied to the user's cache. Measures nothing.

RUN/settings decides bytes, so the first to write wins, nothing is ever replaced, and a file that
can't be understood stops the run. The cache only saves time: whatever is wrong with it, it is
measured anew.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from saccade.pipeline.errors import StoreError
from saccade.pipeline.execution import Calibration


def cache_folder() -> Path | None:
    """Where this user's calibrations lie; None for a user without a home."""
    base = os.environ.get("XDG_CACHE_HOME")
    home = Path(base) if base else Path("~/.cache").expanduser()
    return home / "saccade" / "calibration" if home.is_absolute() else None


def read_frozen(folder: Path, key: str) -> Calibration | None:
    """What a run has settled on; None where it has not yet.

    Raises:
        StoreError: it is there and can't be understood.
    """
    path = folder / f"{key}.json"
    try:
        return Calibration.from_dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path}: a setting that images of this run were made with can't be understood "
            f"({error}); restore it, or use a new folder"
        ) from error


def freeze(folder: Path, key: str, calibration: Calibration) -> Calibration:
    """Settle a run on a calibration, unless another worker was first; returns the one that holds.

    Raises:
        StoreError: it can't be written.
    """
    path = folder / f"{key}.json"
    try:
        _put_first(path, calibration)
    except FileExistsError:
        pass  # the first wins
    except OSError as error:
        raise StoreError(f"{path}: the setting can't be written: {error}") from error
    held = read_frozen(folder, key)
    assert held is not None
    return held


def _put_first(path: Path, calibration: Calibration) -> None:
    """Write a whole file under a name that nobody has taken, or raise ``FileExistsError``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{uuid4().hex}.partial")
    try:
        with draft.open("w") as file:
            json.dump(calibration.to_dict(), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def read_cached(folder: Path | None, key: str) -> Calibration | None:
    """What the user's cache knows; None where it knows nothing, or nothing that makes sense."""
    if folder is None:
        return None
    try:
        return Calibration.from_dict(json.loads((folder / f"{key}.json").read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # measuring again costs seconds, and replaces it


def write_cached(folder: Path | None, key: str, calibration: Calibration) -> None:
    """Let later runs know; a cache that can't be written is none."""
    if folder is not None:
        with suppress(OSError):
            path = folder / f"{key}.json"
            path.unlink(missing_ok=True)
            _put_first(path, calibration)
