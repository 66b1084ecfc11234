"""Why an item stands where it stands: what each member says of it, and plain sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pipelines.features.state import UserHistory
from pipelines.fusion.candidates import CandidateList, ranks
from pipelines.ranking import Source


def sources(candidates: CandidateList, weights: Mapping[str, float]) -> dict[int, tuple[Source, ...]]:
    """By code, the members that have an opinion on it; ``weights`` of ``FittedFuser.weights``."""
    places = ranks(candidates.scores)
    found = {}
    for row, code in enumerate(candidates.codes.tolist()):
        views = zip(candidates.members, candidates.scores[row].tolist(), places[row].tolist(), strict=True)
        found[code] = tuple(
            Source(name, score, int(place), weights[name]) for name, score, place in views if not math.isnan(place)
        )
    return found


def reasons(code: int, history: UserHistory, views: Sequence[Source], *, bounded: frozenset[str]) -> tuple[str, ...]:
    """Plain sentences, the strongest first.

    Args:
        code: the item.
        history: of whom the list is for.
        views: of :func:`sources`.
        bounded: members whose scores are shares: they are added to what others find, and a place among them says
            nothing.
    """
    found = ["bought before"] if code in history.seen else []
    found += [f"raised by {view.model}" for view in views if view.model in bounded and view.score > 0]
    if best := min((view for view in views if view.model not in bounded), key=lambda view: view.rank, default=None):
        found.append(f"place {best.rank} of {best.model}")
    return tuple(found)
