"""Choosing and fitting a surface's fuser on the rolling windows.

``auto`` never loses: it starts from the best single member and leaves it only for a fuser whose gain on the
last window, learned on the windows before, has a 95 % interval above zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipelines.contracts import Surface
from pipelines.evaluation.bootstrap import difference
from pipelines.fusion import fuser as fusers
from pipelines.fusion.fuser import FittedFuser, LabelledList
from pipelines.fusion.quality import per_list_ndcg
from pipelines.params import FusionParams

LABEL_FREE = {
    Surface.RECOMMEND: "reciprocal_rank",
    Surface.RECOMMEND_NEW: "reciprocal_rank",
    Surface.SEARCH: "convex",
}
"""What fuses a surface when there is nothing to learn on."""


@dataclass(frozen=True)
class Choice:
    """A fitted fuser, and why it was chosen.

    ``trials``: per method its mean nDCG@10 on the last window and the paired gain over the best single
    member with its interval; empty when nothing could be compared.
    """

    method: str
    fuser: FittedFuser
    trials: dict[str, dict[str, Any]] = field(default_factory=dict)


def choose(
    params: FusionParams,
    lists: Sequence[LabelledList],
    members: Sequence[str],
    *,
    surface: Surface,
    windows: Sequence[str],
    seed: int,
) -> Choice:
    """Fit the method that params name, or let the windows choose.

    Args:
        params: the fusion section.
        lists: labelled lists of all windows.
        members: names of the members that apply, in the order of params.
        surface: whose lists these are.
        windows: names of the windows, oldest first.
        seed: of the run.
    """
    free = LABEL_FREE[surface]
    usable = [name for name in fusers.METHODS if surface in fusers.method(name).surfaces]
    if params.method != "auto" and (lists or not fusers.method(params.method).learns) and params.method in usable:
        return Choice(params.method, _fit(params, params.method, lists, members, seed))
    if not lists:
        return Choice(free, _fit(params, free, lists, members, seed))
    fitting = [one for one in lists if one.window != windows[-1]]
    held = [one for one in lists if one.window == windows[-1]]
    if not fitting or not held:
        fitting, held = _halves(lists)
    single = _fit(params, "best_single", fitting, members, seed)
    base = per_list_ndcg(single, held)
    trials: dict[str, dict[str, Any]] = {"best_single": {"ndcg@10": float(base.mean()), **single.weights(members)}}
    best, best_mean = "best_single", float(base.mean())
    for name in usable:
        if name == "best_single" or len(members) < 2:
            continue
        reached = per_list_ndcg(_fit(params, name, fitting, members, seed), held)
        gain = difference(reached, base, seed=seed)
        trials[name] = {"ndcg@10": float(reached.mean()), "gain": gain and gain.as_difference()}
        print(f"  {name}: nDCG@10 {reached.mean():.4f}, best single {base.mean():.4f}", flush=True)
        if gain is not None and gain.low > 0 and reached.mean() > best_mean:
            best, best_mean = name, float(reached.mean())
    return Choice(best, _fit(params, best, lists, members, seed), trials)


def _fit(
    params: FusionParams, name: str, lists: Sequence[LabelledList], members: Sequence[str], seed: int
) -> FittedFuser:
    sections: Mapping[str, dict[str, Any]] = {
        "weighted": params.weighted,
        "reciprocal_rank": params.reciprocal_rank,
        "stacking": params.stacking,
        "convex": params.convex,
    }
    method = fusers.method(name)
    return method.fit(fusers.config(name, sections.get(name, {})), lists, members, seed=seed)


def _halves(lists: Sequence[LabelledList]) -> tuple[list[LabelledList], list[LabelledList]]:
    """With a single window: every other list, by the order of users, to fit and to compare."""
    even = np.arange(len(lists)) % 2 == 0
    return (
        [one for one, e in zip(lists, even, strict=True) if e],
        [one for one, e in zip(lists, even, strict=True) if not e],
    )
