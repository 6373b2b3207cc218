"""Tables of tiles as CSV, and as Parquet (extra ``parquet``), written as their rows come."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from saccade.pipeline.errors import UsageError
from saccade.pipeline.exports.tiles_table import FEATURES, Column, Row

GROUP_ROWS = 16_384
"""Rows of a Parquet file that are written together, at least, but for the last."""


def write_csv(
    path: Path, columns: Sequence[Column], features: int, parts: Iterable[list[Row]]
) -> None:
    """Write a CSV file: what is not known is empty, features are columns ``f0``, ``f1``...

    Args:
        path: of the file.
        columns: of the table.
        features: how many of them.
        parts: rows of the table.
    """
    names = [column.name for column in columns if column.name != FEATURES]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*names, *(f"f{number}" for number in range(features))])
        for part in parts:
            for row in part:
                numbers = row.get(FEATURES) or []
                blanks = [""] * (features - len(numbers))
                writer.writerow([*(_text(row.get(name)) for name in names), *numbers, *blanks])


def _text(value: object) -> object:
    """As a CSV file has it: numbers to seven digits, truth in small letters."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return int(value) if value.is_integer() else f"{value:.7g}"
    return "" if value is None else value


def check_parquet() -> None:
    """Whether Parquet can be written here.

    Raises:
        UsageError: pyarrow is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(
            "Parquet needs pyarrow, which is not installed; pip install 'saccade[parquet]', or "
            "export csv"
        ) from error
    del pyarrow


def write_parquet(
    path: Path,
    columns: Sequence[Column],
    parts: Iterable[list[Row]],
    facts: Mapping[str, str],
) -> None:
    """Write a Parquet file, group of rows by group of rows; features are one column of lists.

    Args:
        path: of the file.
        columns: of the table.
        parts: rows of the table.
        facts: kept in the schema's metadata.
    """
    import pyarrow
    import pyarrow.parquet

    kinds = {
        str: pyarrow.string(),
        int: pyarrow.int64(),
        float: pyarrow.float64(),
        bool: pyarrow.bool_(),
        list: pyarrow.list_(pyarrow.float32()),
    }
    fields = [(column.name, kinds[column.kind]) for column in columns]
    schema = pyarrow.schema(fields, metadata=dict(facts))
    with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for group in _groups(parts):
            writer.write_table(pyarrow.Table.from_pylist(group, schema=schema))


def _groups(parts: Iterable[list[Row]]) -> Iterator[list[dict[str, Any]]]:
    """Rows in groups that are worth a page."""
    group: list[Row] = []
    for part in parts:
        group += part
        if len(group) >= GROUP_ROWS:
            yield group
            group = []
    if group:
        yield group
