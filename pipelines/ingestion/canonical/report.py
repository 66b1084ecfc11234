"""What an ingest found: as values, as JSON, and as a table for people."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class TableReport:
    """What became of a table's rows: ``read`` = ``rows`` + ``cut`` + all ``bad`` + ``duplicates`` + ``merged_lines``.

    Attributes:
        read: rows met in the files.
        rows: rows of the canonical table.
        cut: rows at or after ``as_of``.
        bad: quarantined rows by reason.
        repaired: rows kept with one value emptied, by reason; counted in ``rows``.
        duplicates: later copies of a row, dropped.
        merged_lines: lines that were added to another line of the same event and item.
    """

    read: int
    rows: int
    cut: int = 0
    bad: dict[str, int] = field(default_factory=dict)
    repaired: dict[str, int] = field(default_factory=dict)
    duplicates: int = 0
    merged_lines: int = 0


@dataclass(frozen=True)
class Notice:
    """Something to know that does not stop the run."""

    table: str
    reason: str
    rows: int
    message: str


@dataclass(frozen=True)
class Report:
    """What an ingest found; ``target`` is None without positive events, ``feedback`` without any."""

    as_of: datetime
    target: str | None
    strengths: dict[str, float]
    tables: dict[str, TableReport]
    warnings: tuple[Notice, ...]
    feedback: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """A JSON-able value; equal data give an equal value."""
        return {
            "as_of": self.as_of.isoformat(),
            "target": self.target,
            "strengths": self.strengths,
            "tables": {name: asdict(table) for name, table in self.tables.items()},
            "warnings": [asdict(warning) for warning in self.warnings],
            "feedback": self.feedback,
        }


def shown(report: Report, console: Console) -> None:
    """Print what became of each table's rows, why rows are bad, and the warnings."""
    table = Table(title=f"ingest as of {report.as_of.isoformat()}, target {report.target or 'none'}")
    for name in ("table", "read", "kept", "merged", "copies", "cut", "bad"):
        table.add_column(name, justify="left" if name == "table" else "right", no_wrap=True)
    for name, rows in report.tables.items():
        counts = (rows.read, rows.rows, rows.merged_lines, rows.duplicates, rows.cut, sum(rows.bad.values()))
        table.add_row(name, *(f"{count:,}" for count in counts))
    console.print(table)
    for by, rates in (report.feedback or {}).get("rates", {}).items():
        console.print(_rates(by, rates))
    lines = [f"bad: {name}: {count:,} {reason}" for name, t in report.tables.items() for reason, count in t.bad.items()]
    lines += [f"warning: {w.table + ': ' if w.table else ''}{w.message}" for w in report.warnings]
    for line in lines:
        console.print(line, markup=False, highlight=False)


def _rates(by: str, rates: list[dict[str, Any]]) -> Table:
    """How often what was shown was followed by an event, per position or model version."""
    names = [name.removesuffix("_rate") for name in rates[0] if name.endswith("_rate")] if rates else []
    table = Table(title=f"impressions by {by}")
    for name in (by, "shown", *names):
        table.add_column(name, justify="right")
    for row in rates:
        shares = ("–" if row[f"{name}_rate"] is None else f"{row[f'{name}_rate']:.4f}" for name in names)
        table.add_row(str(row[by]), f"{row['shown']:,}", *shares)
    return table
