"""Labelled lists: what the members would have shown at a window's start, and what was bought then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from pipelines.contracts import Surface
from pipelines.features.state import FeatureState, UserHistory
from pipelines.fusion.candidates import gather
from pipelines.fusion.features import describe, item_table
from pipelines.fusion.fuser import LabelledList
from pipelines.model_api import Context, FittedModel
from pipelines.parallel import mapped


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
            relevant=np.isin(candidates.codes, codes),
            n_relevant=len(codes),
            window=window,
        )

    yield from mapped(one, targets)
