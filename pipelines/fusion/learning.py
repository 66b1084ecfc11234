"""Choosing and fitting a surface's fuser on labelled lists.

``auto`` never loses. With windows it starts from the best single member and leaves it only for a fuser whose gain on
the last window, learned on the windows before, has a 95 % interval above zero. A search starts from the fuser that
needs no label, and leaves it for one whose gain has such an interval, on queries that it did not learn from. What a
fuser can do without (``FittedFuser.plain``) stays where it probably helps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipelines.contracts import Surface
from pipelines.evaluation.bootstrap import difference
from pipelines.fusion import fuser as fusers
from pipelines.fusion import spread as spreads
from pipelines.fusion.best_single import BestSingle
from pipelines.fusion.fuser import FittedFuser, LabelledList
from pipelines.fusion.quality import ndcg_of, per_list_ndcg, scores_of
from pipelines.fusion.query_features import FIRST_SCORE
from pipelines.params import FusionParams
from pipelines.search.labels import FOLDS, fold_of

LABEL_FREE = {
    Surface.RECOMMEND: "reciprocal_rank",
    Surface.RECOMMEND_NEW: "reciprocal_rank",
    Surface.SEARCH: "convex",
}
"""What fuses a surface when there is nothing to learn on."""

FEWEST_QUERIES = 30
"""Fewer labelled queries than this prove nothing, and a search stays as it is without labels."""

SPREAD_WINDOWS = 3
"""Newest windows that a spread is chosen on, each by a fuser that learned from the windows before: one alone tells too
little of so small a difference."""

INNER_FOLDS = 3
"""Parts of the labelled queries in turn held out to choose a method on."""


@dataclass(frozen=True)
class Choice:
    """A fitted fuser, and why it was chosen.

    ``trials``: per method its mean nDCG@10 on lists that it did not learn from, and the paired gain over what
    ``auto`` starts from with its interval; empty when nothing could be compared. ``spread``: weight of
    ``fusion.spread``; ``spread_trials``: per weight tried the change of nDCG@10 with its interval. ``plain``: whether
    the fuser does without what could be left out; ``plain_trial``: what that gains of nDCG@10, empty where there is
    nothing of the kind.
    """

    method: str
    fuser: FittedFuser
    trials: dict[str, dict[str, Any]] = field(default_factory=dict)
    spread: float = 0.0
    spread_trials: dict[str, dict[str, float]] = field(default_factory=dict)
    plain: bool = False
    plain_trial: dict[str, float] = field(default_factory=dict)


def choose(
    params: FusionParams,
    lists: Sequence[LabelledList],
    members: Sequence[str],
    *,
    surface: Surface,
    windows: Sequence[str],
    seed: int,
    learned: Sequence[str] = (),
) -> Choice:
    """Fit the method that params name, or let the windows choose.

    Args:
        params: the fusion section.
        lists: labelled lists of all windows.
        members: names of the members that apply, in the order of params.
        surface: whose lists these are.
        windows: names of the windows, oldest first.
        seed: of the run.
        learned: those of the members that learn; the lists are to cover nearly as much as those of the best of them.
    """
    free = LABEL_FREE[surface]
    usable = [name for name in fusers.METHODS if surface in fusers.method(name).surfaces]
    named = params.method if params.method in usable else None
    if len(lists) < 2:  # nothing to compare on
        method = named if named is not None and (lists or not fusers.method(named).learns) else free
        return Choice(method, _fit(params, method, lists, members, seed))
    fitting = [one for one in lists if one.window != windows[-1]]
    held = [one for one in lists if one.window == windows[-1]]
    earlier = windows[-SPREAD_WINDOWS:-1]
    if not fitting or not held:
        (fitting, held), earlier = _halves(lists), ()
    names = [named] if named is not None else ["best_single", *(n for n in usable if n != "best_single")]
    if len(members) < 2:
        names = names[:1]
    fitted = {name: _fit(params, name, fitting, members, seed) for name in names}
    best = names[0]
    trials: dict[str, dict[str, Any]] = {}
    if named is None:
        reached = {name: per_list_ndcg(one, held) for name, one in fitted.items()}
        best, trials = _best(best, reached.pop(best), reached, seed=seed)
    judges = [
        (fitted[best], held),
        *_on_earlier(params, best, lists, members, windows=windows, earlier=earlier, seed=seed),
    ]
    judged = [one for _, some in judges for one in some]
    full = [values for fuser, some in judges for values in scores_of(fuser, some)]
    plain = [values for fuser, some in judges for values in scores_of(fuser.plain(), some)]
    without, plain_trial = spared(ndcg_of(full, judged), ndcg_of(plain, judged), seed=seed)
    known = plain if without else full
    spread, spread_trials = _spread(params, judged, known, [name for name in learned if name in members], seed=seed)
    final = _fit(params, best, lists, members, seed, plain=without)
    return Choice(best, final, trials, spread, spread_trials, without, plain_trial)


def _on_earlier(
    params: FusionParams,
    name: str,
    lists: Sequence[LabelledList],
    members: Sequence[str],
    *,
    windows: Sequence[str],
    earlier: Sequence[str],
    seed: int,
) -> Iterator[tuple[FittedFuser, list[LabelledList]]]:
    """Each of these windows' lists with a fuser that learned from the windows before."""
    for window in earlier:
        before = [one for one in lists if one.window in windows[: windows.index(window)]]
        then = [one for one in lists if one.window == window]
        if before and then:
            yield _fit(params, name, before, members, seed), then


def spared(full: np.ndarray, plain: np.ndarray, *, seed: int) -> tuple[bool, dict[str, float]]:
    """Whether a fuser does without what can be left out, and what that gains: nDCG@10 of each list with and without.

    It stays where it helps with a confidence of nine tenths, one-sided: where the mean gain exceeds a third of its 95 %
    interval's width (1.3 standard errors). Either answer orders lists by learned scores, so none is the safe one.
    """
    if np.array_equal(full, plain):
        return False, {}
    gain = difference(full, plain, seed=seed)
    return gain is None or gain.mean <= (gain.high - gain.low) / 3, gain.as_difference() if gain else {}


def _spread(
    params: FusionParams,
    lists: Sequence[LabelledList],
    scores: Sequence[np.ndarray],
    learned: Sequence[str],
    *,
    seed: int,
) -> tuple[float, dict[str, dict[str, float]]]:
    """What ``spread.chosen`` says, its rival being the best of the members that learn."""
    alone = [scores_of(BestSingle(name), lists) for name in learned]
    return spreads.chosen(
        scores,
        lists,
        rival=max(alone, key=lambda found: float(ndcg_of(found, lists).mean()), default=None),
        least_covered=params.min_coverage,
        most_lost=params.max_spread_cost,
        seed=seed,
    )


def choose_search(params: FusionParams, lists: Sequence[LabelledList], members: Sequence[str], *, seed: int) -> Choice:
    """Fit the fuser of a search's shortlists that params name, or let the queries choose.

    Args:
        params: the fusion section.
        lists: shortlists of all labelled queries.
        members: names of the members that search, in the order of params.
        seed: of the run.

    Returns:
        The choice; ``convex`` when there are fewer than :data:`FEWEST_QUERIES`, or nothing is proven better.
    """
    free = LABEL_FREE[Surface.SEARCH]
    usable = [name for name in fusers.METHODS if Surface.SEARCH in fusers.method(name).surfaces]
    if params.method in usable and (lists or not fusers.method(params.method).learns):
        return Choice(params.method, _fit(params, params.method, lists, members, seed))
    if len(lists) < FEWEST_QUERIES or len(members) < 2:
        return Choice(free, _fit(params, free, lists, members, seed))
    inner = [fold_of(one.query, folds=INNER_FOLDS, salt="inner") for one in lists]
    tried: dict[str, np.ndarray] = {}
    plain: dict[str, np.ndarray] = {}
    for name in usable:
        if name != free:
            tried[name], plain[name] = np.empty(len(lists)), np.empty(len(lists))
            for fold in range(INNER_FOLDS):
                rest = [one for one, part in zip(lists, inner, strict=True) if part != fold]
                held = [row for row, part in enumerate(inner) if part == fold]
                fitted, these = _fit(params, name, rest, members, seed), [lists[row] for row in held]
                tried[name][held] = per_list_ndcg(fitted, these)
                plain[name][held] = per_list_ndcg(fitted.plain(), these)
    best, trials = _best(free, ndcg_of([one.features[:, FIRST_SCORE] for one in lists], lists), tried, seed=seed)
    without, plain_trial = (False, {}) if best == free else spared(tried[best], plain[best], seed=seed)
    final = _fit(params, best, lists, members, seed, plain=without)
    return Choice(best, final, trials, plain=without, plain_trial=plain_trial)


def choose_by_fold(
    params: FusionParams, lists: Sequence[LabelledList], members: Sequence[str], *, seed: int
) -> dict[int, Choice]:
    """For each part of the queries the choice that a search would make without them, by number of the part.

    So every labelled query can be judged on a fusion that never saw it, and all of them say something (cross-fitting).
    Empty when there is too little to learn from, and all parts would be the same.
    """
    if len(lists) < FEWEST_QUERIES:
        return {}
    return {
        fold: choose_search(params, [one for one in lists if fold_of(one.query) != fold], members, seed=seed)
        for fold in range(FOLDS)
    }


def _best(
    start: str, base: np.ndarray, tried: Mapping[str, np.ndarray], *, seed: int
) -> tuple[str, dict[str, dict[str, Any]]]:
    """The method with the highest mean whose gain over the start has an interval above zero, and all trials."""
    trials: dict[str, dict[str, Any]] = {start: {"ndcg@10": float(base.mean())}}
    best, best_mean = start, float(base.mean())
    for name, reached in tried.items():
        gain = difference(reached, base, seed=seed)
        trials[name] = {"ndcg@10": float(reached.mean()), "gain": gain and gain.as_difference()}
        print(f"  {name}: nDCG@10 {reached.mean():.4f}, {start} {base.mean():.4f}", flush=True)
        if gain is not None and gain.low > 0 and reached.mean() > best_mean:
            best, best_mean = name, float(reached.mean())
    return best, trials


def _fit(
    params: FusionParams,
    name: str,
    lists: Sequence[LabelledList],
    members: Sequence[str],
    seed: int,
    *,
    plain: bool = False,
) -> FittedFuser:
    sections: Mapping[str, dict[str, Any]] = {
        "weighted": params.weighted,
        "reciprocal_rank": params.reciprocal_rank,
        "stacking": params.stacking,
        "convex": params.convex,
    }
    method = fusers.method(name)
    config = fusers.config(name, sections.get(name, {}))
    return method.fit(config.plain() if plain else config, lists, members, seed=seed)


def _halves(lists: Sequence[LabelledList]) -> tuple[list[LabelledList], list[LabelledList]]:
    """With a single window: every other list, by the order of users, to fit and to compare."""
    even = np.arange(len(lists)) % 2 == 0
    return (
        [one for one, e in zip(lists, even, strict=True) if e],
        [one for one, e in zip(lists, even, strict=True) if not e],
    )
