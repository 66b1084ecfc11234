"""The ingest itself: staged rows in, canonical tables, quarantine and report out; whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from pipelines.contracts import CATALOG, EVENTS, IMPRESSIONS, JUDGMENTS, TABLES, USERS, Table
from pipelines.errors import InputError
from pipelines.exclusions import Exclusions
from pipelines.ingestion.canonical import identity, impressions, notices, returned, rules, target
from pipelines.ingestion.canonical.adapter import adapter
from pipelines.ingestion.canonical.database import Database, database
from pipelines.ingestion.canonical.reading import Reader
from pipelines.ingestion.canonical.report import Notice, Report, TableReport
from pipelines.ingestion.canonical.snapshot import Snapshot
from pipelines.params import DataParams, FeedbackParams
from pipelines.splitting import midnight_after
from pipelines.storage import replacing_folder, write_json

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
"""``as_of`` when nothing in the data has a time."""

QUARANTINE = pa.schema([("file", pa.string()), ("reason", pa.string()), ("kept", pa.bool_()), ("row", pa.string())])
"""``row`` as JSON; ``kept``: the row is in the canonical table too, with a value emptied."""

SHOWN = replace(EVENTS, name=IMPRESSIONS.name)
"""Impressions before they are joined with what followed: events like others."""

REJECTED = "quarantine_rejected"
"""Folder that a run which stops for too many bad rows leaves its quarantine in."""


@dataclass(frozen=True)
class _Result:
    """A canonical table before it is written."""

    contract: Table
    kept: ir.Table
    report: TableReport
    quarantine: ir.Table


def ingest(
    snapshot: Snapshot,
    data: DataParams,
    *,
    home: Path,
    artifacts: Path,
    feedback: FeedbackParams = FeedbackParams(),  # noqa: B008 - frozen
    progress: Callable[[int], None] = lambda _: None,
) -> Report:
    """Read a snapshot and write ``canonical/``, ``quarantine/`` and ``ingest/report.json`` below ``artifacts``.

    Args:
        snapshot: which files.
        data: target, strengths and the share of bad rows that stops the run.
        home: ``FUSELINE_HOME``, below which the feedback lies.
        artifacts: where outputs go; a failing run leaves what was there.
        feedback: how what the service collected is read.
        progress: called with the number of bytes of each scan that is finished.

    Raises:
        InputError: files cannot be read as promised, or too many rows are bad.
    """
    reads = adapter(snapshot.adapter)
    given = datetime.fromisoformat(snapshot.as_of) if snapshot.as_of else None
    with database(artifacts / ".ingest.partial") as work:
        reader = Reader(work, snapshot, reads, home, progress)
        reads.stage(work, reader, given)
        _stage_rest(work, reader)
        erased = returned.leave_out(work, Exclusions.from_json(snapshot.excluded))
        returned.quarantine_robots(work, feedback)
        as_of = _as_of(work, given)
        any_shown = returned.set_impressions_apart(work)
        events = _events(work, given)
        judgments = _timeless(work, JUDGMENTS)
        results = [_catalog(work, as_of, [events.kept, judgments.kept]), events, judgments, _timeless(work, USERS)]
        shown = [_impressions(work, given, events.kept, as_of, feedback)] if any_shown else []
        results += shown
        _check_shares(work, results, data, artifacts)
        report = _report(work, results, reader, as_of, data, erased=erased)
        if snapshot.feedback:
            table = shown[0].kept if shown else None
            report = replace(report, feedback=returned.facts(work, snapshot.collected, table))
        _write(work, results, report, artifacts)
    return report


def _stage_rest(work: Database, reader: Reader) -> None:
    """The feedback, and empty tables for what the shop does not have."""
    staged = rules.STAGED
    for name in (CATALOG.name, EVENTS.name, JUDGMENTS.name, USERS.name):
        if staged[name] not in work.names():
            work.create(staged[name], rules.empty(TABLES[name]))
    known = work.create("items_with_feedback", rules.known_items(work.table(staged[CATALOG.name])))
    reader.load_feedback(staged[EVENTS.name], lambda scanned: rules.checked(scanned, EVENTS, known=known))


def _as_of(work: Database, given: datetime | None) -> datetime:
    """The exclusive end of what is read.

    Raises:
        InputError: when the given one lies before all events.
    """
    events, catalog = work.table(rules.STAGED[EVENTS.name]), work.table(rules.STAGED[CATALOG.name])
    good = events.filter(events["_reason"].isnull())
    span = work.rows(good.agg(first=good.event_time.min(), last=good.event_time.max()))[0]
    if given is not None:
        if span["first"] is not None and span["first"] >= given:
            raise InputError(
                "data.as_of lies before all events",
                found=f"as_of {given.isoformat()}, first event {span['first'].isoformat()}",
                wanted="a time after the first event",
                do="correct data.as_of in params.yaml, or set it to null",
            )
        return given
    usable = catalog.filter(catalog["_reason"].isnull())
    newest = span["last"] or work.value(usable.updated_at.max())
    return midnight_after(newest) if newest else BEGINNING


def _parts(
    work: Database, contract: Table, time: str | None, as_of: datetime | None
) -> tuple[ir.Table, ir.Table, ir.Table]:
    """Good, cut and bad rows of a staged table; what lies at or after ``as_of`` is cut before it is judged."""
    staged = work.table(rules.STAGED[contract.name])
    late = ibis.literal(False)  # noqa: FBT003
    if time is not None and as_of is not None:
        late = (staged[time] >= ibis.literal(as_of)).fill_null(False)  # noqa: FBT003
    good = staged.filter(staged["_reason"].isnull() & ~late)
    return good, staged.filter(late), staged.filter(staged["_reason"].notnull() & ~late)


def _events(work: Database, as_of: datetime | None) -> _Result:
    """Events before ``as_of``; None cuts nothing, because then it lies after the newest one."""
    if not _any(work, EVENTS):
        return _nothing(work, EVENTS)
    good, cut, bad = _parts(work, EVENTS, "event_time", as_of)
    resolved = identity.resolve_events(work, identity.with_event_ids(good))
    return _result(work, EVENTS, resolved, good, bad, cut=int(work.value(cut.count())))


def _impressions(
    work: Database, as_of: datetime | None, events: ir.Table, end: datetime, params: FeedbackParams
) -> _Result:
    """What was shown before ``as_of``, with what is known to have followed; ``end``: nothing is known from it on."""
    good, cut, bad = _parts(work, SHOWN, "event_time", as_of)
    resolved = identity.resolve_events(work, identity.with_event_ids(good), name=SHOWN.name)
    result = _result(work, SHOWN, resolved, good, bad, cut=int(work.value(cut.count())))
    newest = [work.value(table.event_time.max()) for table in (events, result.kept)]
    end = min(end, max((time for time in newest if time is not None), default=end))
    followed = impressions.labelled(work, result.kept, events, end=end, params=params)
    return replace(result, contract=IMPRESSIONS, kept=work.create("labelled_impressions", followed))


def _any(work: Database, contract: Table) -> bool:
    return bool(work.fetch(f"SELECT 1 FROM {rules.STAGED[contract.name]} LIMIT 1"))  # noqa: S608  (a name of ours)


def _nothing(work: Database, contract: Table) -> _Result:
    staged = work.table(rules.STAGED[contract.name])
    quarantine = staged.select(file="_file", reason="_reason", row="_row", kept=ibis.literal(False))  # noqa: FBT003
    return _Result(contract, staged, TableReport(0, 0), quarantine)


def _timeless(work: Database, contract: Table) -> _Result:
    if not _any(work, contract):
        return _nothing(work, contract)
    good, _, bad = _parts(work, contract, None, None)
    choose = identity.last_wins if contract is USERS else identity.first_wins
    return _result(work, contract, choose(work, good, contract), good, bad, cut=0)


def _catalog(work: Database, as_of: datetime, users_of_items: list[ir.Table]) -> _Result:
    """All versions before ``as_of``.

    An item that was met before ``as_of`` although all its versions are later keeps its oldest one, without
    its date: a shop that exports today's catalogue beside yesterday's events is common.
    """
    good, late, bad = _parts(work, CATALOG, "updated_at", as_of)
    resolved = identity.last_wins(work, good, CATALOG)
    met = ibis.union(*[table.select("item_id") for table in users_of_items]).distinct()
    usable = late.filter(late["_reason"].isnull())
    needed = usable.semi_join(met, "item_id").anti_join(resolved.kept, "item_id")
    oldest = ibis.window(
        group_by="item_id",
        order_by=["updated_at", ibis.desc("_origin"), ibis.desc("_file"), ibis.desc("_line")],
    )
    needed = needed.mutate(_place=ibis.row_number().over(oldest))
    revived = work.create(
        "revived_items", needed.filter(needed["_place"] == 0).mutate(updated_at=ibis.null("timestamp('UTC', 6)"))
    )
    count = int(work.value(revived.count()))
    kept = resolved.kept.select(*CATALOG.names).union(revived.select(*CATALOG.names))
    whole = identity.Resolved(kept, None, resolved.duplicates)
    return _result(work, CATALOG, whole, good, bad, cut=int(work.value(late.count())) - count)


def _result(
    work: Database, contract: Table, resolved: identity.Resolved, good: ir.Table, bad: ir.Table, *, cut: int
) -> _Result:
    kept = work.create(f"kept_{contract.name}", resolved.kept.select(*contract.names))
    wrong = bad if resolved.conflicts is None else bad.union(resolved.conflicts.select(*bad.columns))
    emptied = good.filter(good["_repaired"].notnull())
    quarantine = work.create(
        f"quarantine_{contract.name}",
        wrong.select(file="_file", reason="_reason", row="_row")
        .mutate(kept=ibis.literal(False))  # noqa: FBT003
        .union(
            emptied.select(file="_file", reason="_repaired", row="_row").mutate(kept=ibis.literal(True))  # noqa: FBT003
        ),
    )
    counts = work.rows(quarantine.group_by(["kept", "reason"]).agg(rows=quarantine.count()))
    by_reason = [
        {
            c["reason"]: int(c["rows"])
            for c in sorted(counts, key=lambda c: (-c["rows"], c["reason"]))
            if c["kept"] is kept_
        }
        for kept_ in (False, True)
    ]
    report = TableReport(
        read=int(work.value(work.table(rules.STAGED[contract.name]).count())),
        rows=int(work.value(kept.count())),
        cut=cut,
        bad=by_reason[0],
        repaired=by_reason[1],
        duplicates=resolved.duplicates,
        merged_lines=resolved.merged_lines,
    )
    return _Result(contract, kept, report, quarantine)


def _check_shares(work: Database, results: list[_Result], data: DataParams, artifacts: Path) -> None:
    for result in results:
        report = result.report
        bad = sum(n for reason, n in report.bad.items() if reason != identity.CONFLICT)
        if result.contract is CATALOG and report.read == 0:
            raise InputError("the catalogue has no rows", wanted="one row a product", do="export it again")
        nothing_left = bad and report.rows == 0
        if not bad or (bad / report.read <= data.max_bad_share and not nothing_left):
            continue
        _write_quarantine(work, results, artifacts / REJECTED)
        most = "; ".join(f"{reason} in {n} rows" for reason, n in list(report.bad.items())[:3])
        raise InputError(
            f"{result.contract.name}: {bad} of {report.read} rows ({bad / report.read:.1%}) are bad",
            found=f"{most}; the first: {_first(work, result)}",
            wanted="at least one usable row"
            if nothing_left
            else f"at most {data.max_bad_share:.1%} (data.max_bad_share)",
            do=f"look at {artifacts / REJECTED / result.contract.name}.parquet, then correct the export",
        )


def _first(work: Database, result: _Result) -> str:
    """One example of the most frequent reason: file and row."""
    reason = next(iter(result.report.bad))
    table = result.quarantine
    example = work.rows(table.filter(table.reason == reason).order_by("file", "row").limit(1))[0]
    return f"{example['file']}: {example['row'][:200]}"


def _report(
    work: Database, results: list[_Result], reader: Reader, as_of: datetime, data: DataParams, *, erased: int
) -> Report:
    events = next(result for result in results if result.contract is EVENTS)
    counts = work.rows(events.kept.group_by("event_type").agg(rows=events.kept.count()))
    chosen = target.choose({row["event_type"] for row in counts}, data)
    tables = {result.contract.name: result.report for result in results}
    warnings = [*notices.of_rows(work, tables, events.kept), *notices.of_files(reader)]
    if erased:
        warnings.append(Notice(EVENTS.name, "erased", erased, f"{erased} rows of erased users left out, unread"))
    if events.report.rows and chosen.target is None:
        message = "no event of a positive type: nothing to learn recommendations from"
        warnings.append(Notice(EVENTS.name, "no_target", events.report.rows, message))
    return Report(as_of, chosen.target, chosen.strengths, tables, tuple(warnings))


_ORDER = {
    CATALOG.name: ("item_id", "updated_at"),
    EVENTS.name: ("event_time", "event_id", "item_id"),
    JUDGMENTS.name: ("query", "item_id"),
    USERS.name: ("user_id",),
    IMPRESSIONS.name: ("shown_at", "impression_id", "item_id"),
}


def _write(work: Database, results: list[_Result], report: Report, artifacts: Path) -> None:
    with (
        replacing_folder(artifacts / "ingest") as about,
        replacing_folder(artifacts / "quarantine") as quarantine,
        replacing_folder(artifacts / "canonical") as canonical,
    ):
        for result in results:
            name = result.contract.name
            path = canonical / f"{name}.parquet"
            work.write_parquet(result.kept, path, schema=result.contract.schema, order=_ORDER[name])
        _write_quarantine(work, results, quarantine)
        write_json(about / "report.json", report.as_json())
    shutil.rmtree(artifacts / REJECTED, ignore_errors=True)


def _write_quarantine(work: Database, results: list[_Result], folder: Path) -> None:
    for result in results:
        path = folder / f"{result.contract.name}.parquet"
        work.write_parquet(result.quarantine, path, schema=QUARANTINE, order=("file", "reason", "kept", "row"))
