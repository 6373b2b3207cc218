"""The journal of a run: receipts made durable, and a driver that was replaced fenced off.

Each start of a driver is an *epoch* with a file of its own, which nobody else ever writes. This
module writes; ``saccade.jobs.journals.replay`` reads. Neither knows what a unit is.

Drivers that share a run each have a journal of their own, in folders side by side; the epochs of
journals that may speak of the same images have their *turns*, by which they are read as one.

Two drivers can never both be believed. A new one creates the next file exclusively, and only then
notes how long the older files are: what an older driver writes beyond that does not count. An older
driver looks for a newer file after it made its lines durable: an ``append`` that returns was seen.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from saccade.jobs.journals.records import (
    Record,
    check_record,
    epoch_path,
    epochs,
    named_errors,
    read_header,
    turn_of,
)
from saccade.jobs.journals.replay import Replay, read_records, replay
from saccade.jobs.journals.sharing import journals, shard_of
from saccade.pipeline.closing import Closing
from saccade.pipeline.errors import Fenced, StoreError
from saccade.pipeline.store_shelf import FULL

__all__ = ["Journal", "Record", "Replay", "read_records", "replay"]


class Journal(Closing):
    """One epoch's file, open for appending. Made by ``Journal.open``; for one thread."""

    def __init__(self, folder: Path, epoch: int, descriptor: int) -> None:
        self.folder = folder
        self.epoch = epoch
        self._descriptor = descriptor
        self._durable_nbytes = 0
        self._open = True

    @classmethod
    def open(cls, folder: Path) -> Journal:
        """Begin the next epoch in this folder, which is made where it is missing.

        Raises:
            Fenced: yet another driver began a newer epoch meanwhile.
            StorageFull: no space for the file.
            StoreError: the folder can't be written.
        """
        with named_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            journal = cls(folder, *_create_next(folder))
            journal._begin()
        return journal

    @property
    def path(self) -> Path:
        """The file of this epoch."""
        return epoch_path(self.folder, self.epoch)

    def append(self, records: Record | Sequence[Record]) -> None:
        """Make records durable, all with one write and one fsync; they get this epoch's number.

        Raises:
            Fenced: another driver took over; the records may or may not count, and this driver
                must stop acting on them.
            StorageFull: no space; the file is as before, and ``append`` may be called again.
            StoreError: the file can't be written.
            ValueError: a record of an unknown kind, or one that lacks a field.
        """
        self._write([records] if isinstance(records, Mapping) else records, durable=True)
        self._check_fence()

    def note(self, record: Record) -> None:
        """Write a record that may be lost with the machine, but not with this process; no fsync."""
        self._write([record], durable=False)

    def close(self) -> None:
        """Say that this epoch ended in good order, and close the file; twice is no error."""
        if not self._open:
            return
        # the mark only spares the units in flight a suspicion; closing matters more
        with suppress(Fenced, StoreError):
            self.append({"kind": "closed"})
        self._release()

    def _begin(self) -> None:
        try:
            # held until the process ends, however it does; where nothing locks, `claiming` looks
            # for the process instead
            with suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            _fsync_folder(self.folder)
            self.append(_header(self.folder, self.epoch))
        except BaseException:
            self._release()
            raise

    def _write(self, records: Sequence[Record], durable: bool) -> None:
        lines = b"".join(_line(record, self.epoch) for record in records)
        self._check_open()
        self._check_fence()
        with named_errors(self.path), self._undone_on_error():
            _write_all(self._descriptor, lines)
            if durable:
                os.fsync(self._descriptor)
                self._durable_nbytes = os.lseek(self._descriptor, 0, os.SEEK_END)

    @contextmanager
    def _undone_on_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # a torn line in the middle would make the file unreadable; notes go too, because
            # after a failed fsync nothing since the last good one can be relied on
            try:
                os.ftruncate(self._descriptor, self._durable_nbytes)
            except OSError:
                self._release()
                raise
            if error.errno not in FULL:
                self._release()
            raise

    def _check_open(self) -> None:
        if not self._open:
            raise StoreError(
                f"{self.path}: the journal is closed and takes no more records; "
                "run the same command again to go on"
            )

    def _check_fence(self) -> None:
        # epochs have no gaps, so that one look suffices
        if not epoch_path(self.folder, self.epoch + 1).exists():
            return
        newest = max(epochs(self.folder), default=self.epoch)
        raise Fenced(
            f"{self.folder}: {who(self.folder, newest)} took this run over from epoch "
            f"{self.epoch}; this driver stops and leaves the run to it"
        )

    def _release(self) -> None:
        if self._open:
            self._open = False
            os.close(self._descriptor)


def _line(record: Record, epoch: int) -> bytes:
    check_record(record)
    return json.dumps({**record, "epoch": epoch}, separators=(",", ":")).encode() + b"\n"


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _create_next(folder: Path) -> tuple[int, int]:
    """Number and descriptor of a file that did not exist before."""
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
    epoch = max(epochs(folder), default=0) + 1
    while True:
        try:
            return epoch, os.open(epoch_path(folder, epoch), flags, 0o644)
        except FileExistsError:
            epoch += 1


def _header(folder: Path, epoch: int) -> Record:
    older = [number for number in epochs(folder) if number < epoch]
    return {
        "kind": "opened",
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "turn": _next_turn(folder),
        "seen": {str(number): _nbytes(epoch_path(folder, number)) for number in older},
    }


def _next_turn(folder: Path) -> int:
    """One more than that of every epoch that may speak of the same images."""
    return 1 + max(_last_turn(path) for _, path in journals(*shard_of(folder)))


def _last_turn(folder: Path) -> int:
    headers = (read_header(folder, epoch) for epoch in reversed(epochs(folder)))
    return next((turn_of(header) for header in headers if header), 0)


def _nbytes(path: Path) -> int:
    # a shared file system tells the true length to those who open the file
    with path.open("rb") as file:
        return file.seek(0, os.SEEK_END)


def who(folder: Path, epoch: int) -> str:
    """The driver that opened an epoch, in words."""
    header = read_header(folder, epoch)
    if header is None:
        return f"another driver (epoch {epoch}, just starting)"
    return (
        f"the driver with process id {header['pid']} on {header['host']} "
        f"(epoch {epoch}, since {header['started']})"
    )


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
