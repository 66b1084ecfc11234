"""Reciprocal rank fusion: no labels, no scales, hard to break.

Cormack, Clarke and Buettcher 2009, "Reciprocal rank fusion outperforms Condorcet and individual rank
learning methods": ``score(d) = sum over members of weight / (k + rank(d))``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field

from pipelines.fusion.candidates import CandidateList, ranks
from pipelines.fusion.fuser import FittedFuser, FuserConfig, LabelledList, Method
from pipelines.storage import read_json, write_json


class ReciprocalRankConfig(FuserConfig):
    """The constant that flattens the top."""

    k: float = Field(60.0, gt=0, description="larger lets lower places count more")


class ReciprocalRank(FittedFuser):
    """Sum of reciprocal ranks over the members that have an opinion."""

    def __init__(self, k: float) -> None:
        """``k``: the constant of the formula."""
        self._k = k

    def score(self, candidates: CandidateList, features: np.ndarray | None) -> np.ndarray:
        """Float32 ``[m]``."""
        places = ranks(candidates.scores)
        summed: np.ndarray = np.nansum(1.0 / (self._k + places), axis=1).astype(np.float32)
        return summed

    def weights(self, members: Sequence[str], bounded: frozenset[str] = frozenset()) -> dict[str, float]:
        """Equal shares."""
        return {name: 1.0 / len(members) for name in members}

    def save(self, folder: Path) -> None:
        """Write ``reciprocal_rank.json``."""
        write_json(folder / "reciprocal_rank.json", {"k": self._k})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read ``reciprocal_rank.json``."""
        return cls(read_json(folder / "reciprocal_rank.json")["k"])


def fit(
    config: ReciprocalRankConfig, lists: Sequence[LabelledList], members: Sequence[str], *, seed: int
) -> ReciprocalRank:
    """Nothing to learn."""
    return ReciprocalRank(config.k)


METHOD = Method(config=ReciprocalRankConfig, fitted=ReciprocalRank, fit=fit, learns=False)
