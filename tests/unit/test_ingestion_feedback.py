"""What came back from the service beside a shop's export: labels of impressions, robots, ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.contracts import EVENTS, IMPRESSIONS
from pipelines.errors import InputError
from pipelines.exploration import weights
from pipelines.ingestion.canonical.database import database
from pipelines.ingestion.canonical.impressions import labelled
from pipelines.ingestion.canonical.ingest import ingest
from pipelines.ingestion.canonical.report import Report
from pipelines.ingestion.canonical.snapshot import take
from pipelines.params import DataParams, FeedbackParams

NOON = datetime(2024, 1, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
WINDOWS = FeedbackParams(attribution_hours={"detail-page-view": 2, "purchase-complete": 48}, maturity_hours=1)
Rows = list[dict[str, Any]]


class World:
    """A shop of four items, what the service collected, and what ingest makes of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.put("export/catalog/a.csv", b"item_id,title\na,Apple\nb,Bread\nc,Cake\nd,Dip\n")

    def put(self, name: str, content: bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def collected(self, rows: Sequence[dict[str, Any]], name: str = "p") -> None:
        path = self.root / "var" / "feedback" / "dt=2024-01-02" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(list(rows), schema=EVENTS.schema), path)

    def ingest(self, *, feedback: FeedbackParams = WINDOWS, **data: Any) -> tuple[Report, Rows, Rows]:
        """The report, canonical impressions and quarantined events."""
        params = DataParams(**{"adapter": "shop", "path": str(self.root / "export"), **data})
        artifacts, taken = self.root / "artifacts", take(params, home=self.root)
        report = ingest(taken, params, home=self.root, artifacts=artifacts, feedback=feedback)
        shown = artifacts / "canonical" / "impressions.parquet"
        impressions = pq.read_table(shown).to_pylist() if shown.exists() else []
        return report, impressions, pq.read_table(artifacts / "quarantine" / "events.parquet").to_pylist()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def shown(token: str, *items: str, at: datetime = NOON, user: str | None = "u", **fields: Any) -> Rows:
    row = {"event_type": "impression", "event_id": token, "attribution_token": token, "event_time": at, "user_id": user}
    places = enumerate(items, 1)
    return [
        {**row, "item_id": item, "position": n, "propensity": 1.0, "model_version": "3", **fields} for n, item in places
    ]


def did(event_id: str, kind: str, item: str, at: datetime, user: str | None = "u", **fields: Any) -> dict[str, Any]:
    return {"event_id": event_id, "event_type": kind, "item_id": item, "event_time": at, "user_id": user, **fields}


def citing(token: str) -> dict[str, str]:
    return {"attribution_token": token}


Labels = dict[tuple[str, str], float | None]
Label = Callable[..., Labels]


@pytest.fixture
def label(tmp_path: Path) -> Label:
    """Labels by impression and item, of what was collected, as known at ``end``."""

    def labelled_by(name: str, rows: Rows, *, end: datetime) -> Labels:
        pq.write_table(pa.Table.from_pylist(rows, schema=EVENTS.schema), tmp_path / "all.parquet")
        with database(tmp_path / "scratch") as work:
            events = work.backend.read_parquet(tmp_path / "all.parquet")
            lists = events.filter(events.event_type == "impression")
            rest = events.filter(events.event_type != "impression")
            found = work.rows(labelled(work, lists, rest, end=end, params=WINDOWS))
        return {(row["impression_id"], row["item_id"]): row[name] for row in found}

    return labelled_by


def test_an_event_that_cites_a_list_belongs_to_it_and_to_no_other(label: Label) -> None:
    lists = shown("t1", "a", "b") + shown("t2", "a", at=NOON + HOUR)
    seen = did("1", "detail-page-view", "a", NOON + 1.5 * HOUR, **citing("t1"))
    found = label("view", [*lists, seen], end=NOON + 9 * HOUR)
    assert found == {("t1", "a"): 1.0, ("t1", "b"): 0.0, ("t2", "a"): 0.0}


def test_an_event_without_a_token_belongs_to_the_last_list_that_showed_the_item_to_that_history(label: Label) -> None:
    lists = shown("t1", "a") + shown("t2", "a", at=NOON + HOUR) + shown("other", "a", at=NOON + HOUR, user="x")
    late = shown("t3", "a", at=NOON + 3 * HOUR)
    found = label("view", [*lists, *late, did("1", "detail-page-view", "a", NOON + 2 * HOUR)], end=NOON + 9 * HOUR)
    assert found == {("t1", "a"): 0, ("t2", "a"): 1, ("other", "a"): 0, ("t3", "a"): 0}


def test_a_visitor_who_became_a_user_is_the_same_history(label: Label) -> None:
    link = did("0", "detail-page-view", "d", NOON - HOUR, visitor_id="v")
    bought = did("1", "purchase-complete", "a", NOON + HOUR, user=None, visitor_id="v")
    assert label("purchase", [*shown("t", "a"), link, bought], end=NOON + 99 * HOUR) == {("t", "a"): 1.0}


def test_what_comes_after_the_window_is_no_effect_and_an_open_window_has_no_label(label: Label) -> None:
    seen = did("1", "detail-page-view", "a", NOON + 2.5 * HOUR, **citing("old"))
    rows = [*shown("old", "a"), *shown("fresh", "b", at=NOON + 8 * HOUR), seen]
    assert label("view", rows, end=NOON + 10 * HOUR) == {("old", "a"): 0.0, ("fresh", "b"): None}
    assert label("view", rows, end=NOON + 11 * HOUR) == {("old", "a"): 0.0, ("fresh", "b"): 0.0}


def test_an_early_effect_is_dated_and_is_no_label_before_the_window_is_over(label: Label) -> None:
    rows = [*shown("t", "a", "b"), did("1", "purchase-complete", "a", NOON + HOUR, **citing("t"))]
    assert label("purchase", rows, end=NOON + 9 * HOUR) == {("t", "a"): None, ("t", "b"): None}
    assert label("purchase_at", rows, end=NOON + 9 * HOUR) == {("t", "a"): NOON + HOUR, ("t", "b"): None}


def test_weights_are_clipped_inverse_propensities() -> None:
    assert weights(np.array([1.0, 0.5, 0.001, np.nan]), clip=20).tolist() == [1.0, 2.0, 20.0, 1.0]


def test_impressions_become_a_table_with_weights_and_rates_and_link_no_visitor(world: World) -> None:
    seen = did("1", "detail-page-view", "a", NOON + HOUR, **citing("t1"))
    end = did("z", "detail-page-view", "d", NOON + 9 * HOUR, None, visitor_id="v")
    lists = shown("t1", "a", "b", propensity=0.5) + shown("t2", "c", "a", model_version="4", visitor_id="v")
    world.collected([*lists, *shown("t3", "a", propensity=0.001, model_version="5"), seen, end])
    report, impressions, _ = world.ingest(feedback=WINDOWS.model_copy(update={"max_weight": 20.0}))
    assert {row["impression_id"]: row["weight"] for row in impressions} == {"t1": 2.0, "t2": 1.0, "t3": 20.0}
    assert pq.read_schema(world.root / "artifacts" / "canonical" / "impressions.parquet").equals(IMPRESSIONS.schema)
    rates = (report.feedback or {})["rates"]
    by_position = {(r["position"], r["shown"], r["view_rate"]) for r in rates["position"]}
    assert by_position == {(1, 3, 1 / 3), (2, 2, 0.0)}
    assert {(r["model_version"], r["view_rate"], r["purchase_rate"]) for r in rates["model_version"]} == {
        ("3", 0.5, None),
        ("4", 0.0, None),
        ("5", 0.0, None),
    }
    events = pq.read_table(world.root / "artifacts" / "canonical" / "events.parquet").to_pylist()
    assert [(row["user_id"], row["visitor_id"]) for row in events] == [("u", None), (None, "v")]


def test_without_feedback_nothing_is_said_of_it_and_the_exports_batches_are_no_robots(world: World) -> None:
    lines = "".join(f"e{n},purchase-complete,2024-01-01,till,a\n" for n in range(500))
    world.put("export/events/all.csv", f"event_id,event_type,event_time,user_id,item_id\n{lines}".encode())
    report, impressions, _ = world.ingest()
    assert (report.feedback, impressions, "impressions" in report.tables) == (None, [], False)
    assert report.tables["events"].rows == 500


def test_a_robot_is_quarantined_with_its_whole_day_and_a_busy_person_is_not(world: World) -> None:
    buy = "purchase-complete"
    robot = [did(f"r{n}", buy, "a", NOON + n * timedelta(milliseconds=700), "robot") for n in range(5000)]
    tail = did("tail", buy, "b", NOON + 5 * HOUR, "robot")
    person = [did(f"p{n}", buy, "c", NOON + n * timedelta(minutes=1), "person") for n in range(60)]
    invoice = [did("i", buy, item, NOON, "wholesaler") for item in "abcd"]
    world.collected([*robot, tail, *person, *invoice, did("next", buy, "a", NOON + 24 * HOUR, "robot")])
    report, _, quarantined = world.ingest(max_bad_share=1.0)
    assert report.tables["events"].bad == {"faster_than_a_person": 5001}
    assert {row["reason"] for row in quarantined} == {"faster_than_a_person"}
    assert '"tail"' in "".join(row["row"] for row in quarantined)
    assert {w.reason: w.rows for w in report.warnings}["faster_than_a_person"] == 5001
    kept = pq.read_table(world.root / "artifacts" / "canonical" / "events.parquet")["user_id"].to_pylist()
    assert (kept.count("person"), kept.count("wholesaler"), kept.count("robot")) == (60, 4, 1)


def test_too_many_robots_stop_the_run(world: World) -> None:
    world.collected([did(f"r{n}", "purchase-complete", "a", NOON, "robot") for n in range(100)])
    with pytest.raises(InputError, match="faster_than_a_person in 100 rows"):
        world.ingest()


def test_feedback_beside_the_raw_uci_table_keeps_ids_byte_for_byte_and_names_what_it_does_not_know(
    world: World,
) -> None:
    head = "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country\n"
    sale = "489434,85099b,JUMBO BAG,10,2024-01-01 09:00:00,1.95,13085,United Kingdom\n"
    world.put("export/sales.csv", (head + sale).encode())
    (world.root / "export" / "catalog" / "a.csv").unlink()
    known, other = (did(n, "purchase-complete", i, NOON, "13085") for n, i in (("1", "85099B"), ("2", "85099b")))
    conflict = did("489434", "purchase-complete", "85099B", NOON, "13085")
    world.collected([known, other, conflict, *shown("t", "85099B", "nothing", user="13085")])
    report, impressions, quarantined = world.ingest(adapter="online_retail", max_bad_share=0.9)
    assert sorted(row["reason"] for row in quarantined) == ["conflicting_copy", "unknown_item", "unknown_item"]
    assert (report.tables["events"].rows, report.tables["impressions"].bad) == (2, {})
    assert [row["item_id"] for row in impressions] == ["85099B"]
    facts = report.feedback or {}
    assert (facts["events"], facts["impressions"], facts["share_of_unknown_items"]) == (2, 1, 2 / 5)
