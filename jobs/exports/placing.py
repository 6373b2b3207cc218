"""Putting an export in its place: written beside it, renamed once it is whole."""

from __future__ import annotations

import glob
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from saccade.pipeline.errors import StorageFull, StoreError
from saccade.pipeline.store_shelf import FULL, PARTIAL


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file or folder goes."""

    path: Path
    """Once it is whole."""
    partial: Path
    """Until then."""


@contextmanager
def placed(path: Path) -> Iterator[Place]:
    """A file or folder that is renamed into its place at the end of a block that succeeds.

    Raises:
        StorageFull: no space is left.
        StoreError: it can't be written for another reason.
    """
    place = Place(path, path.with_name(f"{path.name}.{uuid4().hex}{PARTIAL}"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f"{glob.escape(path.name)}.*{PARTIAL}"):
            _remove(left)  # by an export that was killed
        yield place
        if path.is_dir():
            _remove(path)
        place.partial.replace(path)
    except OSError as error:
        kind = StorageFull if error.errno in FULL else StoreError
        raise kind(
            f"{path}: can't be written ({error.strerror or error}); check that the folder is there "
            "and has space, or give another one with --output"
        ) from error
    finally:
        _remove(place.partial)


def _remove(path: Path) -> None:
    """Remove a folder with all it holds, or a file; nothing happens where there is none."""
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()
