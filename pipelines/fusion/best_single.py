"""One member's list as it is: where every fusion starts, and what it must beat."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field

from pipelines.fusion.candidates import CandidateList
from pipelines.fusion.fuser import FittedFuser, FuserConfig, LabelledList, Method
from pipelines.fusion.quality import mean_ndcg
from pipelines.storage import read_json, write_json


class BestSingleConfig(FuserConfig):
    """Which member, unless the windows choose."""

    member: str | None = Field(None, description="name of the member; null: the best on the windows")


class BestSingle(FittedFuser):
    """The score of one member; items without its opinion are left out."""

    def __init__(self, member: str) -> None:
        """``member``: its name."""
        self.member = member

    def score(self, candidates: CandidateList, features: np.ndarray | None) -> np.ndarray:
        """The member's scores; -inf where it has no opinion or is missing."""
        if self.member not in candidates.members:
            return np.full(len(candidates.codes), -np.inf, np.float32)
        scores = candidates.scores[:, candidates.members.index(self.member)]
        return np.where(np.isnan(scores), np.float32(-np.inf), scores)

    def weights(self, members: Sequence[str], bounded: frozenset[str] = frozenset()) -> dict[str, float]:
        """1 for the member, 0 for the rest."""
        return {name: float(name == self.member) for name in members}

    def save(self, folder: Path) -> None:
        """Write ``best_single.json``."""
        write_json(folder / "best_single.json", {"member": self.member})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read ``best_single.json``."""
        return cls(read_json(folder / "best_single.json")["member"])


def fit(config: BestSingleConfig, lists: Sequence[LabelledList], members: Sequence[str], *, seed: int) -> BestSingle:
    """The member with the highest nDCG@10 on the lists; without lists, the last one named in params."""
    if config.member is not None:
        return BestSingle(config.member)
    if not lists:
        return BestSingle(members[-1])
    quality = {name: mean_ndcg(BestSingle(name), lists) for name in members}
    return BestSingle(max(members, key=lambda name: quality[name]))


METHOD = Method(config=BestSingleConfig, fitted=BestSingle, fit=fit)
