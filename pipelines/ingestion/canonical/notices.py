"""What an ingest warns of: rows that say less than they could, and files that were not read."""

from __future__ import annotations

from collections.abc import Mapping

import ibis.expr.types as ir

from pipelines.contracts import CATALOG, EVENTS
from pipelines.ingestion.canonical.database import Database
from pipelines.ingestion.canonical.reading import Reader
from pipelines.ingestion.canonical.report import Notice, TableReport
from pipelines.ingestion.canonical.returned import ROBOT


def of_rows(work: Database, tables: Mapping[str, TableReport], events: ir.Table) -> list[Notice]:
    """About the rows of the canonical tables; ``events``: those that stay."""
    ownerless = int(work.value((events.user_id.isnull() & events.visitor_id.isnull()).sum().fill_null(0)))
    undated = int(work.value(work.table("revived_items").count()))
    found = [
        (
            EVENTS,
            "no_user_and_no_visitor",
            ownerless,
            "events without user_id and visitor_id feed item statistics only",
        ),
        (
            CATALOG,
            "only_later_versions",
            undated,
            "items were met before as_of and have only later versions: oldest used",
        ),
        (
            EVENTS,
            ROBOT,
            tables[EVENTS.name].bad.get(ROBOT, 0),
            "rows of histories that did more in an hour than a person can (feedback.max_events_an_hour): quarantined",
        ),
    ]
    warnings = [Notice(t.name, reason, n, f"{n} {text}") for t, reason, n, text in found if n]
    for name, report in tables.items():
        warnings += [
            Notice(name, reason, n, f"{n} rows kept with that value emptied: {reason}")
            for reason, n in report.repaired.items()
        ]
    return warnings


def of_files(reader: Reader) -> list[Notice]:
    """About columns and files that nothing reads."""
    warnings = [
        Notice(table, "columns_ignored", 0, f"columns not read: {', '.join(sorted(columns))}")
        for table, columns in sorted(reader.columns_ignored.items())
    ]
    if reader.snapshot.ignored:
        shown = ", ".join(reader.snapshot.ignored[:5]) + (", …" if len(reader.snapshot.ignored) > 5 else "")
        warnings.append(Notice("", "files_ignored", 0, f"{len(reader.snapshot.ignored)} files not read: {shown}"))
    return warnings
