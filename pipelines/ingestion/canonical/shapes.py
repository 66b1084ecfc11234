"""What a file holds before it is read: its format, its columns, and whether they are what the contract asks for."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as is_

from pipelines.contracts import Column, Type
from pipelines.errors import InputError
from pipelines.ingestion.canonical.adapter import Source

DELIMITERS = (",", ";", "\t", "|")
LINES_LOOKED_AT = 1000


@dataclass(frozen=True)
class Shape:
    """What files must share to be read in one scan: format, columns with their types, delimiter."""

    suffix: str
    columns: tuple[tuple[str, str], ...]
    delimiter: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Columns of the file, by their own spelling."""
        return tuple(name for name, _ in self.columns)


def shape_of(path: Path, label: str, source: Source) -> Shape:
    """Look at a file's columns.

    Args:
        path: the file.
        label: what messages call it.
        source: what is expected in it.

    Raises:
        InputError: unreadable or empty file, missing required column, wrong type.
    """
    if path.stat().st_size == 0:
        raise InputError(f"{label} is empty", found="0 bytes", do="write it again, or remove it")
    suffix = path.suffix.lower()
    try:
        shape = {".parquet": _parquet_shape, ".csv": _csv_shape, ".jsonl": _jsonl_shape}[suffix](path, label, source)
    except UnicodeDecodeError as error:
        raise not_utf8(label, error) from None
    _check_required(shape, label, source)
    return shape


def not_utf8(label: str, found: object) -> InputError:
    """The error for a text file in another encoding."""
    return InputError(
        f"{label} is not UTF-8", found=found, wanted="text in UTF-8", do="convert it, e.g. iconv -f ISO-8859-1 -t UTF-8"
    )


def spelling(shape: Shape, source: Source, column: str) -> str | None:
    """How a file spells a column, or None when it lacks it."""
    return next((name for name in source.spellings(column) if name in shape.names), None)


def _check_required(shape: Shape, label: str, source: Source) -> None:
    for column in source.table.columns:
        if column.required and spelling(shape, source, column.name) is None:
            raise InputError(
                f"{label}: required column {column.name!r} is missing",
                found=f"columns {', '.join(shape.names) or 'none'}",
                wanted=f"{' or '.join(map(repr, source.spellings(column.name)))} of type {column.type.value}",
                do="add the column to the export",
            )


def wrong_type(label: str, column: Column, found: str) -> InputError:
    """The error for a column of another type than the contract's."""
    hint = " (ids are text, so that 00123 stays 00123)" if column.type is Type.STRING else ""
    return InputError(
        f"{label}: column {column.name!r} has the wrong type",
        found=found,
        wanted=f"{column.type.value}{hint}",
        do="write the column with that type",
    )


def _parquet_shape(path: Path, label: str, source: Source) -> Shape:
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{label} cannot be read",
            found=str(error).split("\n")[0],
            wanted="a whole parquet file",
            do="write it again",
        ) from None
    shape = Shape(".parquet", tuple((field.name, str(field.type)) for field in schema))
    for column in source.table.columns:
        name = spelling(shape, source, column.name)
        if name is not None and not _fits(schema.field(name).type, column.type, source):
            raise wrong_type(label, column, str(schema.field(name).type))
    return shape


def _fits(found: pa.DataType, wanted: Type, source: Source) -> bool:
    if is_.is_dictionary(found):
        found = found.value_type
    text = is_.is_string(found) or is_.is_large_string(found) or is_.is_string_view(found)
    number = is_.is_integer(found) or is_.is_floating(found)
    fits = {
        Type.STRING: text or (number and source.ids_may_be_numbers),
        Type.FLOAT: number or is_.is_decimal(found),
        Type.INT: number,
        Type.BOOL: is_.is_boolean(found),
        Type.TIMESTAMP: is_.is_timestamp(found) or is_.is_date(found),
        Type.JSON: text or is_.is_map(found) or is_.is_struct(found),
    }
    return bool(is_.is_null(found) or fits[wanted])


def _csv_shape(path: Path, label: str, source: Source) -> Shape:
    known = {name for column in source.table.names for name in source.spellings(column)}
    best: tuple[int, list[str], str] = (-1, [], ",")
    for delimiter in DELIMITERS:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            try:
                header = next(csv.reader(stream, delimiter=delimiter), [])
            except csv.Error as error:
                raise InputError(
                    f"{label} cannot be read", found=error, wanted="a CSV file", do="write it again"
                ) from None
        names = [
            name.strip() or (f"unnamed {place}" if len(header) > 1 else "") for place, name in enumerate(header, 1)
        ]
        if len(known & set(names)) > best[0]:
            best = (len(known & set(names)), names, delimiter)
    _, names, delimiter = best
    if not any(names):
        raise InputError(f"{label} is empty", found="no header", wanted="a header and rows", do="write it again")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise InputError(f"{label}: a column is there twice", found=", ".join(sorted(twice)), do="rename one")
    return Shape(".csv", tuple((name, "text") for name in names), delimiter)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


_JSON_FITS: dict[Type, Callable[[Any], bool]] = {
    Type.STRING: lambda value: isinstance(value, str),
    Type.FLOAT: _is_number,
    Type.INT: _is_number,
    Type.BOOL: lambda value: isinstance(value, bool) or value in ("true", "false"),
    Type.TIMESTAMP: lambda value: isinstance(value, str),
    Type.JSON: lambda value: isinstance(value, dict | str),
}


def _jsonl_shape(path: Path, label: str, source: Source) -> Shape:
    """All keys of the first lines; reads on only while a required key or a value of the right type is awaited."""
    keys: dict[str, str] = {}
    wrong: dict[str, tuple[Column, str]] = {}
    fitting: set[str] = set()
    spelled = {name: column for column in source.table.columns for name in source.spellings(column.name)}
    required = {column.name for column in source.table.columns if column.required}
    with path.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, 1):
            if number > LINES_LOOKED_AT and required <= {spelled[k].name for k in keys if k in spelled} and not wrong:
                break
            try:
                row = json.loads(line)
            except ValueError:
                continue
            for key, value in row.items() if isinstance(row, dict) else ():
                keys[key] = "json"
                column = spelled.get(key)
                if column is None or value is None or key in fitting:
                    continue
                if _JSON_FITS[column.type](value) or (source.ids_may_be_numbers and _is_number(value)):
                    fitting.add(key)
                    wrong.pop(key, None)
                else:
                    wrong.setdefault(key, (column, f"{type(value).__name__} {json.dumps(value)}"))
    for column, found in wrong.values():
        raise wrong_type(label, column, found)
    return Shape(".jsonl", tuple(sorted(keys.items())))
