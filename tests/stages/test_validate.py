"""What the suites let through, what they warn of and what they stop."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from expectations import frames, rankings, raw, runner
from pipelines.contracts import CATALOG, EVENTS, IMPRESSIONS, INTERACTIONS, JUDGMENTS, Table
from pipelines.errors import ArtifactError, ExpectationError
from pipelines.features.definitions import ITEM, USER, USER_ITEM
from pipelines.features.state import FeatureState, UserItems
from pipelines.ids import IdIndex
from pipelines.stages import validate_rankings, validate_raw
from pipelines.storage import write_json

AS_OF = datetime(2024, 3, 1, tzinfo=UTC)
NAMES = sorted(path.stem for path in runner.SUITES.glob("*.json"))


def write(path: Path, table: Table, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {name: [row.get(name) for row in rows] for name in table.names}
    pq.write_table(pa.table(columns, schema=table.schema), path)


def catalog(n: int = 12, **values: Any) -> list[dict[str, Any]]:
    return [{"item_id": f"i{k}", "title": f"T{k}", "price": 1.0, "available": True, **values} for k in range(n)]


def events(n: int = 60, **values: Any) -> list[dict[str, Any]]:
    return [
        {
            "event_id": str(k),
            "event_type": "purchase-complete",
            "event_time": datetime.fromtimestamp(AS_OF.timestamp() - 86_400 * (k + 0.5), UTC),
            "user_id": f"u{k % 9}",
            "item_id": f"i{k % 12}",
            **values,
        }
        for k in range(n)
    ]


def canonical(root: Path, *, items: list[dict[str, Any]], log: list[dict[str, Any]], judged: Any = ()) -> Path:
    write(root / "canonical" / "catalog.parquet", CATALOG, items)
    write(root / "canonical" / "events.parquet", EVENTS, log)
    write(root / "canonical" / "judgments.parquet", JUDGMENTS, list(judged))
    write_json(root / "ingest" / "report.json", {"as_of": AS_OF.isoformat(), "target": "purchase-complete"})
    return root


def facts(checks: list[runner.Check], suite: str) -> dict[str, Any]:
    (found,) = [check.facts for check in checks if check.suite == suite]
    assert found
    return dict(found[0])


@pytest.mark.parametrize("name", NAMES)
def test_every_suite_has_severities_and_says_what_each_fact_means_and_what_to_do(name: str) -> None:
    for expected in runner.suite_expectations(name):
        assert expected["severity"] in {"critical", "warning"}
        assert expected["meta"]["means"]
        assert expected["meta"]["do"]


def test_a_suite_that_is_not_there_or_empty_is_an_error_not_a_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ArtifactError, match=r"no suite 'raw'; found: .*raw_catalog"):
        runner.suite_expectations("raw")
    (tmp_path / "raw.json").write_text('{"expectations": []}')
    monkeypatch.setattr(runner, "SUITES", tmp_path)
    with pytest.raises(ArtifactError, match=r"raw\.json expects nothing"):
        runner.suite_expectations("raw")


def test_good_tables_pass_with_a_report_and_data_docs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    validate_raw.main(["--artifacts", str(canonical(tmp_path, items=catalog(), log=events()))])
    report = json.loads((tmp_path / "validation" / "raw.json").read_text())
    assert report["success"]
    assert {name: suite["status"] for name, suite in report["suites"].items()} == {
        "raw_catalog": "passed",
        "raw_events": "passed",
        "raw_judgments": "not_applicable",
        "raw_feedback": "not_applicable",
        "raw_impressions": "not_applicable",
    }
    assert (tmp_path / "validation" / "raw_docs" / "index.html").is_file()
    assert "raw_events: passed" in capsys.readouterr().out


def test_a_warning_is_reported_and_does_not_stop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    validate_raw.main(["--artifacts", str(canonical(tmp_path, items=catalog(title="Same"), log=events(user_id=None)))])
    suites = json.loads((tmp_path / "validation" / "raw.json").read_text())["suites"]
    assert {name: suite["status"] for name, suite in suites.items()}["raw_events"] == "warned"
    assert "share of events without owner" in capsys.readouterr().out


def test_a_critical_failure_stops_and_names_suite_expectation_observed_required_and_next_move(tmp_path: Path) -> None:
    log = [*events(), *events(1, event_id="future", event_time=AS_OF)]
    with pytest.raises(ExpectationError) as raised:
        validate_raw.main(["--artifacts", str(canonical(tmp_path, items=catalog(), log=log))])
    message = str(raised.value)
    assert message.startswith("suite raw_events: expect_column_values_to_be_between of events at or after as_of")
    assert "found: 1; wanted: max_value 0" in message
    assert "next: run `dvc repro -f ingest`" in message
    assert raised.value.exit_code == 4
    assert not json.loads((tmp_path / "validation" / "raw.json").read_text())["success"]


def test_structure_comes_from_the_contract(tmp_path: Path) -> None:
    root = canonical(tmp_path, items=[*catalog(), *catalog(1)], log=[*events(), {"event_id": "x"}])
    pq.write_table(pa.table({"item_id": [1], "title": ["T"]}), tmp_path / "other.parquet")
    checks = raw.checks(root / "canonical", as_of=AS_OF, target=None)
    assert facts(checks, "raw_catalog")["repeated keys"] == 1
    assert facts(checks, "raw_events")["rows without event_time"] == 1
    assert facts(checks, "raw_events")["type of event_time"] == "timestamp[us, tz=UTC]"
    expected = {one["kwargs"]["column"] for one in raw.structure(EVENTS)}
    assert {f"type of {name}" for name in EVENTS.names} <= expected


def test_facts_of_events_are_what_a_hand_count_gives(tmp_path: Path) -> None:
    log = [*events(4, user_id="u"), *events(1, event_id="z", item_id="unknown", user_id=None, quantity=-1.0)]
    found = facts(
        raw.checks(canonical(tmp_path, items=catalog(), log=log) / "canonical", as_of=AS_OF, target="x"), "raw_events"
    )
    assert found["events of unknown items"] == 1
    assert found["events with a negative quantity"] == 1
    assert found["events of the target type"] == 0
    assert found["share of events without owner"] == pytest.approx(1 / 5)
    assert found["share of events of the busiest owner"] == pytest.approx(4 / 5)
    assert found["share of events on the busiest day"] == pytest.approx(2 / 5)
    assert found["longest gap in days"] == 1
    assert found["days from last event to as_of"] == pytest.approx(0.5)


def state() -> FeatureState:
    def ones(aggregates: Any, n: int) -> dict[str, np.ndarray]:
        return {aggregate.name: np.ones(n, np.float32) for aggregate in aggregates}

    pairs = UserItems(np.array([0, 1, 2]), np.array([0, 1], np.int32), ones(USER_ITEM, 2))
    return FeatureState(
        time=AS_OF,
        item_ids=IdIndex.of(["a", "b"]),
        user_ids=IdIndex.of(["u", "v"]),
        catalog=pa.table({"item_id": ["a", "b"]}),
        items={**ones(ITEM, 2), "price": np.array([np.nan, 1], np.float32)},
        users=ones(USER, 2),
        user_items=pairs,
        attribute_values={},
        user_attributes={},
        text=np.eye(2, dtype=np.float16),
        target="purchase-complete",
        strengths={"purchase-complete": 1.0},
    )


def with_pairs(changed: FeatureState, **values: Any) -> FeatureState:
    return replace(changed, user_items=replace(changed.user_items, **values))


DAMAGE: dict[str, FeatureState] = {
    "age in days of the youngest event": replace(
        state(), users={**state().users, "last_age": np.array([-1, 1], np.float32)}
    ),
    "aggregates of pairs and histories not finite": replace(
        state(), users={**state().users, "bought": np.array([np.nan, 1])}
    ),
    "aggregates of items that are NaN": replace(state(), items={**state().items, "bought": np.array([np.nan, 1])}),
    "item codes out of range": with_pairs(state(), items=np.array([0, 2])),
    "pointer steps backwards": with_pairs(state(), pointer=np.array([0, 2, 1])),
    "catalogue rows beside items": replace(state(), catalog=pa.table({"item_id": ["a"]})),
    "items with a price not above zero": replace(state(), items={**state().items, "price": np.array([0, 1])}),
    "text vectors not of unit length": replace(state(), text=2 * np.eye(2)),
    "seconds off the instant": replace(state(), time=datetime(2024, 3, 2, tzinfo=UTC)),
}


def critical(suite: str, row: dict[str, Any]) -> set[str]:
    """Names of facts that a critical bound of a suite rejects, by the bounds alone."""
    wrong = set()
    for expected in runner.suite_expectations(suite):
        told, value = expected["kwargs"], row[expected["kwargs"]["column"]]
        low, high = told.get("min_value", -np.inf), told.get("max_value", np.inf)
        if expected["severity"] == "critical" and not low <= value <= high:
            wrong.add(told["column"])
    return wrong


def test_a_sound_feature_state_is_accepted() -> None:
    assert critical("frames_features", frames.state_facts("judged", state(), AS_OF)) == set()


@pytest.mark.parametrize("fact", DAMAGE)
def test_a_damaged_feature_state_is_caught_by_the_fact_that_names_it(fact: str) -> None:
    assert critical("frames_features", frames.state_facts("judged", DAMAGE[fact], AS_OF)) == {fact}


SCHEMA = pa.schema(
    {
        "surface": pa.string(),
        "system": pa.string(),
        "history_id": pa.string(),
        "rank": pa.int64(),
        "item_id": pa.string(),
        "score": pa.float64(),
    }
)


def ranked(tmp_path: Path, rows: list[tuple[Any, ...]], bought: list[tuple[str, str]] = ()) -> list[runner.Check]:  # type: ignore[assignment]
    columns = zip(*rows, strict=True) if rows else [[] for _ in SCHEMA]
    path = tmp_path / "evaluation" / "rankings.parquet"
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(dict(zip(SCHEMA.names, map(list, columns), strict=True)), schema=SCHEMA), path)
    history = tmp_path / "split" / "history"
    write(history / "catalog.parquet", CATALOG, catalog())
    seen = [{"history_id": u, "item_id": i, "event_id": "e", "target": 1.0} for u, i in bought]
    write(history / "interactions.parquet", INTERACTIONS, seen)
    return rankings.checks(path, catalog=history / "catalog.parquet", interactions=history / "interactions.parquet")


def listed(*items: str, surface: str = "recommend", system: str = "fused", user: str = "u") -> list[tuple[Any, ...]]:
    return [(surface, system, user, rank, item, 1.0 / rank) for rank, item in enumerate(items, 1)]


def test_sound_lists_pass_and_short_ones_are_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ranked(tmp_path, [*listed("i1", "i2"), *listed("i2", "i1", user="v"), *listed("i1", system="repeat")])
    validate_rankings.main(["--artifacts", str(tmp_path)])
    assert "share of lists shorter than 10" in capsys.readouterr().out
    assert json.loads((tmp_path / "validation" / "rankings.json").read_text())["success"]


@pytest.mark.parametrize(
    ("fact", "rows"),
    [
        ("lists with gaps in their ranks", listed("i1", "i2", "i3")[::2]),
        ("items repeated in a list", listed("i1", "i1")),
        ("items not in the catalogue", listed("i1", "nowhere")),
        ("scores missing or not finite", [("recommend", "fused", "u", 1, "i1", float("nan"))]),
    ],
)
def test_a_damaged_list_is_caught(tmp_path: Path, fact: str, rows: list[tuple[Any, ...]]) -> None:
    assert critical("rankings", facts(ranked(tmp_path, rows), "rankings")) == {fact}


def test_a_new_items_list_with_an_item_that_the_user_had_is_caught(tmp_path: Path) -> None:
    checks = ranked(tmp_path, listed("i1", surface="recommend_new"), bought=[("u", "i1"), ("v", "i2")])
    assert critical("rankings_fused", facts(checks, "rankings_fused")) == {"items that the user had already"}


def test_a_list_of_members_only_or_none_at_all_is_not_applicable(tmp_path: Path) -> None:
    assert [check.facts is None for check in ranked(tmp_path, listed("i1", system="repeat"))] == [False, True]
    assert [check.facts is None for check in ranked(tmp_path, [])] == [True, True]


def test_without_rankings_the_stage_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"rankings\.parquet does not exist; next: run `dvc repro evaluate`"):
        validate_rankings.main(["--artifacts", str(tmp_path)])


FED_BACK: dict[str, Any] = dict.fromkeys(raw.FEEDBACK, 0.0) | {"rows": 100, "events": 90, "histories": 20}


def test_feedback_is_judged_when_there_is_any_and_damage_stops_the_run(tmp_path: Path) -> None:
    root = canonical(tmp_path, items=catalog(), log=events())

    def judged(**values: Any) -> tuple[str, list[str]]:
        found = raw.checks(root / "canonical", as_of=AS_OF, target="purchase-complete", feedback={**FED_BACK, **values})
        only = [check for check in found if check.suite == "raw_feedback"]
        (outcome,) = runner.validate(only, report=tmp_path / "r.json", docs=tmp_path / "docs")
        return outcome.status, [j.column for j in outcome.failed("warning")]

    assert judged(share_late=None, share_ahead=None, worst_median_delay_hours=None) == ("passed", [])
    warned = ["share of rows of robots", "median hours from event to receipt, worst day"]
    assert judged(share_of_robots=0.2, worst_median_delay_hours=30.0) == ("warned", warned)
    with pytest.raises(ExpectationError, match=r"share of rows of unknown items.*found: 0.4.*byte for byte"):
        judged(share_of_unknown_items=0.4)
    nothing = raw.checks(root / "canonical", as_of=AS_OF, target=None)
    assert {c.suite: c.reason for c in nothing if c.facts is None}["raw_feedback"].startswith("nothing was collected")


def test_impressions_are_judged_by_their_contract(tmp_path: Path) -> None:
    root = canonical(tmp_path, items=catalog(), log=events())
    row = {
        "impression_id": "t",
        "item_id": "i1",
        "shown_at": AS_OF,
        "weight": 0.5,
        "view_at": AS_OF.replace(day=1, month=2),
    }
    write(root / "canonical" / "impressions.parquet", IMPRESSIONS, [row, row])
    found = facts(raw.checks(root / "canonical", as_of=AS_OF, target=None), "raw_impressions")
    assert (found["impressions at or after as_of"], found["weights below one"], found["repeated keys"]) == (2, 2, 1)
    assert (found["share followed by an event from before"], found["share without position"]) == (1.0, 1.0)
