"""How good the lists of a replay were: per customer and day, compared on the same customers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.contracts import Surface
from pipelines.evaluation import bootstrap, metrics

RETRAINED, FROZEN, POPULARITY = "retrained", "frozen", "popularity"
SYSTEMS = (RETRAINED, FROZEN, POPULARITY)
SURFACES = (Surface.RECOMMEND, Surface.RECOMMEND_NEW)
SHOWN = ("ndcg@10", "recall@20", "hit_rate@10")


@dataclass(frozen=True)
class Visit:
    """A customer's day on one surface: the list of each system, and what was bought.

    ``relevant`` is never empty; on ``recommend_new`` it holds what the customer had not bought before.
    ``versions`` names the model that answered, by system.
    """

    day: str
    customer: str
    surface: str
    relevant: frozenset[str]
    lists: Mapping[str, tuple[str, ...]]
    versions: Mapping[str, str]

    def as_json(self) -> dict[str, Any]:
        """A JSON-able value."""
        lists = {system: list(items) for system, items in self.lists.items()}
        return vars(self) | {"relevant": sorted(self.relevant), "lists": lists, "versions": dict(self.versions)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Visit:
        """Inverse of :meth:`as_json`."""
        lists = {system: tuple(items) for system, items in value["lists"].items()}
        return cls(**{**value, "relevant": frozenset(value["relevant"]), "lists": lists})


def scores(visits: Sequence[Visit], system: str) -> dict[str, np.ndarray]:
    """Every metric of ``metrics.PER_USER`` for each visit, float64 ``[visits]``."""
    hits = np.zeros((len(visits), metrics.LIST_LENGTH), np.bool_)
    for row, visit in enumerate(visits):
        shown = visit.lists[system][: metrics.LIST_LENGTH]
        hits[row, : len(shown)] = [item in visit.relevant for item in shown]
    return metrics.per_user(hits, np.array([len(visit.relevant) for visit in visits], np.int64))


def by_customer(visits: Sequence[Visit], values: np.ndarray) -> np.ndarray:
    """Mean over the visits of each customer, customers sorted, float64 ``[customers]``."""
    names, place = np.unique([visit.customer for visit in visits], return_inverse=True)
    return np.bincount(place, weights=values, minlength=len(names)) / np.bincount(place, minlength=len(names))


def summary(visits: Iterable[Visit], *, seed: int, draws: int = bootstrap.DRAWS) -> dict[str, Any]:
    """Means with intervals by surface and system, paired differences, and the course over the days.

    Customers are drawn, not visits, because the days of one customer are alike.
    """
    visits = list(visits)
    found: dict[str, Any] = {}
    for surface in SURFACES:
        mine = [visit for visit in visits if visit.surface == surface]
        if not mine:
            found[str(surface)] = {"not_applicable": "nobody bought anything that counts"}
            continue
        scored = {system: scores(mine, system) for system in SYSTEMS}
        found[str(surface)] = {
            "visits": len(mine),
            "customers": len({visit.customer for visit in mine}),
            "systems": {system: _systems(mine, scored[system], seed, draws) for system in SYSTEMS},
            "differences": {
                other: _differences(mine, scored[RETRAINED], scored[other], seed, draws) for other in SYSTEMS[1:]
            },
            "days": _days(mine, scored),
        }
    return found


def _systems(visits: Sequence[Visit], scored: Mapping[str, np.ndarray], seed: int, draws: int) -> dict[str, Any]:
    columns = np.stack([by_customer(visits, scored[metric]) for metric in SHOWN], axis=1)
    spans = bootstrap.intervals(columns, seed=seed, draws=draws)
    return {metric: span.as_json() for metric, span in zip(SHOWN, spans, strict=True) if span}


def _differences(
    visits: Sequence[Visit], one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], seed: int, draws: int
) -> dict[str, Any]:
    columns = np.stack([by_customer(visits, one[metric] - other[metric]) for metric in SHOWN], axis=1)
    spans = bootstrap.intervals(columns, seed=seed, draws=draws)
    return {metric: span.as_difference() for metric, span in zip(SHOWN, spans, strict=True) if span}


def _days(visits: Sequence[Visit], scored: Mapping[str, Mapping[str, np.ndarray]]) -> list[dict[str, Any]]:
    """Mean nDCG@10 over the visits of each day, and the version that ``retrained`` answered with."""
    days = np.array([visit.day for visit in visits])
    course = []
    for day in np.unique(days).tolist():
        rows = np.flatnonzero(days == day)
        means = {system: round(float(scored[system]["ndcg@10"][rows].mean()), 6) for system in SYSTEMS}
        versions = sorted({visits[row].versions[RETRAINED] for row in rows.tolist()})
        course.append({"day": day, "visits": len(rows), "versions": versions, "ndcg@10": means})
    return course
