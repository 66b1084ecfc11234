"""Convex combination of scaled scores, with feedback: search without any label.

Bruch, Gai and Ingber 2023, "An Analysis of Fusion Functions for Hybrid Retrieval" (arXiv:2210.11934), section 4: scores
scaled to their least and best and added up keep what ranks throw away; without labels equal shares are hard to beat.
What the members find first together then speaks like one more member (``fusion.query_features``).
Members whose scores are shares (``FittedModel.BOUNDED``) are added as they are: scaling to the best of each list would
make one visitor's click as loud as a thousand.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field

from pipelines.contracts import Surface
from pipelines.fusion.candidates import CandidateList, scaled
from pipelines.fusion.features import Part
from pipelines.fusion.fuser import FittedFuser, FuserConfig, LabelledList, Method
from pipelines.fusion.query_features import QUERY_FEATURES
from pipelines.storage import read_json, write_json

FEEDBACK = QUERY_FEATURES.index("feedback_similarity") - len(QUERY_FEATURES)
"""Column among the features of a search, from the end."""


class ConvexConfig(FuserConfig):
    """Shares of the members, and of the feedback beside all of them."""

    weights: dict[str, float] | None = Field(None, description="share >= 0 by member; null: equal ones")
    feedback: float = Field(0.5, ge=0, description="weight of the feedback, the members having 1 together")
    shares: float = Field(1.0, ge=0, description="weight of each member whose scores are shares, beside the others")


class Convex(FittedFuser):
    """Score = weighted mean of the members' scaled scores + feedback; no opinion counts as the least."""

    def __init__(self, weights: dict[str, float], feedback: float, shares: float = 1.0) -> None:
        """``weights``: by member, of those whose scores are scaled; ``shares``: of each of the others."""
        self._weights = weights
        self._feedback = feedback
        self._shares = shares

    @property
    def reads_features(self) -> bool:
        """True: the feedback is one."""
        return True

    @property
    def reads_feedback_alone(self) -> bool:
        """True."""
        return True

    def score(self, candidates: CandidateList, features: np.ndarray | None) -> np.ndarray:
        """Float32 ``[m]``."""
        if features is None:
            raise ValueError("convex scores with features")
        return self._score(candidates, features[:, [FEEDBACK]])

    def score_parts(self, candidates: CandidateList, described: Sequence[Part]) -> np.ndarray:
        """As :meth:`score`; only the last column is read."""
        return self._score(candidates, described[-1].values[:, [FEEDBACK]])

    def _score(self, candidates: CandidateList, feedback: np.ndarray) -> np.ndarray:
        columns = candidates.of(bounded=False)
        weights = np.array([self._weights.get(candidates.members[column], 0.0) for column in columns], np.float32)
        total = float(weights.sum()) or 1.0  # a member that failed leaves its share to the others
        found: np.ndarray = candidates.scaled @ (weights / np.float32(total))
        found += np.float32(self._feedback) * scaled(feedback)[:, 0]
        for column in candidates.of(bounded=True):
            share = candidates.scores[:, column]
            found += np.float32(self._shares) * np.where(np.isnan(share), np.float32(0), share)
        return found

    def weights(self, members: Sequence[str], bounded: frozenset[str] = frozenset()) -> dict[str, float]:
        """What the score of each member is multiplied by before it is added, scaled to add up to 1."""
        total = sum(self._weights.get(name, 0.0) for name in members if name not in bounded) or 1.0
        found = {name: self._shares if name in bounded else self._weights.get(name, 0.0) / total for name in members}
        total = sum(found.values()) or 1.0
        return {name: weight / total for name, weight in found.items()}

    def save(self, folder: Path) -> None:
        """Write ``convex.json``."""
        about = {"weights": self._weights, "feedback": self._feedback, "shares": self._shares}
        write_json(folder / "convex.json", about)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read ``convex.json``."""
        return cls(**read_json(folder / "convex.json"))


def fit(config: ConvexConfig, lists: Sequence[LabelledList], members: Sequence[str], *, seed: int) -> Convex:
    """Nothing to learn."""
    return Convex(config.weights or dict.fromkeys(members, 1.0 / len(members)), config.feedback, config.shares)


METHOD = Method(config=ConvexConfig, fitted=Convex, fit=fit, learns=False, surfaces=frozenset({Surface.SEARCH}))
