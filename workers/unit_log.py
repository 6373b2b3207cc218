"""What a worker met while it did its units: lines of JSON, one file per worker, bounded in size.

Code below needs to know nothing of it: a warning through Python's ``logging``, also one of a
library, gets the image, unit and attempt for which its thread works.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from saccade.pipeline.closing import Closing
from saccade.workers.tasks import Task

MOST_NBYTES = 4 * 2**20
"""Of one file; the one before it is kept, too."""


@dataclass(frozen=True, slots=True)
class About:
    """What a thread works for."""

    log: WorkerLog
    """Whose."""
    task: Task
    """Its unit."""


_about: ContextVar[About | None] = ContextVar("about", default=None)


class JsonLines(logging.Formatter):
    """A record as one line: time, level, worker, image, unit, attempt, message, details."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        about: About = record.__dict__["about"]
        task = about.task
        tree: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "worker": about.log.worker,
            "image": task.unit.image,
            "unit": task.unit.id,
            "attempt": task.attempt,
            "message": record.getMessage(),
            **record.__dict__.get("details", {}),
        }
        if record.exc_info:
            tree["trace"] = self.formatException(record.exc_info)
        return json.dumps(tree, separators=(",", ":"), default=str)


class LogFile(RotatingFileHandler):
    """The file; one that can't be written costs its lines, and nothing else."""

    def __init__(self, path: Path) -> None:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(path, maxBytes=MOST_NBYTES, backupCount=1, encoding="utf-8", delay=True)
        self.setFormatter(JsonLines())

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, logging's own name
        """Say nothing: what stops the worker is told by its units."""

    def close(self) -> None:
        """Close it; what a full disk does not take is lost."""
        with suppress(OSError):
            super().close()


class WorkerLog(Closing):
    """Where one worker tells what it meets.

    Args:
        logs: the run's folder of logs.
        worker: its name; host and process are added to the file's, so that no two workers of
            independent drivers share one.
    """

    def __init__(self, logs: Path, worker: str) -> None:
        self.worker = worker
        self.path = logs / f"{worker}.{socket.gethostname()}.{os.getpid()}.jsonl"
        self._file = LogFile(self.path)
        _ROUTER.opened()

    def say(self, task: Task, level: int, message: str, details: Mapping[str, Any]) -> None:
        """A line about a unit."""
        fields = {"levelno": level, "levelname": logging.getLevelName(level), "msg": message}
        record = logging.makeLogRecord({**fields, "details": details})
        self.take(record, About(self, task))

    def take(self, record: logging.LogRecord, about: About) -> None:
        """A record of ``logging``, made while a thread worked for a unit."""
        record.about = about
        self._file.handle(record)

    def close(self) -> None:
        """Close the file."""
        _ROUTER.closed()
        self._file.close()


@contextmanager
def working_for(log: WorkerLog | None, task: Task) -> Iterator[None]:
    """What this thread says within the block is about a unit; nothing is kept without a log."""
    token = _about.set(About(log, task) if log else None)
    try:
        yield
    finally:
        _about.reset(token)


class _Router(logging.Handler):
    """Brings records to the log of the worker whose thread made them."""

    def __init__(self) -> None:
        super().__init__()
        self._logs = 0
        self._counting = threading.Lock()

    def opened(self) -> None:
        with self._counting:
            self._logs += 1
            if self._logs == 1:
                logging.getLogger().addHandler(self)

    def closed(self) -> None:
        with self._counting:
            self._logs -= 1
            if not self._logs:
                logging.getLogger().removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        about = _about.get()
        if about is not None:
            about.log.take(record, about)
        elif logging.getLogger().handlers == [self]:
            _as_without(record)


def _as_without(record: logging.LogRecord) -> None:
    """What nobody works for goes where it would have gone without this handler."""
    last = logging.lastResort
    if last is not None and record.levelno >= last.level:
        last.handle(record)


_ROUTER = _Router()
