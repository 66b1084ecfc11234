"""Weighted average of the members' standardised scores, weights learned listwise.

The weights minimise the softmax cross-entropy of ListNet (Cao et al. 2007, top-one probability) over the
labelled lists; with non-negative weights the problem is convex and its solution can be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field

from pipelines.fusion.candidates import CandidateList, standardised
from pipelines.fusion.fuser import FittedFuser, FuserConfig, LabelledList, Method
from pipelines.storage import read_json, write_json


class WeightedConfig(FuserConfig):
    """Fixed weights, or none to learn them."""

    weights: dict[str, float] | None = Field(None, description="weight >= 0 by member; null: learned")
    l2: float = Field(1e-3, ge=0, description="ridge on the weights while learning")


class Weighted(FittedFuser):
    """Score = sum of weight times the member's z-score within the list; no opinion counts as average."""

    def __init__(self, by_member: dict[str, float]) -> None:
        """``by_member``: weight >= 0 by name; members without one count nothing."""
        self._by_member = by_member

    def score(self, candidates: CandidateList, features: np.ndarray | None) -> np.ndarray:
        """Float32 ``[m]``."""
        weights = np.array([self._by_member.get(name, 0.0) for name in candidates.members], np.float32)
        return (standardised(candidates.scores) @ weights).astype(np.float32)

    def weights(self, members: Sequence[str], bounded: frozenset[str] = frozenset()) -> dict[str, float]:
        """The weights, scaled to add up to 1."""
        total = sum(self._by_member.get(name, 0.0) for name in members) or 1.0
        return {name: self._by_member.get(name, 0.0) / total for name in members}

    def save(self, folder: Path) -> None:
        """Write ``weighted.json``."""
        write_json(folder / "weighted.json", self._by_member)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read ``weighted.json``."""
        return cls(read_json(folder / "weighted.json"))


def fit(config: WeightedConfig, lists: Sequence[LabelledList], members: Sequence[str], *, seed: int) -> Weighted:
    """Minimise the listwise loss with L-BFGS-B under weights >= 0; every list counts the same."""
    if config.weights is not None:
        return Weighted(config.weights)
    from scipy.optimize import minimize

    usable = [one for one in lists if one.relevant.any()]
    if not usable:
        return Weighted(dict.fromkeys(members, 1.0 / len(members)))
    scores = np.concatenate([standardised(one.candidates.scores) for one in usable]).astype(np.float64)
    starts = np.concatenate(([0], np.cumsum([len(one.relevant) for one in usable])[:-1]))
    lengths = [len(one.relevant) for one in usable]
    wanted = np.concatenate([one.gains / one.gains.sum(dtype=np.float64) for one in usable])

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logits = scores @ weights
        logits -= np.repeat(np.maximum.reduceat(logits, starts), lengths)
        exp = np.exp(logits)
        total = np.add.reduceat(exp, starts)
        chance = exp / np.repeat(total, lengths)
        entropy = float(np.log(total).sum() - wanted @ logits) / len(usable)
        slope = scores.T @ (chance - wanted) / len(usable)
        return entropy + config.l2 * float(weights @ weights), slope + 2 * config.l2 * weights

    start = np.full(len(members), 1.0 / len(members))
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0.0, None)] * len(members))
    return Weighted({name: round(float(weight), 6) for name, weight in zip(members, found.x, strict=True)})


METHOD = Method(config=WeightedConfig, fitted=Weighted, fit=fit)
