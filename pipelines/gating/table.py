"""A verdict as a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

MARKS = {True: "[green]passed", False: "[red]failed"}


def shown(verdict: Mapping[str, Any]) -> Table:
    """One row per check of a ``verdict.json``."""
    table = Table(title=f"{verdict['verdict']} ({verdict['mode']})", title_justify="left")
    for name in ("check", "", "observed", "required"):
        table.add_column(name, overflow="fold")
    for row in verdict["reasons"]:
        mark = "[yellow]undecided" if row.get("undecided") else MARKS[row["passed"]]
        observed = f"{row['observed']:.4f}" if isinstance(row["observed"], float) else str(row["observed"])
        table.add_row(row["check"], mark, observed, row["required"])
    return table
