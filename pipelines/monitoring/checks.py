"""The checks, each a function of what the champion has learned, what was collected since, and the thresholds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from statistics import median

import numpy as np

from pipelines.contracts import CATEGORY_PATH, MULTI_CATEGORY
from pipelines.evaluation.metrics import coverage, gini
from pipelines.ids import IdIndex
from pipelines.monitoring import drift
from pipelines.monitoring.check import Check, at_least, at_most, not_applicable
from pipelines.monitoring.exposition import ServiceNumbers
from pipelines.monitoring.traffic import Traffic
from pipelines.params import MonitoringParams

DAY_S = 86_400.0
ROWS_A_GROUP = 10
"""Fewer rows than this for each group, and a stability index measures chance."""

NO_EVENTS = "no events after the champion's as_of were collected; run `fuseline collect`"


@dataclass(frozen=True)
class Learned:
    """What the champion knows of the shop.

    Attributes:
        as_of: the instant that it knows everything before.
        item_ids: of its catalogue.
        popularity: sales (target events) of each item in its last 28 days, else in all its time, ``[n_items]``.
        price: NaN where unknown, ``[n_items]``.
        categories: path of each item, None where unknown.
    """

    as_of: datetime
    item_ids: IdIndex
    popularity: np.ndarray
    price: np.ndarray
    categories: list[str | None]


def examine(
    learned: Learned, traffic: Traffic, service: ServiceNumbers | None, limits: MonitoringParams, *, silent: str
) -> list[Check]:
    """Every check; ``silent`` says why there is no ``service``."""
    return [
        *_drift(learned, traffic, limits),
        _label_rate(traffic, limits),
        *_exposure(learned, traffic, limits),
        *_answers(traffic, service, limits, silent),
        _age(learned, traffic, limits),
    ]


@dataclass(frozen=True)
class _Sales:
    """Rows of the target event type since the champion's ``as_of``.

    Attributes:
        codes: of the items, -1 unknown to the champion, ``[n]`` like ``traffic.sold``.
        weights: rows, ``[n]``.
        limits: thresholds.
        nothing: there were no events at all.
    """

    codes: np.ndarray
    weights: np.ndarray
    limits: MonitoringParams
    nothing: bool

    def index(self, name: str, groups: int, value: float, **details: object) -> Check:
        """A stability index, or that there are too few rows for so many groups."""
        rows, wanted = int(self.weights.sum()), max(self.limits.min_events, ROWS_A_GROUP * groups)
        if rows < wanted:
            return not_applicable(name, self.limits.max_drift, self.too_few(rows, wanted))
        return at_most(name, value, self.limits.max_drift, rows=rows, **details)

    def too_few(self, rows: int, wanted: int) -> str:
        return NO_EVENTS if self.nothing else f"{rows} rows of the target event type, wanted {wanted}"


def _drift(learned: Learned, traffic: Traffic, limits: MonitoringParams) -> Iterator[Check]:
    codes = learned.item_ids.codes([sold.item_id for sold in traffic.sold])
    weights = np.array([sold.rows for sold in traffic.sold], np.float64)
    sales = _Sales(codes, weights, limits, not traffic.days)
    known = codes >= 0
    sold = np.bincount(codes[known], weights[known], minlength=len(learned.item_ids))
    unknown = float(weights[~known].sum())
    shift = drift.popularity_drift(learned.popularity, sold, unknown=unknown)
    share = round(unknown / weights.sum(), 6) if unknown else 0.0
    yield sales.index("item_popularity_drift", drift.GROUPS, shift, unknown_items_share=share)
    yield from _prices(learned, traffic, sales)
    before, now = _mix(learned.categories, learned.popularity), _mix(learned.categories, sold)
    if len(before) < 2:
        yield not_applicable("category_drift", limits.max_drift, "the catalogue has fewer than two categories")
    else:
        yield sales.index("category_drift", len(before), drift.mix_drift(before, now))
    yield _type_drift(traffic, limits)


def _prices(learned: Learned, traffic: Traffic, sales: _Sales) -> Iterator[Check]:
    """Whether people buy dearer or cheaper items, and whether they pay what the champion takes for the price.

    Both at the catalogue's prices for the first: what is paid differs from them by discounts all the time.
    """
    limits, weights = sales.limits, sales.weights
    if np.isnan(learned.price).all():
        for name, limit in (("price_drift", limits.max_drift), ("price_level", limits.max_price_ratio)):
            yield not_applicable(name, limit, "the champion's catalogue has no prices")
        return
    catalogue = np.append(learned.price, np.nan)[sales.codes]
    value = drift.price_drift(learned.price, learned.popularity, catalogue, weights)
    yield sales.index("price_drift", drift.GROUPS, value)
    paid = np.array([np.nan if sold.price is None else sold.price for sold in traffic.sold], np.float64)
    both = (catalogue > 0) & (paid > 0)
    rows = int(weights[both].sum())
    if rows < limits.min_events:
        yield not_applicable("price_level", limits.max_price_ratio, sales.too_few(rows, limits.min_events))
    else:
        ratio = drift.weighted_median(paid[both] / catalogue[both], weights[both])
        yield at_most("price_level", max(ratio, 1 / ratio), limits.max_price_ratio, paid_to_catalogue=round(ratio, 6))


def _mix(categories: list[str | None], weights: np.ndarray) -> Mapping[str, float]:
    """Weight a top category; an item in several counts for the first."""
    found: Counter[str] = Counter()
    for path, weight in zip(categories, weights.tolist(), strict=True):
        if path:
            found[path.split(MULTI_CATEGORY)[0].split(CATEGORY_PATH.strip())[0].strip()] += weight
    return found


def _type_drift(traffic: Traffic, limits: MonitoringParams) -> Check:
    name, wanted = "event_type_drift", limits.min_events
    now, before = sum(traffic.types.values()), sum(traffic.types_before.values())
    if now < wanted:
        return not_applicable(name, limits.max_drift, f"{now} events, wanted {wanted}" if now else NO_EVENTS)
    if before < wanted:
        reason = f"{before} events were collected of days that the champion has learned from, wanted {wanted}"
        return not_applicable(name, limits.max_drift, reason)
    value = drift.mix_drift(traffic.types_before, traffic.types)
    return at_most(name, value, limits.max_drift, before=dict(traffic.types_before), now=dict(traffic.types))


def _label_rate(traffic: Traffic, limits: MonitoringParams) -> Check:
    """The newest whole day against the usual day: its conversions a list, as a share of the median before it.

    The newest day that was collected is still under way, so that the one before it is judged.
    """
    name, floor = "label_rate", 1 - limits.max_label_drop
    days = [day for day in traffic.by_day[:-1] if day.lists >= limits.min_lists]
    if len(days) < 3:
        reason = f"{len(days)} whole days with {limits.min_lists} lists or more, wanted 3"
        return not_applicable(name, floor, reason, bound="at least")
    rates = [day.converted / day.lists for day in days]
    usual = median(rates[:-1])
    if not usual:
        return not_applicable(name, floor, "no list led to a target event on the days before", bound="at least")
    by_day = {day.day: round(rate, 6) for day, rate in zip(days, rates, strict=True)}
    return at_least(name, rates[-1] / usual, floor, by_day=by_day)


def _exposure(learned: Learned, traffic: Traffic, limits: MonitoringParams) -> Iterator[Check]:
    if traffic.lists < limits.min_lists:
        reason = f"{traffic.lists} lists of the newest days were collected, wanted {limits.min_lists}"
        yield not_applicable("coverage", limits.min_coverage, reason, bound="at least")
        yield not_applicable("concentration", limits.max_concentration, reason)
        return
    codes = learned.item_ids.codes(list(traffic.shown))
    times = np.array(list(traffic.shown.values()), np.float64)
    by_item = np.bincount(codes[codes >= 0], times[codes >= 0], minlength=len(learned.item_ids))
    yield at_least("coverage", coverage(by_item), limits.min_coverage, lists=traffic.lists)
    yield at_most("concentration", gini(by_item), limits.max_concentration, lists=traffic.lists)


def _answers(
    traffic: Traffic, service: ServiceNumbers | None, limits: MonitoringParams, silent: str
) -> Iterator[Check]:
    """From the service where it answers, else from the lists it has stored."""
    if service is not None and service.answers:
        source, answers, fallbacks, p99 = "the service's /metrics", service.answers, service.fallbacks, service.p99_ms
    else:
        source, answers, fallbacks, p99 = "collected lists", traffic.lists, dict(traffic.fallbacks), traffic.p99_ms
    if p99 is None:
        yield not_applicable("latency_p99_ms", limits.max_p99_ms, f"{silent}; no list that was collected tells it")
    else:
        yield at_most("latency_p99_ms", p99, limits.max_p99_ms, source=source)
    if answers < limits.min_lists:
        reason = f"{answers} answers in {source}, wanted {limits.min_lists}"
        yield not_applicable("fallback_share", limits.max_fallback_share, reason)
    else:
        share = sum(fallbacks.values()) / answers
        yield at_most("fallback_share", share, limits.max_fallback_share, source=source, by_reason=fallbacks)


def _age(learned: Learned, traffic: Traffic, limits: MonitoringParams) -> Check:
    """Days of events that the champion has not learned from; the shop's time, not the wall clock's."""
    if traffic.newest is None:
        return not_applicable("model_age_days", limits.max_age_days, NO_EVENTS)
    days = max(0.0, (traffic.newest - learned.as_of).total_seconds() / DAY_S)
    return at_most("model_age_days", days, limits.max_age_days, as_of=learned.as_of.isoformat())
