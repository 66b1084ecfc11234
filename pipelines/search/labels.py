"""What people said that a query should find: judgments, or what they did after searching; and how queries are split.

Labels are split by query and never by row: what a query's own labels taught must not be judged on that query.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from pipelines.search.analysis import normalised

FOLDS = 5
"""Into so many parts queries fall; each is judged by a fusion that learned from the other parts."""


def fold_of(query: str, *, folds: int = FOLDS, salt: str = "") -> int:
    """Part of a query, 0 to ``folds - 1``: the same for every way to type it, in every run."""
    return zlib.crc32(f"{salt}{normalised(query)}".encode()) % folds


@dataclass(frozen=True)
class LabelledQuery:
    """A query and what it should find.

    Attributes:
        query: as it was typed, one way of several.
        gains: by item id, what finding it is worth, >= 0.
        days: by item id, days from the instant to the first event; empty for judgments, which have no time.
    """

    query: str
    gains: Mapping[str, float]
    days: Mapping[str, float]

    @property
    def key(self) -> str:
        """What all ways to type it have in common."""
        return normalised(self.query)


def merged(rows: Iterable[tuple[str, str, float, float | None]]) -> list[LabelledQuery]:
    """Rows of (query, item, gain, days or None) by query, in the order of the normalised queries.

    Of several rows of a query and an item the highest gain and the first day count; a query without a gain above 0
    says nothing and is left out.
    """
    gains: dict[str, dict[str, float]] = {}
    days: dict[str, dict[str, float]] = {}
    typed: dict[str, str] = {}
    for query, item, gain, day in rows:
        key = normalised(query)
        typed[key] = min(typed.get(key, query), query)
        of_query = gains.setdefault(key, {})
        of_query[item] = max(gain, of_query.get(item, gain))
        if day is not None:
            first = days.setdefault(key, {})
            first[item] = min(day, first.get(item, day))
    return [
        LabelledQuery(typed[key], found, days.get(key, {}))
        for key, found in sorted(gains.items())
        if key and max(found.values()) > 0
    ]


def read_judgments(path: Path) -> list[LabelledQuery]:
    """Judged queries of a parquet of ``contracts.JUDGMENTS``."""
    table = pq.read_table(path, columns=["query", "item_id", "gain"])
    columns = (table[name].to_pylist() for name in ("query", "item_id", "gain"))
    return merged((query, item, gain, None) for query, item, gain in zip(*columns, strict=True))


def read_searches(path: Path, instant: str, *, start: float) -> list[LabelledQuery]:
    """What was searched within an instant's window and then chosen, of a parquet of ``contracts.SEARCHES``.

    Args:
        path: the parquet.
        instant: name of the instant.
        start: its time in seconds since 1970.
    """
    table = pq.read_table(path, filters=[("instant", "==", instant)])
    times = (time.timestamp() for time in table["first_time"].to_pylist())
    columns = (table[name].to_pylist() for name in ("query", "item_id", "gain"))
    rows = zip(*columns, times, strict=True)
    return merged((query, item, gain, (time - start) / 86_400.0) for query, item, gain, time in rows)


def drawn(labelled: Sequence[LabelledQuery], most: int) -> list[LabelledQuery]:
    """At most so many of the queries, drawn by the hash of what they ask, in their order: the same at every run."""
    if len(labelled) <= most:
        return list(labelled)
    places = sorted(range(len(labelled)), key=lambda place: zlib.crc32(labelled[place].key.encode()))
    return [labelled[place] for place in sorted(places[: max(most, 0)])]


def without(labelled: Sequence[LabelledQuery], others: Iterable[LabelledQuery]) -> list[LabelledQuery]:
    """The queries that are not among the others."""
    taken = {one.key for one in others}
    return [one for one in labelled if one.key not in taken]
