"""Quality by kind of user, by kind of item, and by kind of query.

Slices of users keep a user's whole list and all that is relevant. Slices of items keep the list as it
is and call only the items of the slice relevant; the ideal list holds only those, and users without one
are left out. So numbers of two item slices are not parts of the whole, and only compare systems.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipelines.bundle import Bundle
from pipelines.contracts import FUSED
from pipelines.evaluation import bootstrap
from pipelines.evaluation.protocol import PLAIN, Lister, SurfaceEvaluation, scored
from pipelines.evaluation.targets import Audience
from pipelines.features.state import FeatureState
from pipelines.search.analysis import Analyzer
from pipelines.search.slips import misspelt

SLICED = ("ndcg@10", "recall@20", "hit_rate@10")
LENGTHS = (("1", 1, 1), ("2-5", 2, 5), ("6-20", 6, 20), ("21+", 21, None))
"""History lengths in distinct items: name, least, most."""
RECENT = "events_last28"
QUERY_WORDS = (("1 word", 1, 1), ("2 words", 2, 2), ("3-4 words", 3, 4), ("5 words or more", 5, None))
"""Lengths of queries: name, least, most."""
NEW_DAYS = 28.0
"""An item is new when its first event lies at most so many days before the instant."""


@dataclass(frozen=True)
class Slice:
    """Per-user numbers of every system on a part of the users, or of what is relevant to them.

    ``rows``: places of the users in the audience of the surface; ``per_user[system]`` ``[rows, SLICED]``.
    """

    slicing: str
    name: str
    users: tuple[str, ...]
    per_user: dict[str, np.ndarray]


def slices(result: SurfaceEvaluation, features: FeatureState) -> Iterator[Slice]:
    """Every slice of a surface that has at least one user."""
    for slicing, name, rows in row_slices(result.audience, features):
        if len(rows):
            yield _rows_of(result, slicing, name, rows)
    if result.audience.typed:
        return
    for slicing, name, wanted in item_slices(features):
        rows, part = restrict_to_items(result.audience, wanted)
        if len(rows):
            yield Slice(slicing, name, part.users, _measured(result, part, rows))


def slips(bundle: Bundle, result: SurfaceEvaluation, *, seed: int, lister: Lister = PLAIN) -> Iterator[Slice]:
    """Queries with a long word, as they were typed, and with one typing error in such a word."""
    draw = random.Random(seed)  # noqa: S311 - a measurement, not a secret
    typed = tuple(misspelt(query, draw) for query in result.audience.typed)
    rows = np.flatnonzero([one != other for one, other in zip(typed, result.audience.typed, strict=True)])
    if not len(rows):
        return
    wrong = replace(result.audience, typed=typed).at(rows)
    lists = {FUSED: lister.fused(bundle, wrong)}
    lists |= {name: lister.of_member(bundle, name, wrong) for name in result.members}
    found = {system: scored(one.codes, wrong, result.n_items) for system, one in lists.items()}
    yield _rows_of(result, "typing", "as it was typed", rows)
    numbers = {system: np.column_stack([values[name] for name in SLICED]) for system, values in found.items()}
    yield Slice("typing", "with one slip", wrong.users, numbers)


def _rows_of(result: SurfaceEvaluation, slicing: str, name: str, rows: np.ndarray) -> Slice:
    numbers = {system: result.matrix(system, SLICED)[rows] for system in result.lists}
    return Slice(slicing, name, result.audience.at(rows).users, numbers)


def summarise(found: list[Slice], *, seed: int, draws: int) -> dict[str, Any]:
    """``{slicing: {slice: {"users", system: {metric: interval}}}}``."""
    summary: dict[str, Any] = {}
    for part in found:
        columns = np.hstack(list(part.per_user.values()))
        spans = [span and span.as_json() for span in bootstrap.intervals(columns, seed=seed, draws=draws)]
        width = len(SLICED)
        systems = {
            system: dict(zip(SLICED, spans[place * width : (place + 1) * width], strict=True))
            for place, system in enumerate(part.per_user)
        }
        summary.setdefault(part.slicing, {})[part.name] = {"users": len(part.users), "systems": systems}
    return summary


def row_slices(audience: Audience, features: FeatureState) -> Iterator[tuple[str, str, np.ndarray]]:
    """Slicing, slice and places of its users, on a search of its queries."""
    yield from query_slices(audience, features) if audience.typed else user_slices(audience)


def query_slices(audience: Audience, features: FeatureState) -> Iterator[tuple[str, str, np.ndarray]]:
    """Slicing, slice and places of its queries: by length, by whether a title has all words, by kind of label."""
    words = np.array([len(query.split()) for query in audience.typed])
    for name, least, most in QUERY_WORDS:
        yield "query_length", name, np.flatnonzero((words >= least) & (words <= (np.inf if most is None else most)))
    exact = _in_one_title(audience.typed, features)
    yield "match", "a title has every word", np.flatnonzero(exact)
    yield "match", "no title has every word", np.flatnonzero(~exact)
    judged = np.array([bool(np.isnan(days).all()) for days in audience.days], bool)
    if judged.any() and not judged.all():
        yield "labels", "judged", np.flatnonzero(judged)
        yield "labels", "chosen after a search", np.flatnonzero(~judged)


def _in_one_title(typed: tuple[str, ...], features: FeatureState) -> np.ndarray:
    """Whether some title has all terms of each query, bool ``[queries]``."""
    analyzer = Analyzer(features.language)
    asked = [set(analyzer.terms(query)) for query in typed]
    wanted = set().union(*asked)
    having: dict[str, set[int]] = {term: set() for term in wanted}
    for code, title in enumerate(features.catalog["title"].to_pylist()):
        for term in wanted.intersection(analyzer.terms(title or "")):
            having[term].add(code)
    found = [bool(terms) and bool(set.intersection(*(having[term] for term in terms))) for terms in asked]
    return np.array(found, bool)


def user_slices(audience: Audience) -> Iterator[tuple[str, str, np.ndarray]]:
    """Slicing, slice and places of its users."""
    length = audience.history_length
    for name, least, most in LENGTHS:
        inside = (length >= least) & (length <= (np.inf if most is None else most))
        yield "history_length", name, np.flatnonzero(inside)
    active = np.array([history.user[RECENT] > 0 for history in audience.histories], bool)
    yield "recent_activity", "last 28 days", np.flatnonzero(active)
    yield "recent_activity", "none in 28 days", np.flatnonzero(~active)


def item_slices(features: FeatureState) -> Iterator[tuple[str, str, np.ndarray]]:
    """Slicing, slice and its items, bool ``[n_items]``.

    ``head`` are the most bought items that together make a third of all targets, ``mid`` the next
    third, ``tail`` the rest, never bought ones included.
    """
    bought = np.asarray(features.items["bought"], np.float64)
    order = np.lexsort((np.arange(len(bought)), -bought))
    before = np.cumsum(bought[order]) - bought[order]
    third = np.empty(len(bought), np.int64)
    third[order] = np.minimum(3 * before / max(bought.sum(), 1.0), 2).astype(np.int64)
    third[bought == 0] = 2
    for place, name in enumerate(("head", "mid", "tail")):
        yield "item_popularity", name, third == place
    age = np.asarray(features.items["first_age"], np.float64)
    new = (age <= NEW_DAYS) & (bought > 0)
    yield "item_age", "new in 28 days", new
    yield "item_age", "older", ~new


def restrict_to_items(audience: Audience, wanted: np.ndarray) -> tuple[np.ndarray, Audience]:
    """The audience with only these items relevant; items outside the catalogue are in no slice."""
    return audience.restricted([(codes >= 0) & wanted[np.maximum(codes, 0)] for codes in audience.relevant])


def _measured(result: SurfaceEvaluation, part: Audience, rows: np.ndarray) -> dict[str, np.ndarray]:
    numbers = {}
    for system, lists in result.lists.items():
        found = scored(lists.codes[rows], part, result.n_items)
        numbers[system] = np.column_stack([found[name] for name in SLICED])
    return numbers
