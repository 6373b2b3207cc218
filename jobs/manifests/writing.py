"""Manifests as files: rows that were gathered on disk, written as CSV, JSON lines or Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from saccade.jobs.manifests.files import BATCH_ROWS
from saccade.jobs.manifests.listing import Lines
from saccade.pipeline.errors import StorageFull, UsageError

ORDER = ("image", "name", "format", "width", "height", "levels", "mpp", "gsd", "bytes")
"""Columns that come first."""
WHOLE, REAL = ("width", "height", "levels", "bytes"), ("mpp", "gsd")


class RowSpool:
    """Rows on disk, and the columns that any of them has."""

    def __init__(self) -> None:
        self._rows, self._columns = Lines(), set[str]()

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: dict[str, Any]) -> None:
        """Append a row."""
        self._columns |= row.keys()
        self._rows.add(json.dumps(row))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(json.loads, self._rows.after(0))

    @property
    def columns(self) -> tuple[str, ...]:
        """Those that are used, known ones first."""
        known = [column for column in ORDER if column in self._columns]
        return (*known, *sorted(self._columns - set(ORDER)))


def write_manifest(rows: RowSpool, path: Path) -> None:
    """Write rows to a file, in the format of its suffix; it is there whole or not at all.

    Raises:
        UsageError: no such format.
        StorageFull: it can't be written.
    """
    write = writer_for(path)
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            write(rows, file)
        partial.replace(path)
    except OSError as error:
        raise StorageFull(f"{path}: can't be written ({error.strerror}); free some room") from error


def writer_for(path: Path) -> Callable[[RowSpool, IO[bytes]], None]:
    """What writes a file of this suffix.

    Raises:
        UsageError: nothing does.
    """
    try:
        return WRITERS[path.suffix.lower()]
    except KeyError:
        raise UsageError(f"{path}: one of {' '.join(WRITERS)} expected at its end") from None


def csv_lines(rows: RowSpool) -> Iterator[str]:
    """The lines of a CSV file, the header first."""
    echo = _Echo()
    # RFC 4180's line ends: with another one, a name that holds a \r would not be quoted
    writer = csv.DictWriter(echo, rows.columns, lineterminator="\r\n")
    yield writer.writeheader()
    for row in rows:
        yield writer.writerow(row)


class _Echo:
    """A file that hands back what is written to it."""

    def write(self, text: str) -> str:
        return text


def _write_csv(rows: RowSpool, file: IO[bytes]) -> None:
    file.writelines(line.encode() for line in csv_lines(rows))


def _write_json_lines(rows: RowSpool, file: IO[bytes]) -> None:
    file.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def _write_parquet(rows: RowSpool, file: IO[bytes]) -> None:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError(
            "Parquet needs pyarrow: pip install 'saccade[parquet]', or write .csv or .jsonl"
        ) from error
    kinds = dict.fromkeys(WHOLE, pyarrow.int64()) | dict.fromkeys(REAL, pyarrow.float64())
    fields = [pyarrow.field(name, kinds.get(name, pyarrow.string())) for name in rows.columns]
    schema = pyarrow.schema(fields)
    with parquet.ParquetWriter(file, schema) as writer:
        waiting = iter(rows)
        while some := list(islice(waiting, BATCH_ROWS)):
            writer.write_batch(pyarrow.RecordBatch.from_pylist(some, schema=schema))


WRITERS: dict[str, Callable[[RowSpool, IO[bytes]], None]] = {
    ".csv": _write_csv,
    ".jsonl": _write_json_lines,
    ".ndjson": _write_json_lines,
    ".parquet": _write_parquet,
}
"""By suffix, in small letters."""
