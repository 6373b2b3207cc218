"""What the journal's files look like: one per epoch, one record per line. Decides nothing.

A journal is a folder of JSON-lines files, ``000001.jsonl``, ``000002.jsonl``...: one per *epoch*,
that is, per start of a driver. The first line of each says who opened it, when, how long the older
files were then, and its *turn*: higher than that of any epoch, also of another part's journal, that
may speak of the same images.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from saccade.pipeline.errors import StorageFull, StoreError
from saccade.pipeline.store_shelf import FULL

Record = Mapping[str, Any]
"""One line of the journal."""

FIELDS: Mapping[str, frozenset[str]] = {
    "opened": frozenset({"pid", "host", "started", "seen"}),
    "started": frozenset({"image", "unit"}),
    "receipt": frozenset({"image", "unit"}),
    "failure": frozenset({"image", "unit", "reason"}),
    "quarantine": frozenset({"image", "reason"}),
    "image": frozenset({"image"}),
    "restart": frozenset({"image"}),
    "closed": frozenset(),
}
"""Kinds of record, and what each has at least besides ``kind`` and ``epoch``.

``opened`` heads a file and ``closed`` ends it in good order. ``started`` marks a unit in flight,
``receipt`` a unit done, ``failure`` an attempt that counts against its unit. ``quarantine`` sets an
image aside, ``image`` says that it is complete, ``restart`` forgets all that was said of it before.

A driver adds ``at`` (seconds since 1970, of its own clock) to what it records, ``worker`` to units,
and ``error`` to failures and quarantines: the name of the error's class, or of what happened
instead (``WorkerLost``, ``UnitTimedOut``). Journals of older versions lack them, and nothing that
is decided of a unit depends on them.
"""

UNKNOWN = frozenset({""})
"""Fields that no record has."""


def epochs(folder: Path) -> list[int]:
    """Numbers of the epochs in a folder, rising; none where there is no folder."""
    return sorted(int(path.stem) for path in folder.glob("[0-9]*.jsonl") if path.stem.isdigit())


def epoch_path(folder: Path, epoch: int) -> Path:
    """The file of an epoch."""
    return folder / f"{epoch:06d}.jsonl"


def read_header(folder: Path, epoch: int) -> Record | None:
    """The first line of an epoch's file; None where its driver died, or has not come, before it.

    Raises:
        StoreError: the first line is something else.
    """
    path = epoch_path(folder, epoch)
    with named_errors(path), path.open("rb") as file:
        line = file.readline()
    if not line.endswith(b"\n"):
        return None
    header = parse(line, path, 1)
    if header["kind"] != "opened":
        raise StoreError(f"{path}: the first record opens an epoch; found {header['kind']!r}")
    return header


def turn_of(header: Record) -> int:
    """Place of an epoch among those of all journals that speak of the same images."""
    return int(header.get("turn", header["epoch"]))


def parse(line: bytes, path: Path, number: int) -> dict[str, Any]:
    """The record in a whole line.

    Raises:
        StoreError: no record, of an unknown kind, or without a field; names file and line.
    """
    try:
        record: dict[str, Any] = json.loads(line.decode())
        check_record(record)
    except ValueError as error:
        raise StoreError(
            f"{path}, line {number}: expected a record of the journal; {error}. Restore the file, "
            "or cut it before this line: units whose receipts are cut off run again"
        ) from error
    return record


def check_record(record: Any) -> None:
    """Raise ValueError unless this is a record of a known kind with the fields it needs."""
    if type(record) is dict and FIELDS.get(str(record.get("kind")), UNKNOWN) <= record.keys():
        return
    kind = str(record.get("kind")) if isinstance(record, Mapping) else ""
    if (fields := FIELDS.get(kind)) is None:
        raise ValueError(f"a record has one of the kinds {', '.join(FIELDS)}; found {record!r:.80}")
    if missing := fields - record.keys():
        raise ValueError(f"a {kind!r} record lacks {', '.join(sorted(missing))}: {record!r:.80}")


@contextmanager
def named_errors(path: Path, what: str = "journal") -> Iterator[None]:
    """Say what the system refused in this package's words: which path, what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StorageFull(
                f"{path}: no space left for the {what}; nothing that was done is lost. "
                "Free some space and run the same command again"
            ) from error
        raise StoreError(
            f"{path}: the {what} can't be read or written ({error.strerror or error}); "
            "mend that and run the same command again"
        ) from error
