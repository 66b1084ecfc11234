"""Labelled lists: what the members would have shown at a window's start, and what was bought then or judged right."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from pipelines.contracts import Surface
from pipelines.features.state import FeatureState, UserHistory
from pipelines.fusion.candidates import gather
from pipelines.fusion.features import describe, item_table, joined, parts
from pipelines.fusion.fuser import FittedFuser, LabelledList
from pipelines.fusion.query_features import feedback_part, query_part
from pipelines.fusion.shortlist import shortlist
from pipelines.model_api import Context, FittedModel
from pipelines.parallel import mapped
from pipelines.search.labels import LabelledQuery, fold_of
from pipelines.search.query import Query


def labelled(
    features: FeatureState,
    members: Mapping[str, FittedModel],
    targets: Sequence[tuple[str, Sequence[str]]],
    *,
    surface: Surface,
    window: str,
    depth: int,
) -> Iterator[LabelledList | None]:
    """One list a user, in the order of ``targets``; None where nothing that counts was bought.

    The lists do not carry the histories: fusers learn from scores and features alone.

    Args:
        features: state as of the window's start.
        members: fitted as of the window's start.
        targets: per user, the ids bought within the window.
        surface: ``RECOMMEND_NEW`` leaves out, and does not count, what the user bought before.
        window: name of the window.
        depth: candidates asked of each member.
    """
    items = item_table(features)

    def one(target: tuple[str, Sequence[str]]) -> LabelledList | None:
        user_id, bought = target
        history = features.history(features.user_ids.code(user_id))
        codes = features.item_ids.codes(bought)
        allowed = np.ones(features.n_items, np.bool_)
        if surface == Surface.RECOMMEND_NEW:
            allowed[history.seen] = False
            codes = codes[(codes < 0) | allowed[codes]]
        if not len(codes):
            return None
        candidates = gather(members, Context(history, surface), depth=depth, allowed=allowed)
        return LabelledList(
            candidates=replace(candidates, context=Context(UserHistory.empty(), surface)),
            features=describe(features, history, candidates.codes, items),
            gains=np.isin(candidates.codes, codes).astype(np.float32),
            ideal=np.ones(len(codes), np.float32),
            window=window,
        )

    yield from mapped(one, targets)


def labelled_queries(
    features: FeatureState,
    members: Mapping[str, FittedModel],
    queries: Sequence[LabelledQuery],
    *,
    first: FittedFuser,
    read: Callable[[str], Query],
    window: str,
    depth: int,
) -> Iterator[LabelledList]:
    """One shortlist a query, in the order of ``queries``, asked by nobody in particular.

    Members that learn from labels answer as they would without the query, so that a fusion learns what they are worth
    on queries that they have not seen.

    Args:
        features: state as of the instant.
        members: fitted as of the instant.
        queries: what was asked, and what it should have found.
        first: the fuser whose best are the shortlist.
        read: from what was typed to what members read.
        window: name of the window.
        depth: candidates asked of each member.
    """
    items = item_table(features)
    nobody = UserHistory.empty()
    for one in queries:
        context = Context(nobody, Surface.SEARCH, read(one.query))
        fold = fold_of(one.query)
        unaware = {name: member.judging(fold) for name, member in members.items()}
        candidates = gather(unaware, context, depth=depth, allowed=None)
        scores = first.score_parts(candidates, (feedback_part(features, candidates),))
        rows = shortlist(scores, candidates.codes)
        kept = candidates.keep(rows)
        described = parts(features, nobody, kept.codes, items)
        by_code = dict(zip(features.item_ids.codes(list(one.gains)).tolist(), one.gains.values(), strict=True))
        yield LabelledList(
            candidates=kept,
            features=joined((*described, query_part(features, kept, scores[rows]))),
            gains=np.array([by_code.get(code, 0.0) for code in kept.codes.tolist()], np.float32),
            ideal=np.sort(np.array([gain for gain in one.gains.values() if gain > 0], np.float32))[::-1],
            window=window,
            query=one.key,
        )
