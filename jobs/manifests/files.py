"""The rows of a manifest, one after the other, whatever its format. Knows no column's meaning.

CSV, JSON lines (also of STAC items), Parquet, and a GeoJSON FeatureCollection of STAC items. A file
of any length is read in bounded memory; a row that can't be read is one ``Unusable``, and reading
goes on behind it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from saccade.jobs.manifests.json_stream import MAX_ITEM_CHARS, JsonDamage, items_of
from saccade.jobs.manifests.rows import Row, Unusable, unknown_column
from saccade.pipeline.errors import ManifestError

Rows = Iterator[tuple[int, Row | Unusable]]
"""With the number of the line (of the row in Parquet, of the item in a collection), from 1."""

MAX_LINE_NBYTES = MAX_ITEM_CHARS
BATCH_ROWS = 1024
"""Rows of Parquet that are held at a time."""
UTF_8 = "a manifest is CSV or JSON lines in UTF-8; found other bytes"


def rows_of(file: BinaryIO, suffix: str) -> Rows:
    """The rows of an open manifest.

    Args:
        file: at its beginning; Parquet seeks in it.
        suffix: of its name, a key of ``READERS``.

    Raises:
        ManifestError: the rest of it can't be understood.
        OSError: it can't be read on.
    """
    return READERS[suffix](file)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines with their ends.

    Raises:
        ManifestError: one is so long that this is no manifest.
    """
    while line := file.readline(MAX_LINE_NBYTES + 1):
        if len(line) > MAX_LINE_NBYTES:
            raise ManifestError(f"a line of at most {MAX_LINE_NBYTES} bytes expected; found more")
        yield line


# -------------------------------------------------------------------------------------------- CSV


def _csv_rows(file: BinaryIO) -> Rows:
    lines = (line.decode("utf-8", "surrogateescape") for line in _lines(file))
    reader = csv.reader(line.removeprefix("\ufeff") for line in lines)
    columns = _header(reader)
    while (fields := _next(reader)) is not None:
        if isinstance(fields, Unusable):
            yield reader.line_num, fields
        elif fields:
            yield reader.line_num, _row(columns, fields)


def _header(reader: Any) -> list[str]:
    """The names of the columns.

    Raises:
        ManifestError: there is none, or one that no manifest has.
    """
    columns = _next(reader)
    if columns is None:
        raise ManifestError("a header line with the column 'image' expected; the file is empty")
    if isinstance(columns, Unusable):
        raise ManifestError(columns.why)
    wrong = unknown_column(columns)
    if not wrong and "image" not in columns:
        wrong = f"column 'image' is missing; found {', '.join(columns)}"
    if wrong:
        raise ManifestError(wrong)
    return columns


def _next(reader: Any) -> list[str] | Unusable | None:
    try:
        fields: list[str] | None = next(reader, None)
    except csv.Error as error:
        return Unusable(f"not CSV: {error}")
    return Unusable(UTF_8) if fields and _undecodable(*fields) else fields


def _undecodable(*fields: str) -> bool:
    """Whether bytes that are no UTF-8 were read past."""
    return any("\udc80" <= c <= "\udcff" for f in fields if not f.isascii() for c in f)


def _row(columns: list[str], fields: list[str]) -> Row | Unusable:
    if len(fields) > len(columns):
        return Unusable(f"more fields than columns: {len(fields)} and {len(columns)}")
    return {key: value for key, value in zip(columns, fields, strict=False) if value}


# ------------------------------------------------------------------------------------------- JSON


def _json_rows(file: BinaryIO) -> Rows:
    for number, line in enumerate(_lines(file), 1):
        if line.strip():
            yield number, _json_row(line)


def _json_row(line: bytes) -> Row | Unusable:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return Unusable(UTF_8)
    except (ValueError, RecursionError) as error:
        return Unusable(f"not JSON: {error}")
    return _object(row)


def _object(row: Any) -> Row | Unusable:
    if not isinstance(row, dict):
        return Unusable(f"an object expected; found {str(row)[:80]!r}")
    return {key: value for key, value in row.items() if value not in (None, "")}


def _collection_rows(file: BinaryIO) -> Rows:
    try:
        for number, item in enumerate(items_of(file, "features"), 1):
            yield number, _object(item)
    except JsonDamage as error:
        raise ManifestError(f"a FeatureCollection of STAC items expected; {error}") from error


# ---------------------------------------------------------------------------------------- Parquet


def _parquet_rows(file: BinaryIO) -> Rows:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ManifestError(
            "Parquet needs pyarrow: pip install 'saccade[parquet]', or use CSV or JSON lines"
        ) from error
    try:
        table = parquet.ParquetFile(file)
        if wrong := unknown_column(_plain_columns(table.schema_arrow.names)):
            raise ManifestError(wrong)
        batches = table.iter_batches(BATCH_ROWS, use_threads=False)
        rows = (row for batch in batches for row in batch.to_pylist())
        yield from ((number, _object(row)) for number, row in enumerate(rows, 1))
    except (ValueError, OSError) as error:  # pyarrow raises both of damaged files
        raise ManifestError(f"not Parquet: {str(error).strip()}") from error


def _plain_columns(columns: list[str]) -> list[str]:
    """Columns to check; those of STAC items in Parquet are the items' own."""
    return [] if "assets" in columns else columns


READERS: dict[str, Callable[[BinaryIO], Rows]] = {
    ".csv": _csv_rows,
    ".jsonl": _json_rows,
    ".ndjson": _json_rows,
    ".geojsonl": _json_rows,
    ".json": _collection_rows,
    ".geojson": _collection_rows,
    ".parquet": _parquet_rows,
    ".geoparquet": _parquet_rows,
}
"""By suffix, in small letters."""
