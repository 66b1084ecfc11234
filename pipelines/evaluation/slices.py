"""Quality by kind of user and by kind of item.

Slices of users keep a user's whole list and all that is relevant. Slices of items keep the list as it
is and call only the items of the slice relevant; the ideal list holds only those, and users without one
are left out. So numbers of two item slices are not parts of the whole, and only compare systems.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.evaluation import bootstrap, metrics
from pipelines.evaluation.protocol import SurfaceEvaluation
from pipelines.evaluation.targets import Audience
from pipelines.features.state import FeatureState

SLICED = ("ndcg@10", "recall@20", "hit_rate@10")
LENGTHS = (("1", 1, 1), ("2-5", 2, 5), ("6-20", 6, 20), ("21+", 21, None))
"""History lengths in distinct items: name, least, most."""
RECENT = "events_last28"
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
    for slicing, name, rows in user_slices(result.audience):
        if len(rows):
            numbers = {system: result.matrix(system, SLICED)[rows] for system in result.lists}
            yield Slice(slicing, name, result.audience.at(rows).users, numbers)
    for slicing, name, wanted in item_slices(features):
        rows, part = restrict_to_items(result.audience, wanted)
        if len(rows):
            yield Slice(slicing, name, part.users, _measured(result, part, rows))


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
        hits = metrics.hit_matrix(lists.codes[rows], list(part.relevant), result.n_items)
        found = metrics.per_user(hits, part.n_relevant)
        numbers[system] = np.column_stack([found[name] for name in SLICED])
    return numbers
