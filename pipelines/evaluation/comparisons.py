"""Paired differences between the fusion and its members on the same users."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipelines.contracts import FUSED
from pipelines.evaluation import bootstrap, metrics
from pipelines.evaluation.protocol import SurfaceEvaluation

DECIDING = "ndcg@10"
"""The metric that names the best single member of a surface."""


def best_single(result: SurfaceEvaluation, metric: str = DECIDING) -> str | None:
    """The member with the highest holdout mean, ties by order in params; None without members."""
    means = {name: _mean(result.per_user[name][metric]) for name in result.members}
    return max(means, key=lambda name: means[name]) if means else None


def compare(result: SurfaceEvaluation, *, seed: int, draws: int) -> dict[str, Any]:
    """Fused minus the best single member (the best by each metric itself), and minus every member.

    The best is picked by looking at the very users that the difference is measured on, which favours
    the member: the interval is on the careful side.
    """
    best = best_single(result)
    if not len(result.audience) or best is None:
        return {"not_applicable": "no users or no members to compare"}
    members = _differences(result, seed=seed, draws=draws)
    found: dict[str, Any] = {"best_single": best, "members": members}
    for metric in (name for name in result.measured if name not in metrics.PER_LIST):
        name = best_single(result, metric) or best
        found[metric] = {"best_single": name, **members[name][metric]}
    return found


def _differences(result: SurfaceEvaluation, *, seed: int, draws: int) -> dict[str, dict[str, Any]]:
    compared = result.measured
    fused = result.matrix(FUSED, compared)
    gaps = np.hstack([fused - result.matrix(member, compared) for member in result.members])
    found = iter(bootstrap.intervals(gaps, seed=seed, draws=draws))
    pairs = {member: zip(compared, found, strict=False) for member in result.members}
    return {
        member: {metric: interval.as_difference() for metric, interval in columns if interval}
        for member, columns in pairs.items()
    }


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if (~np.isnan(values)).any() else -np.inf
