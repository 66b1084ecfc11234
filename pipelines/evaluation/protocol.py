"""The protocol: one bundle, one surface, the users of a holdout or labelled queries, and every system's list for each.

``fused`` is exactly what serves: ``Bundle.rank`` without exploration. A base model is judged by its own
best candidates among the items that the surface may show; it may have fewer than there are places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from pipelines import model_registry
from pipelines.bundle import Bundle
from pipelines.contracts import FUSED, Surface
from pipelines.evaluation import bootstrap, metrics
from pipelines.evaluation.bootstrap import Interval
from pipelines.evaluation.kept_lists import KeptLists, Lists
from pipelines.evaluation.targets import Audience
from pipelines.features.state import FeatureState
from pipelines.model_api import Context
from pipelines.parallel import mapped
from pipelines.ranking import RankRequest
from pipelines.search.labels import fold_of

CUT = 10
"""Places that list metrics look at."""

NOT_DEFINED = {"diversity@10": "no list has two items with text", "novelty@10": "nobody has an item that is shown"}
"""Why a metric of the list itself has no number for anybody."""

Row = TypeVar("Row")
Track = Callable[[Sequence[Row], str], Iterable[Row]]
"""Goes over the rows and shows how far it is under a description."""


def silently(rows: Sequence[Row], description: str) -> Iterable[Row]:
    """A :data:`Track` that shows nothing."""
    del description
    return rows


@dataclass(frozen=True)
class SurfaceEvaluation:
    """Lists and per-user numbers of every system on one surface.

    ``per_user[system][metric]`` float64 ``[users]`` for the metrics of one user or one list, NaN where
    undefined; ``not_applicable`` gives the reason for systems without lists.
    """

    audience: Audience
    lists: dict[str, Lists]
    not_applicable: dict[str, str]
    per_user: dict[str, dict[str, np.ndarray]]
    n_items: int

    @property
    def members(self) -> list[str]:
        """Names of the base models that have lists, in the order of params."""
        return [system for system in self.lists if system != FUSED]

    @property
    def measured(self) -> tuple[str, ...]:
        """Names of the metrics in ``per_user``."""
        return metrics.of_one(search=bool(self.audience.typed))

    def matrix(self, system: str, names: Sequence[str]) -> np.ndarray:
        """Per-user numbers of one system, ``[users, len(names)]``."""
        return np.column_stack([self.per_user[system][name] for name in names])


@dataclass(frozen=True)
class Lister:
    """Makes the lists of an audience; those that are kept from an earlier evaluation are not made again."""

    track: Track[Any] = silently
    kept: KeptLists | None = None

    def fused(self, bundle: Bundle, audience: Audience, about: str = FUSED) -> Lists:
        """What the bundle answers each user; a query is answered by the fusion that did not learn from it."""
        asked = requests_of(audience)

        def row(place: int) -> tuple[list[int], list[float], str | None]:
            answering = bundle.judging(audience.users[place]) if audience.typed else bundle
            history = bundle.history() if audience.typed else bundle.history(user_id=audience.users[place])
            ranking = answering.rank(asked[place], history)
            return [i.code for i in ranking.items], [i.score for i in ranking.items], ranking.fallback

        def made(rows: Sequence[int]) -> Lists:
            # zip lets the tracker count what has been answered
            users = self.track([audience.users[place] for place in rows], f"{audience.surface}: {about}")
            return Lists.of([found for _, found in zip(users, mapped(row, rows), strict=True)], length(audience))

        return self._completed(bundle, FUSED, audience, made)

    def of_member(self, bundle: Bundle, name: str, audience: Audience) -> Lists:
        """A member's own best items among those that the surface may show."""
        requests = requests_of(audience)

        def made(rows: Sequence[int]) -> Lists:
            found = []
            users = [audience.users[place] for place in rows]
            contexts = contexts_of(bundle, audience.at(rows))
            for user, context, place in zip(
                self.track(users, f"{audience.surface}: {name}"), contexts, rows, strict=True
            ):
                member = bundle.members[name].judging(fold_of(user)) if audience.typed else bundle.members[name]
                best = member.candidates(context, length(audience), bundle.allowed(requests[place], context.history))
                found.append((best.codes, best.scores, None))
            return Lists.of(found, length(audience))

        return self._completed(bundle, f"member {name}", audience, made)

    def _completed(self, bundle: Bundle, system: str, audience: Audience, make: Callable[[list[int]], Lists]) -> Lists:
        if self.kept is None or bundle.content is None:
            return make(list(range(len(audience))))
        typed = audience.typed or audience.users
        asked = [f"{user}\n{query}" for user, query in zip(audience.users, typed, strict=True)]
        return self.kept.completed([bundle.content, system, audience.surface, str(length(audience))], asked, make)


PLAIN = Lister()
"""Shows nothing and keeps nothing."""


def evaluate_surface(bundle: Bundle, audience: Audience, *, lister: Lister = PLAIN) -> SurfaceEvaluation:
    """Make and measure the lists of the fusion and of every member for every user of the audience."""
    lists = {FUSED: lister.fused(bundle, audience)}
    absent: dict[str, str] = {}
    kinds = {name: about["kind"] for name, about in bundle.manifest["members"].items()}
    for name in model_registry.speaking(kinds, Surface(audience.surface)):
        about = bundle.manifest["members"][name]
        if not about["applicable"]:
            absent[name] = about["reason"]
            continue
        found = lister.of_member(bundle, name, audience)
        if len(audience) and not (found.codes >= 0).any():
            absent[name] = f"has no candidate for anybody on {audience.surface}"
        else:
            lists[name] = found
    measured = {system: measure(found.codes, audience, bundle.features) for system, found in lists.items()}
    return SurfaceEvaluation(audience, lists, absent, measured, bundle.features.n_items)


def length(audience: Audience) -> int:
    """Places of the longest list that a metric of the surface reads."""
    return metrics.SEARCH_LENGTH if audience.typed else metrics.LIST_LENGTH


def requests_of(audience: Audience) -> list[RankRequest]:
    """What is asked for every user: the longest list that a metric reads, without exploration."""
    request = RankRequest(surface=Surface(audience.surface), n=length(audience), explore=False)
    if audience.typed:
        return [replace(request, query=query) for query in audience.typed]
    return [request] * len(audience)


def contexts_of(bundle: Bundle, audience: Audience) -> Iterator[Context]:
    """What a member is told of every user."""
    queries: Iterable[str | None] = audience.typed or (None,) * len(audience)
    for history, query in zip(audience.histories, queries, strict=True):
        yield Context(history, audience.surface, None if query is None else bundle.query(query))


def measure(codes: np.ndarray, audience: Audience, features: FeatureState) -> dict[str, np.ndarray]:
    """Every metric that one user's list has by itself, float64 ``[users]``; ``codes`` ``[users, k]``."""
    found = scored(codes, audience, features.n_items)
    shown, n_owners = codes[:, :CUT], int((features.users["bought"] > 0).sum())
    owners = metrics.self_information(features.items["buyers"], n_owners)
    undefined = np.full(len(codes), np.nan)
    found["novelty@10"] = metrics.novelty(shown, owners) if n_owners else undefined
    found["diversity@10"] = undefined if features.text is None else metrics.diversity(shown, features.text)
    return found


def scored(codes: np.ndarray, audience: Audience, n_items: int) -> dict[str, np.ndarray]:
    """Every metric that tells right from wrong, float64 ``[users]``; items of ``codes`` count up to ``n_items``."""
    hits = metrics.hit_matrix(codes, list(audience.wanted), n_items)
    found = metrics.per_user(hits, audience.n_relevant)
    if audience.gains:
        gains = metrics.gain_matrix(codes, list(audience.relevant), list(audience.gains), n_items)
        ideal = np.zeros((len(audience), CUT))
        for row, worth in enumerate(audience.gains):
            best = np.sort(worth)[::-1][:CUT]
            ideal[row, : len(best)] = best
        found["ndcg@10"] = metrics.ndcg(gains, ideal, CUT)
        found["recall@100"] = metrics.recall(hits, audience.n_relevant, metrics.SEARCH_LENGTH)
    return found


def summarise(result: SurfaceEvaluation, *, seed: int, draws: int) -> dict[str, Any]:
    """The surface's part of ``metrics.json``."""
    if not len(result.audience):
        return {"not_applicable": "nobody known before the holdout has a target in it"}
    names = result.measured
    columns = np.column_stack([result.matrix(system, names) for system in result.lists])
    found = iter(bootstrap.intervals(columns, seed=seed, draws=draws))
    summary: dict[str, Any] = {system: {name: next(found) for name in names} for system in result.lists}
    shown = metrics.shown(search=bool(result.audience.typed))
    for system, lists in result.lists.items():
        fewer = min(draws, bootstrap.DRAWS_OVER_LISTS)
        summary[system] |= bootstrap.over_lists(lists.codes[:, :CUT], result.n_items, seed=seed, draws=fewer)
        summary[system] = {name: _as_json(name, summary[system][name]) for name in shown}
    return summary | {system: {"not_applicable": reason} for system, reason in result.not_applicable.items()}


def _as_json(name: str, interval: Interval | None) -> dict[str, Any]:
    if interval is not None:
        return interval.as_json()
    return {"not_applicable": NOT_DEFINED[name]}
