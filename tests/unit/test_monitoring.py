"""What monitoring computes, against hand computations, and what it says when there is nothing to compute."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from pipelines.ids import IdIndex
from pipelines.monitoring import checks, drift, exposition
from pipelines.monitoring.check import Check
from pipelines.monitoring.checks import Learned, examine
from pipelines.monitoring.exposition import ServiceNumbers
from pipelines.monitoring.traffic import ShownDay, Sold, Traffic
from pipelines.params import MonitoringParams

AS_OF = datetime(2010, 12, 1, tzinfo=UTC)
LIMITS = MonitoringParams(min_events=50, min_lists=10)


def test_the_stability_index_is_that_of_a_hand_computation() -> None:
    # (99.5 + .5, 299.5 + .5) of 400 against (199.5 + .5, 199.5 + .5): r = .25, .75; o = .5, .5
    by_hand = (0.5 - 0.25) * math.log(0.5 / 0.25) + (0.5 - 0.75) * math.log(0.5 / 0.75)
    found = drift.stability_index(np.array([99.5, 299.5]), np.array([199.5, 199.5]))
    assert found == pytest.approx(by_hand)
    assert by_hand == pytest.approx(0.27465, abs=1e-5)


def test_equal_shares_are_no_drift_whatever_the_number_of_rows() -> None:
    assert drift.stability_index(np.array([1000, 3000]), np.array([10, 30])) == pytest.approx(0, abs=1e-3)


def test_an_empty_group_gives_a_number() -> None:
    assert 1 < drift.stability_index(np.array([100, 100]), np.array([200, 0])) < 10


def test_items_are_grouped_by_equal_shares_of_sales() -> None:
    groups = drift.popularity_groups(np.array([1, 50, 30, 0, 19, 0], np.float64))
    # best sellers first: 50 starts at 0 %, 30 at 50 %, 19 at 80 %, 1 at 99 %; what did not sell is last
    assert groups.tolist() == [9, 0, 5, 9, 8, 9]


def test_chance_is_no_drift_and_another_taste_is() -> None:
    rng = np.random.default_rng(1)
    popularity = 1000 / np.arange(1, 501)
    share = popularity / popularity.sum()
    usual = np.bincount(rng.choice(500, 2000, p=share), minlength=500)
    turned = np.bincount(rng.choice(500, 2000, p=share[::-1]), minlength=500)
    assert drift.popularity_drift(popularity, usual, unknown=0) < 0.05
    assert drift.popularity_drift(popularity, turned, unknown=0) > 1
    assert drift.popularity_drift(popularity, usual, unknown=1000) > 0.25


def test_doubled_prices_are_a_drift_and_unknown_ones_are_left_out() -> None:
    prices, weights = np.array([*range(1, 101), np.nan]), np.ones(101)
    assert drift.price_drift(prices, weights, prices, weights) == pytest.approx(0)
    assert drift.price_drift(prices, weights, 2 * prices, weights) > 0.25


def test_half_of_the_weight_lies_up_to_the_weighted_median() -> None:
    assert drift.weighted_median(np.array([3.0, 1.0, 2.0]), np.array([1.0, 1.0, 5.0])) == 2
    assert drift.weighted_median(np.array([3.0, 1.0]), np.array([10.0, 1.0])) == 3


PAGE = """
# HELP fuseline_request_duration_seconds Time
# TYPE fuseline_request_duration_seconds histogram
fuseline_request_duration_seconds_bucket{le="0.001",route="/v1/recommend",status="200"} 50.0
fuseline_request_duration_seconds_bucket{le="0.01",route="/v1/recommend",status="200"} 90.0
fuseline_request_duration_seconds_bucket{le="0.02",route="/v1/recommend",status="200"} 100.0
fuseline_request_duration_seconds_bucket{le="+Inf",route="/v1/recommend",status="200"} 100.0
fuseline_request_duration_seconds_count{route="/v1/recommend",status="200"} 100.0
fuseline_request_duration_seconds_count{route="/v1/recommend",status="503"} 3.0
fuseline_request_duration_seconds_count{route="/v1/items/{item_id}/similar",status="200"} 20.0
fuseline_request_duration_seconds_count{route="/v1/events",status="202"} 70.0
fuseline_fallbacks_total{reason="unknown_user",route="/v1/recommend"} 25.0
fuseline_fallbacks_total{reason="unknown_user",route="/v1/rank"} 9.0
fuseline_bundle_info{bundle_id="x",pid="7",version="2"} 1.0
fuseline_bundle_info{bundle_id="y",pid="7",version="1"} 0.0
"""


def test_a_page_of_metrics_is_read() -> None:
    found = exposition.read(PAGE)
    # 99 of 100 lie in the bucket from 10 to 20 ms, as number 9 of its 10
    assert found == ServiceNumbers(120, {"unknown_user": 25}, pytest.approx(19.0), 3, ("2",))


def test_an_empty_page_says_nothing() -> None:
    assert exposition.read("") == ServiceNumbers(0)


def learned(**other: Any) -> Learned:
    about: dict[str, Any] = {
        "as_of": AS_OF,
        "item_ids": IdIndex.of(f"i{n:02d}" for n in range(40)),
        "popularity": np.arange(40, 0, -1).astype(np.float64),
        "price": np.arange(1, 41).astype(np.float64),
        "categories": ["Garden > Spades", "Kitchen > Cups|Gifts"] * 20,
    }
    return Learned(**(about | other))


def usual_traffic(**other: Any) -> Traffic:
    about: dict[str, Any] = {
        "days": ["2010-12-01"],
        "newest": AS_OF + timedelta(days=3),
        "sold": [Sold(f"i{n:02d}", float(n + 1), 40 - n) for n in range(40)],
        "types": {"purchase-complete": 80, "detail-page-view": 800},
        "types_before": {"purchase-complete": 100, "detail-page-view": 1000},
        "shown": {f"i{n:02d}": 5 for n in range(20)},
        "by_day": [ShownDay(f"2010-12-0{day}", 100, 10) for day in range(1, 6)],
        "fallbacks": {"unknown_user": 100},
        "p99_ms": 12.0,
    }
    return Traffic(**(about | other))


def of(found: list[Check]) -> dict[str, Check]:
    return {one.name: one for one in found}


def look(traffic: Traffic, service: ServiceNumbers | None = None, **other: Any) -> dict[str, Check]:
    return of(examine(learned(**other), traffic, service, LIMITS, silent="nobody asked"))


def test_the_usual_days_raise_no_alert() -> None:
    found = look(usual_traffic())
    assert {name: one.passed for name, one in found.items()} == dict.fromkeys(found, True)
    assert found["coverage"].observed == 0.5
    assert found["concentration"].observed == 0.5  # 20 of 40 items share all places alike: 1 - 20/40
    assert found["fallback_share"].observed == 0.2
    assert found["model_age_days"].observed == 3


def test_without_any_traffic_every_check_says_why_it_does_not_apply() -> None:
    found = look(Traffic())
    assert {one.passed for one in found.values()} == {None}
    assert all(one.not_applicable for one in found.values())
    assert found["item_popularity_drift"].not_applicable == checks.NO_EVENTS
    assert found["latency_p99_ms"].not_applicable == "nobody asked; no list that was collected tells it"


DAMAGES = {
    "item_popularity_drift": {"sold": [Sold(f"i{n:02d}", None, n + 1) for n in range(40)]},
    "price_drift": {"sold": [Sold(f"i{n:02d}", None, n * n) for n in range(40)]},
    "price_level": {"sold": [Sold(f"i{n:02d}", 100.0 * (n + 1), 40 - n) for n in range(40)]},
    "category_drift": {"sold": [Sold(f"i{n:02d}", None, 40 - n) for n in range(0, 40, 2)]},
    "event_type_drift": {"types": {"purchase-complete": 500, "detail-page-view": 500}},
    "label_rate": {"by_day": [ShownDay(f"2010-12-0{d}", 100, 2 if d == 4 else 10) for d in range(1, 6)]},
    "coverage": {"shown": {"i00": 500}},
    "concentration": {"shown": {"i00": 500}},
    "fallback_share": {"fallbacks": {"no_members": 400}},
    "latency_p99_ms": {"p99_ms": 400.0},
    "model_age_days": {"newest": AS_OF + timedelta(days=15)},
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damage_is_told_by_its_check(name: str) -> None:
    limits = LIMITS.model_copy(update={"max_concentration": 0.9})
    found = of(examine(learned(), usual_traffic(**DAMAGES[name]), None, limits, silent=""))
    assert found[name].passed is False
    assert found[name].alert is not None
    assert found[name].alert.startswith(f"{name} is ")


def test_the_day_under_way_is_not_judged() -> None:
    days = [ShownDay(f"2010-12-0{d}", 100, 0 if d == 5 else 10) for d in range(1, 6)]
    assert look(usual_traffic(by_day=days))["label_rate"].observed == 1


def test_numbers_of_a_running_service_go_before_what_was_collected() -> None:
    found = look(usual_traffic(), ServiceNumbers(1000, {"no_members": 900}, 300.0))
    assert (found["fallback_share"].observed, found["latency_p99_ms"].observed) == (0.9, 300)
    assert found["fallback_share"].details["by_reason"] == {"no_members": 900}


def test_items_and_prices_that_the_champion_does_not_know_are_counted() -> None:
    new = [*usual_traffic().sold, Sold("new", None, 820)]
    found = look(usual_traffic(sold=new))["item_popularity_drift"]
    assert found.details["unknown_items_share"] == 0.5
    assert found.passed is False
    priceless = look(usual_traffic(), price=np.full(40, np.nan))["price_drift"]
    assert priceless.not_applicable == "the champion's catalogue has no prices"
