"""How lists change from one instant to the next, and how quality runs through the weeks of a window.

Both give the gate a scale: the rolling windows show what is usual, so that a served bundle whose lists
moved further, or a week whose targets fit nothing, can be told from chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import numpy as np

from pipelines.bundle import Bundle
from pipelines.contracts import FUSED, Surface
from pipelines.evaluation.bootstrap import DIGITS
from pipelines.evaluation.kept_lists import Lists
from pipelines.evaluation.ledger import overlap
from pipelines.evaluation.protocol import CUT, PLAIN, Lister, SurfaceEvaluation, scored
from pipelines.evaluation.targets import Audience, Targets, audience, sample
from pipelines.ids import IdIndex
from pipelines.splitting import Instant, Instants

MOST_USERS = 250
"""Users whose lists are followed through the instants, and users of each window whose weeks are read."""
PERSISTENCE = 0.9
"""Chance that a reader goes on to the next place, parameter p of rank-biased overlap."""
WEEKLY = ("ndcg@10", "recall@20", "hit_rate@10")
WEEK_DAYS = 7.0


@dataclass(frozen=True)
class Followed:
    """Lists of the followed users and queries at one instant; users without a history by then have none.

    By surface: ``codes`` int64 ``[users, 10]`` in the codes of ``items``, ``known`` bool ``[users]``.
    """

    instant: Instant
    items: IdIndex
    known: dict[str, np.ndarray]
    codes: dict[str, np.ndarray]


def stability(
    instants: Instants,
    load: Callable[[str], Bundle],
    judged: Mapping[str, SurfaceEvaluation],
    targets: Mapping[str, Targets],
    *,
    seed: int,
    lister: Lister = PLAIN,
) -> dict[str, Any]:
    """Everything that is read from several instants.

    Args:
        instants: the windows, the judged instant and the served one.
        load: the bundle at an instant by its name: members of that instant, the shipped fusion.
        judged: what was found on the holdout, by surface.
        targets: targets of the windows by name of the instant.
        seed: for the samples of users.
        lister: makes the lists.

    Returns:
        ``steps``: one record per surface and step between neighbouring instants, with days, mean,
        standard deviation over users and number of users of overlap@10 and rank-biased overlap;
        ``weeks``: one record per surface, instant and week of its window, with the same of ``WEEKLY``.
    """
    recommending = [surface for surface in judged if surface != Surface.SEARCH]
    queries = _queries(judged[Surface.SEARCH].audience, seed=seed) if Surface.SEARCH in judged else None
    users: list[str] | None = None
    followed: list[Followed] = []
    weeks: list[dict[str, Any]] = []
    for instant in (*reversed(instants.before_holdout), instants.served):
        bundle = load(instant.name)
        users = users or _users(bundle, seed=seed)
        groups = {surface: _users_then(bundle, surface, users) for surface in recommending}
        if queries is not None:
            groups[Surface.SEARCH] = np.ones(len(queries), np.bool_), queries
        followed.append(_follow(bundle, instant, groups, lister))
        if instant.name in targets:
            weeks += _window_weeks(bundle, instant, targets[instant.name], recommending, seed=seed, lister=lister)
    for result in judged.values():
        if instants.judged and any(np.isfinite(days).any() for days in result.audience.days):
            weeks += weekly(result.audience, result.lists[FUSED], instants.judged, n_items=result.n_items)
    followed.sort(key=lambda one: one.instant.time)
    steps = [record for before, after in pairwise(followed) for record in _step(before, after)]
    return {"steps": steps, "weeks": sorted(weeks, key=lambda w: (w["surface"], w["start"], w["instant"]))}


def weekly(group: Audience, lists: Lists, instant: Instant, *, n_items: int) -> Iterator[dict[str, Any]]:
    """Quality by week of the window: only the targets of that week are relevant.

    A pair counts in the week of its first event. ``days`` is the length of the last, shorter week.
    """
    length = (instant.until - instant.time).total_seconds() / 86_400
    for week in range(math.ceil(length / WEEK_DAYS)):
        inside = [(days >= week * WEEK_DAYS) & (days < (week + 1) * WEEK_DAYS) for days in group.days]
        rows, part = group.restricted(inside)
        found = scored(lists.codes[rows], part, n_items)
        yield {
            "surface": group.surface,
            "instant": instant.name,
            "week": week + 1,
            "start": (instant.time + timedelta(days=week * WEEK_DAYS)).date().isoformat(),
            "days": round(min(WEEK_DAYS, length - week * WEEK_DAYS), DIGITS),
            **{name: describe(found[name]) for name in WEEKLY},
        }


def rank_biased_overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Extrapolated rank-biased overlap, float64 ``[users]`` in [0, 1], 1 for equal lists (Webber et al. 2010, eq. 32).

    ``A_k p^k + (1 − p)/p · Σ_{d ≤ k} A_d p^d`` with A_d the overlap of the first d places. Both
    ``[users, k]`` in codes of the same catalogue, -1 for an empty place.
    """
    k = one.shape[1]
    agreement = np.column_stack([overlap(one[:, :d], other[:, :d]) for d in range(1, k + 1)])
    decay = PERSISTENCE ** np.arange(1, k + 1)
    found: np.ndarray = agreement[:, -1] * decay[-1] + (1 - PERSISTENCE) / PERSISTENCE * (agreement @ decay)
    return found


def describe(values: np.ndarray) -> dict[str, Any]:
    """Mean, standard deviation over users (None below two) and their number; mean None without any."""
    values = values[~np.isnan(values)]
    n = len(values)
    return {
        "mean": round(float(values.mean()), DIGITS) if n else None,
        "sd": round(float(values.std(ddof=1)), DIGITS) if n > 1 else None,
        "n": n,
    }


def _users(bundle: Bundle, *, seed: int) -> list[str]:
    """A sample of users with the target; of those, the ones known at an earlier instant are one of its users."""
    known = bundle.features.user_ids.ids(np.flatnonzero(np.asarray(bundle.features.users["bought"]) > 0))
    return [known[row] for row in sample(known, MOST_USERS, seed=seed)]


def _queries(group: Audience, *, seed: int) -> Audience:
    """A sample of the judged queries; what is right for them is not looked at."""
    rows = sample(group.users, MOST_USERS, seed=seed)
    nothing = tuple(np.zeros(0) for _ in rows)
    return replace(group.at(rows), relevant=nothing, days=nothing, gains=nothing)


def _users_then(bundle: Bundle, surface: str, users: Sequence[str]) -> tuple[np.ndarray, Audience]:
    """Which of the users had the target by then, and these users."""
    codes = bundle.features.user_ids.codes(users)
    bought = np.asarray(bundle.features.users["bought"])
    known = np.array([code >= 0 and bought[code] > 0 for code in codes], bool)
    rows = np.flatnonzero(known)
    nothing = tuple(np.zeros(0) for _ in rows)
    return known, Audience(
        surface=surface,
        users=tuple(users[row] for row in rows.tolist()),
        histories=tuple(bundle.features.history(int(codes[row])) for row in rows),
        relevant=nothing,
        days=nothing,
    )


def _follow(
    bundle: Bundle, instant: Instant, groups: Mapping[str, tuple[np.ndarray, Audience]], lister: Lister
) -> Followed:
    found = {}
    for surface, (known, group) in groups.items():
        found[surface] = np.full((len(known), CUT), -1, np.int64)
        lists = lister.fused(bundle, group, f"at {instant.name}")
        found[surface][np.flatnonzero(known)] = lists.codes[:, :CUT]
    return Followed(instant, bundle.features.item_ids, {name: known for name, (known, _) in groups.items()}, found)


def _step(before: Followed, after: Followed) -> Iterator[dict[str, Any]]:
    for surface in before.codes:
        both = before.known[surface] & after.known[surface]
        old, new = _translated(before, after, before.codes[surface][both]), after.codes[surface][both]
        yield {
            "surface": surface,
            "from": before.instant.name,
            "to": after.instant.name,
            "days": round((after.instant.time - before.instant.time).total_seconds() / 86_400, DIGITS),
            "overlap@10": describe(overlap(old, new)),
            "rbo@10": describe(rank_biased_overlap(old, new)),
        }


def _translated(before: Followed, after: Followed, codes: np.ndarray) -> np.ndarray:
    """Codes of one instant in those of the next; an item that is gone gets a code that nothing else has."""
    shown = np.unique(codes[codes >= 0])
    table = np.full(len(before.items), -1, np.int64)
    table[shown] = after.items.codes(before.items.ids(shown))
    gone = shown[table[shown] < 0]
    table[gone] = len(after.items) + gone
    translated: np.ndarray = np.where(codes >= 0, table[np.maximum(codes, 0)], -1)
    return translated


def _window_weeks(
    bundle: Bundle, instant: Instant, window: Targets, surfaces: list[str], *, seed: int, lister: Lister
) -> Iterator[dict[str, Any]]:
    for surface in surfaces:
        group = audience(bundle.features, window, Surface(surface), max_users=MOST_USERS, seed=seed)
        lists = lister.fused(bundle, group, f"weeks of {instant.name}")
        yield from weekly(group, lists, instant, n_items=bundle.features.n_items)
