"""Parquet, CSV and JSON lines as SQL: how each is scanned and how a column of it gets its contract type.

What Ibis cannot say (readers with file names and line numbers, JSON per value) is said here in DuckDB's SQL.
A value that is there but cannot be read as its type becomes null, and its column is named in ``_unreadable``.
"""

# ruff: noqa: S608  (every name and text goes through quoted() and literal())
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipelines.contracts import Type
from pipelines.ingestion.canonical.adapter import Source
from pipelines.ingestion.canonical.shapes import Shape, spelling

MALFORMED = "malformed line"
"""Stands in ``_unreadable`` for a line that has no columns at all."""


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def scan(shape: Shape, paths: list[Path], *, numbered: bool) -> str:
    """A query that reads files: the file's columns, ``_path``, ``_line`` and ``_raw`` (the row as it came)."""
    files = "[" + ", ".join(literal(str(path)) for path in paths) + "]"
    if shape.suffix == ".parquet":
        line = "file_row_number" if numbered else "CAST(NULL AS BIGINT)"
        reader = f"read_parquet({files}, filename = '_path', file_row_number = true, hive_partitioning = false)"
        return f"SELECT *, {line} AS _line, {_packed(shape)} AS _raw FROM {reader}"
    line = "row_number() OVER ()" if numbered else "CAST(NULL AS BIGINT)"
    options = "auto_detect = false, filename = '_path', hive_partitioning = false"
    if shape.suffix == ".jsonl":
        columns = "quote = '', escape = '', header = false, delim = '\x01', columns = {'_raw': 'VARCHAR'}"
        reader = f"SELECT *, {line} AS _line FROM read_csv({files}, {options}, {columns})"
        return (
            "SELECT CASE WHEN _well_formed THEN TRY_CAST(_raw AS JSON) END AS _json, _raw, _path, _line, _well_formed"
            " FROM (SELECT *, CASE WHEN json_valid(_raw)"
            " THEN json_type(TRY_CAST(_raw AS JSON)) = 'OBJECT' ELSE false END"
            f" AS _well_formed FROM ({reader})"
            " WHERE trim(coalesce(_raw, '')) <> '')"
        )
    names = "{" + ", ".join(f"{literal(name)}: 'VARCHAR'" for name in shape.names) + "}"
    dialect = f"header = true, quote = '\"', escape = '\"', delim = {literal(shape.delimiter)}, store_rejects = true"
    reader = f"read_csv({files}, {options}, {dialect}, columns = {names})"
    return f"SELECT *, {line} AS _line, {_packed(shape)} AS _raw FROM {reader}"


def _packed(shape: Shape) -> str:
    return "struct_pack(" + ", ".join(f"{quoted(name)} := {quoted(name)}" for name in shape.names) + ")"


def typed(shape: Shape, source: Source, scanned: str) -> str:
    """A query over :func:`scan`: the source's columns with their types, ``_unreadable``, ``_raw``, ``_path``, line."""
    raw, values, faults = [], [], []
    types: Mapping[str, str] = dict(shape.columns)
    for place, column in enumerate(source.table.columns):
        name = spelling(shape, source, column.name)
        if name is None:
            values.append(f"CAST(NULL AS {_SQL_TYPES[column.type]}) AS {quoted(column.name)}")
            continue
        text = f"_text{place}"
        if shape.suffix == ".jsonl":
            given, usable = _json_text(name, column.type, source)
            raw.append(f"{usable} AS {text}, {given} AS _given{place}")
        else:
            raw.append(f"{quoted(name)} AS {text}, {_given(quoted(name), types[name])} AS _given{place}")
        values.append(f"{_converted(text, column.type, types[name], source)} AS {quoted(column.name)}")
        faults.append(f"CASE WHEN _given{place} AND {quoted(column.name)} IS NULL THEN {literal(column.name)} END")
    if shape.suffix == ".jsonl":
        faults.insert(0, f"CASE WHEN NOT _well_formed THEN {literal(MALFORMED)} END")
    inner = "SELECT *" + "".join(f", {expression}" for expression in raw)
    middle = f"SELECT *, {', '.join(values)}" if shape.suffix == ".jsonl" else f"SELECT {', '.join([*_KEPT, *values])}"
    outer = ", ".join(map(quoted, source.table.names))
    given = ", ".join(f"_given{p}" for p, c in enumerate(source.table.columns) if spelling(shape, source, c.name))
    if shape.suffix != ".jsonl" and given:
        middle += f", {given}"
    fault = f"coalesce({', '.join([*faults, 'NULL'])})"
    return (
        f"SELECT {outer}, _raw, _path, _line, CAST({fault} AS VARCHAR) AS _unreadable"
        f" FROM ({middle} FROM ({inner} FROM ({scanned})))"
    )


_KEPT = ("_raw", "_path", "_line")
_SQL_TYPES = {
    Type.STRING: "VARCHAR",
    Type.FLOAT: "DOUBLE",
    Type.INT: "BIGINT",
    Type.BOOL: "BOOLEAN",
    Type.TIMESTAMP: "TIMESTAMPTZ",
    Type.JSON: "VARCHAR",
}


def _given(value: str, kind: str) -> str:
    """Whether a value is there at all; NaN and blank text are not."""
    if kind in ("double", "float", "halffloat"):
        return f"({value} IS NOT NULL AND NOT isnan({value}))"
    if kind == "text":
        return f"(trim({value}) <> '' AND lower(trim({value})) <> 'nan') IS TRUE"
    return f"({value} IS NOT NULL)"


def _json_text(key: str, type_: Type, source: Source) -> tuple[str, str]:
    """Whether a JSON line has the key, and its value as text, null when its JSON type does not fit."""
    path = literal(f'$."{key}"')
    kind = f"json_type(_json, {path})"
    text = f"json_extract_string(_json, {path})"
    fits = {
        Type.STRING: "('VARCHAR')",
        Type.FLOAT: "('VARCHAR', 'DOUBLE', 'BIGINT', 'UBIGINT', 'HUGEINT')",
        Type.INT: "('VARCHAR', 'DOUBLE', 'BIGINT', 'UBIGINT', 'HUGEINT')",
        Type.BOOL: "('BOOLEAN', 'VARCHAR')",
        Type.TIMESTAMP: "('VARCHAR')",
        Type.JSON: "('VARCHAR', 'OBJECT')",
    }[type_]
    if type_ is Type.STRING and source.ids_may_be_numbers:
        fits = "('VARCHAR', 'BIGINT', 'UBIGINT')"
    given = f"(coalesce({kind}, 'NULL') <> 'NULL' AND trim({text}) <> '')"
    return given, f"CASE WHEN {kind} IN {fits} THEN {text} END"


def _converted(value: str, type_: Type, kind: str, source: Source) -> str:
    is_text = kind in ("text", "json")
    if type_ is Type.STRING:
        number = source.ids_may_be_numbers and kind in ("double", "float")
        return f"nullif(CAST({f'CAST({value} AS BIGINT)' if number else value} AS VARCHAR), '')"
    if type_ is Type.JSON:
        nested = kind.startswith(("map", "struct"))
        return f"CAST(to_json({value}) AS VARCHAR)" if nested else f"nullif(trim(CAST({value} AS VARCHAR)), '')"
    if type_ is Type.BOOL:
        return f"TRY_CAST({value} AS BOOLEAN)"
    if type_ is Type.TIMESTAMP:
        return _time(value, is_text=is_text, american=source.ids_may_be_numbers)
    as_double = f"TRY_CAST({f'trim({value})' if is_text else value} AS DOUBLE)"
    if type_ is Type.INT:
        whole = f"isfinite({as_double}) AND {as_double} = floor({as_double})"
        return f"CASE WHEN {whole} THEN TRY_CAST({as_double} AS BIGINT) END"
    return f"CASE WHEN isfinite({as_double}) THEN {as_double} END"


def _time(value: str, *, is_text: bool, american: bool) -> str:
    """A time in UTC; one without a zone is UTC already. Years beyond 1900–2199 are slips, not times."""
    if is_text:
        time = f"TRY_CAST(trim({value}) AS TIMESTAMPTZ)"
        if american:
            spreadsheet = f"try_strptime(trim({value}), ['%m/%d/%Y %H:%M:%S', '%m/%d/%Y %H:%M'])"
            time = f"coalesce({time}, CAST({spreadsheet} AS TIMESTAMPTZ))"
    else:
        time = f"CAST(TRY_CAST({value} AS TIMESTAMP) AS TIMESTAMPTZ)"
    first, end = (f"TIMESTAMPTZ '{year}-01-01 00:00:00+00'" for year in (1900, 2200))
    return f"CASE WHEN {time} >= {first} AND {time} < {end} THEN {time} END"


def sql_type(type_: Type) -> str:
    """DuckDB's name of a contract type."""
    return _SQL_TYPES[type_]
