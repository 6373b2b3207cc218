"""Who works on a run: its folder opened by one driver at a time, its images by one driver each.

A driver that comes takes its own part over from whoever worked on it before, as a second driver of
a whole run always did. Parts that overlap its own otherwise (the whole and one of three; one of
three and one of four) are others' work: where their driver lives, the newcomer is refused; where it
died, the newcomer ends that driver's epoch, so that it could not come back unnoticed.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from saccade.jobs.journals.journal import Journal, who
from saccade.jobs.journals.records import epoch_path, epochs, named_errors, read_header
from saccade.jobs.journals.replay import Place, whole_lines
from saccade.jobs.journals.sharing import WHOLE, Shard, journals
from saccade.jobs.processes import is_there
from saccade.pipeline.errors import RunError

CLOSED = b'{"kind":"closed"'
"""How the last line of an epoch begins that ended in good order."""


@contextmanager
def folder_locked(path: Path) -> Iterator[None]:
    """Wait for other drivers that are opening the same run; where nothing locks, don't wait.

    Raises:
        StoreError: the file can't be made.
    """
    with named_errors(path, "run's folder"):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def refuse_living(journal: Path, shard: Shard) -> None:
    """Refuse to work on images that another living driver works on.

    Args:
        journal: folder of the whole run's.
        shard: the part that is to be worked on.

    Raises:
        RunError: such a driver lives, and works on another part than this one.
    """
    for other, folder, epoch in living(journal, shard):
        if other != shard:
            part = "the whole run" if other.whole else f"part {other} of it"
            raise RunError(
                f"{journal.parent}: {who(folder, epoch)} is working on {part}; wait until it "
                "ends or stop it, then run the same command again"
            )


def living(journal: Path, shard: Shard = WHOLE) -> Iterator[tuple[Shard, Path, int]]:
    """Drivers that live and may work on images of a part: theirs, its journal, its newest epoch."""
    for other, folder in journals(journal, shard):
        newest = max(epochs(folder), default=0)
        if newest and _lives(folder, newest):
            yield other, folder, newest


def claim(journal: Path, shard: Shard) -> Journal:
    """Begin an epoch of a part; those of others that died over its images end here.

    Raises:
        Fenced: yet another driver began a newer epoch meanwhile.
        StorageFull: no space for the file.
        StoreError: the folder can't be written.
    """
    for other, folder in journals(journal, shard):
        newest = max(epochs(folder), default=0)
        if other != shard and newest and not _closed(epoch_path(folder, newest)):
            Journal.open(folder).close()
    return Journal.open(shard.journal(journal))


def _closed(path: Path) -> bool:
    last = b""
    for _, line in whole_lines(path, Place(), None):
        last = line
    return last.startswith(CLOSED)


def _lives(folder: Path, epoch: int) -> bool:
    """Whether an epoch's driver still holds its file; where nothing locks, whether it may."""
    path = epoch_path(folder, epoch)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError:
        return not _closed(path) and _may_run(folder, epoch)
    finally:
        os.close(descriptor)


def _may_run(folder: Path, epoch: int) -> bool:
    """Whether a driver's process may be there still: on this host that can be known."""
    header = read_header(folder, epoch)
    if header is None or header["host"] != socket.gethostname():
        return header is not None
    return is_there(header["pid"])
