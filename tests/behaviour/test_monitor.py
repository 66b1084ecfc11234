"""A look at a champion and at what the service stored: through store, collection, checks, report and webhook."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from benchmarks.made_bundle import AS_OF, make
from pipelines import champion
from pipelines.actions.collect import collect
from pipelines.actions.monitor import Report, latest, monitor
from pipelines.champion import Pointer
from pipelines.errors import PromotionRefused
from pipelines.params import MonitoringParams
from serving.event_schemas import rows
from serving.event_store import EventStore, Impression
from serving.history import microseconds

LIMITS = MonitoringParams(min_events=40, min_lists=10, min_coverage=0.2)
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DAYS = 5
LISTS_A_DAY = 20


def event(number: int, *, day: int, kind: str = "purchase-complete", **fields: Any) -> list[dict[str, Any]]:
    time = AS_OF + timedelta(days=day, minutes=number)
    raw = {"event_id": f"{kind}-{day}-{number}", "event_type": kind, "event_time": time.isoformat(), **fields}
    return rows(raw, received_at=1)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    bundle = make(tmp_path / "var" / "bundles" / "b1" / "bundle")
    champion.write(tmp_path, Pointer(1, bundle, None, "b1", None, "r"), record={})
    return tmp_path


def served(home: Path, *, converted: int = 4, shown: int = 6) -> None:
    """Lists of the days after ``as_of``, some of them cited by a purchase, and collected."""
    url = f"sqlite:///{home / 'var' / 'events' / 'events.db'}"
    store = EventStore.open(url)
    posts = []
    for day in range(DAYS):
        for n in range(LISTS_A_DAY):
            token, at = f"t-{day}-{n}", microseconds(AS_OF + timedelta(days=day, minutes=n))
            items = [f"i{(shown * n + k) % 60:04d}" for k in range(shown)]
            fallback = "unknown_user" if n % 4 == 0 else None
            store.show(
                Impression(
                    token,
                    at,
                    "recommend",
                    "home",
                    "1",
                    "b1",
                    "u",
                    None,
                    "u",
                    1,
                    items,
                    [1.0] * shown,
                    fallback,
                    n + 1.0,
                )
            )
            cites = {"attribution_token": token} if n < converted else {}
            posts.append(event(n, day=day, item_id=items[0], user_id="u", price=2.5, **cites))
    store.post(posts).result(30)
    store.close()
    collect(home=home, url=url, now=AS_OF, until=AS_OF + timedelta(days=DAYS))


def look(home: Path, **options: Any) -> Report:
    return monitor(home=home, limits=options.pop("limits", LIMITS), at=AT, **options)


def checks(report: Report) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in report.as_json()["checks"]}


def test_without_a_champion_it_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(PromotionRefused, match="no champion to look at; next: run `dvc repro` and `fuseline promote`"):
        look(tmp_path)


def test_before_anything_was_collected_nothing_applies_and_nobody_is_alarmed(home: Path) -> None:
    report = look(home)
    assert report.alerts == []
    assert {one["passed"] for one in checks(report).values()} == {None}


def test_what_the_service_stored_is_counted(home: Path) -> None:
    served(home)
    report = look(home)
    found = checks(report)
    assert report.window["days"] == [f"2010-12-0{day}" for day in range(1, 6)]
    assert report.window["lists"] == DAYS * LISTS_A_DAY
    assert found["label_rate"]["details"]["by_day"] == {f"2010-12-0{day}": 0.2 for day in range(1, 5)}
    assert found["label_rate"]["observed"] == 1
    assert found["fallback_share"]["observed"] == 0.25
    assert found["fallback_share"]["details"] == {"source": "collected lists", "by_reason": {"unknown_user": 25}}
    assert 19 < found["latency_p99_ms"]["observed"] <= 20
    assert found["coverage"]["observed"] == 1
    assert found["model_age_days"]["observed"] == pytest.approx(4 + 19 / 1440, abs=1e-5)
    assert found["item_popularity_drift"]["details"]["rows"] == DAYS * LISTS_A_DAY


def test_the_report_lies_under_its_time_and_as_the_latest(home: Path) -> None:
    report = look(home)
    assert report.file == home / "var" / "monitoring" / "2026-01-02T030405.000000Z.json"
    assert json.loads(report.file.read_text()) == latest(home) == report.as_json()


def test_alerts_go_to_the_log_and_to_the_webhook(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    served(home, shown=1)
    told: list[tuple[str, dict[str, Any]]] = []
    limits = LIMITS.model_copy(update={"min_coverage": 0.9})
    report = look(
        home,
        limits=limits,
        webhook="http://hook.example/x",
        post=lambda url, body: told.append((url, json.loads(body))),
    )
    assert "coverage" in [alert["check"] for alert in report.alerts]
    assert "alert: coverage is 0.3333, wanted at least 0.9" in caplog.text
    ((url, message),) = told
    assert url == "http://hook.example/x"
    assert message["alerts"] == report.alerts
    assert message["champion"]["version"] == 1


def test_a_webhook_that_fails_is_a_line_in_the_log(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    served(home, shown=1)
    limits = LIMITS.model_copy(update={"min_coverage": 0.9})

    def down(url: str, body: bytes) -> None:
        raise OSError("connection refused")

    assert look(home, limits=limits, webhook="https://hook.example", post=down).alerts
    assert "the webhook was not told of" in caplog.text
    look(home, limits=limits, webhook="file:///etc/passwd", post=down)
    assert "is no http or https URL" in caplog.text


def test_a_service_is_asked_where_it_answers_and_passed_by_where_it_does_not(home: Path) -> None:
    served(home)
    page = (
        'fuseline_request_duration_seconds_count{route="/v1/recommend",status="200"} 50.0\n'
        'fuseline_request_duration_seconds_bucket{le="0.01",route="/v1/recommend",status="200"} 50.0\n'
    )
    asked: list[str] = []
    found = checks(look(home, service_url="http://127.0.0.1:3000/", get=lambda url: asked.append(url) or page))  # type: ignore[func-returns-value]
    assert asked == ["http://127.0.0.1:3000/metrics"]
    assert found["fallback_share"]["observed"] == 0
    assert found["latency_p99_ms"]["details"]["source"] == "the service's /metrics"

    def down(url: str) -> str:
        raise OSError("connection refused")

    assert checks(look(home, service_url="http://127.0.0.1:3000", get=down))["fallback_share"]["observed"] == 0.25


def test_days_that_the_champion_has_learned_from_are_no_news(home: Path) -> None:
    url = f"sqlite:///{home / 'var' / 'events' / 'events.db'}"
    store = EventStore.open(url)
    views = [event(n, day=-2, kind="detail-page-view", item_id="i0001", user_id="u") for n in range(60)]
    sales = [event(n, day=1, item_id="i0001", user_id="u") for n in range(60)]
    store.post([*views, *sales]).result(30)
    store.close()
    collect(home=home, url=url, now=AS_OF, until=AS_OF + timedelta(days=3))
    found = checks(look(home))
    assert found["event_type_drift"]["details"] == {
        "before": {"detail-page-view": 60},
        "now": {"purchase-complete": 60},
    }
    assert found["event_type_drift"]["passed"] is False
    assert found["coverage"]["not_applicable"] == "0 lists of the newest days were collected, wanted 10"
