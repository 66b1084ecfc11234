"""The member ledger: what the fused list loses without each member, and what each costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from pipelines.bundle import Bundle
from pipelines.contracts import FUSED, Surface
from pipelines.evaluation import bootstrap
from pipelines.evaluation.protocol import CUT, PLAIN, Lister, SurfaceEvaluation, contexts_of, measure, requests_of
from pipelines.evaluation.targets import Audience, sample
from pipelines.fusion.candidates import SEARCHED

MOST_USERS = 400
"""Users that the ledger looks at: every member costs another list for each of them."""
TIMED_USERS = 100
MEGABYTE = 1_000_000


def ledger(
    bundle: Bundle, result: SurfaceEvaluation, *, seed: int, draws: int, lister: Lister = PLAIN
) -> dict[str, Any]:
    """Per member: lists with all members minus lists without this one, paired over users.

    A positive difference is what the member is worth. ``changed`` is the share of the first ten places
    that hold another item without it. The fusion is not taught anew: this is what happens when the
    member fails, which a fusion taught without it could partly make up for.
    """
    rows = sample(result.audience.users, MOST_USERS, seed=seed)
    audience = result.audience.at(rows)
    whole = result.lists[FUSED].codes[rows]
    counted = result.measured
    fused = result.matrix(FUSED, counted)[rows]
    gaps, changed = [], {}
    members = list(bundle.on(Surface(audience.surface)))
    for member in members:
        codes = lister.fused(bundle.without(member), audience, f"without {member}").codes
        found = measure(codes, audience, bundle.features)
        gaps.append(fused - np.column_stack([found[name] for name in counted]))
        changed[member] = round(1 - float(overlap(whole[:, :CUT], codes[:, :CUT]).mean()), bootstrap.DIGITS)
    if not gaps:
        return {"not_applicable": "the fusion has no members"}
    spans = iter(bootstrap.intervals(np.hstack(gaps), seed=seed, draws=draws))
    pairs = {member: zip(counted, spans, strict=False) for member in members}
    return {
        member: {"changed": changed[member], **{name: span.as_difference() for name, span in columns if span}}
        for member, columns in pairs.items()
    }


def overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Share of the longer list that both lists hold, order aside, float64 ``[users]``; two empty lists give 1.

    Both ``[users, k]`` with codes of the same catalogue, -1 for an empty place.
    """
    longest = np.maximum((one >= 0).sum(axis=1), (other >= 0).sum(axis=1))
    common = ((one[:, :, None] == other[:, None, :]) & (one >= 0)[:, :, None]).any(axis=2).sum(axis=1)
    shares: np.ndarray = np.where(longest > 0, common / np.maximum(longest, 1), 1.0)
    return shares


def costs(
    bundle: Bundle, audiences: list[Audience], *, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Any]:
    """Milliseconds, which differ from run to run, so that no cached decision may rest on them.

    Members: median time of what a request asks of them, to find their candidates and to score the union
    of everybody's. Surfaces: median and 95 % quantile of a whole ``Bundle.rank``, history included.
    """
    timed = [audience.at(range(min(len(audience), TIMED_USERS))) for audience in audiences]
    members = {
        name: {
            "milliseconds": _median(
                [
                    seconds
                    for audience in timed
                    if name in bundle.on(Surface(audience.surface))
                    for seconds in _member_times(bundle, name, audience, clock)
                ]
            )
        }
        for name in bundle.members
    }
    return {"members": members, "surfaces": {a.surface: _request_times(bundle, a, clock) for a in timed if len(a)}}


def _member_times(bundle: Bundle, name: str, audience: Audience, clock: Callable[[], float]) -> Iterator[float]:
    depth = SEARCHED if audience.typed else bundle.fusion[Surface(audience.surface)].depth
    member = bundle.members[name]
    others = np.arange(min(bundle.features.n_items, depth * len(bundle.members)))
    for request, context in zip(requests_of(audience), contexts_of(bundle, audience), strict=True):
        allowed = bundle.allowed(request, context.history)
        start = clock()
        member.candidates(context, depth, allowed)
        member.score(context, others)
        yield clock() - start


def _request_times(bundle: Bundle, audience: Audience, clock: Callable[[], float]) -> dict[str, float | None]:
    seconds = []
    for request, user in zip(requests_of(audience), audience.users, strict=True):
        start = clock()
        bundle.rank(request, bundle.history() if audience.typed else bundle.history(user_id=user))
        seconds.append(clock() - start)
    worst = float(np.quantile(seconds, 0.95))
    return {"p50_milliseconds": _median(seconds), "p95_milliseconds": round(1000 * worst, 4)}


def _median(seconds: list[float]) -> float | None:
    return round(1000 * median(seconds), 4) if seconds else None


def megabytes(folder: Path) -> float:
    """Size of all files under a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / MEGABYTE
