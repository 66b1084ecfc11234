"""A tower of queries beside that of users, over one tower of items: search learns from what people chose.

    v(i) = e(i) + P · text(i) + Q · [log price, price known]          (the items of ``two_tower``)
    q(t, h) = W · text(t) + c + p · U · Σ w v / (Σ w + damping)       (t: the query, h: the history, if there is one)
    score = q · v + m · b(i)

Trained with TF-Recommenders on two tasks at once: what is bought after a history, and what is chosen after a query.
Judged pairs teach W and c alone: they have no time, so each part of the queries needs a version that has not seen it.

Sources: Huang et al. 2020 (arXiv:2006.11632) for a query tower with context; Yi et al. 2019. Serving is numpy.
"""

from __future__ import annotations

import os
from copy import copy
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from pydantic import Field

from pipelines.arrays import read_arrays, write_arrays
from pipelines.contracts import Surface
from pipelines.features.state import FeatureState
from pipelines.model_api import Context, FittedModel, Kind, Need, Proposal, TrainingData
from pipelines.storage import read_json, write_json
from pipelines.towers import TowerConfig, pooled

LEAST_SEARCHES = 1000
"""Events after a search from which the tower is fitted: before, one person would teach too much of it."""
FOLDED = ("query", "query_bias")
"""What judgments teach."""
JUDGED = "judged"
"""Array ``[1]``: whether they did; absent where none were known."""


def of_fold(name: str, fold: int) -> str:
    """Name of an array as it is without a part of the judged queries."""
    return f"{name}_without_{fold}"


class QueryTowerConfig(TowerConfig):
    """Hyper-parameters of the three towers."""

    search_decay_days: float = Field(90.0, gt=0, description="time constant of a choice's weight")
    max_queries: int = Field(20_000, ge=1, description="distinct queries that teach, the most frequent ones")
    hard_negatives: int = Field(50, ge=1, description="items found by words that negatives of a query are drawn from")
    negatives: int = Field(2, ge=0, description="of them for each example, and as many of all items")
    least_judged: int = Field(50, ge=2, description="judged queries from which judgments teach")
    judged_steps: int = Field(30, ge=1, description="steps on all judged queries together")
    judged_rate: float = Field(0.01, gt=0, le=1, description="Adam's rate in them, of the mean size of a weight")
    reach: int = Field(100, ge=1, description="items of a list that nothing but this tower brings in")


class QueryTower(FittedModel):
    """Tables and small weights of the towers; float32 throughout; no opinion without a query's vector."""

    by_meaning: ClassVar[bool] = True

    def __init__(self, arrays: dict[str, np.ndarray], *, history_items: int, decay: str, reach: int) -> None:
        """Take what was fitted.

        Args:
            arrays: of ``learners.query_tower_fit.learn``.
            history_items: items of a history that are read, the most recent ones.
            decay: the history aggregate that weighs them.
            reach: of the configuration.
        """
        super().__init__(len(arrays["vectors"]))
        self.arrays = arrays
        self.history_items = history_items
        self.decay = decay
        self.reach = reach

    def query_vector(self, context: Context) -> np.ndarray | None:
        """The query tower, float32 ``[d]``; None without a query's vector."""
        a, query = self.arrays, context.query
        if query is None or query.vector is None:
            return None
        asked = np.asarray(query.vector, np.float32) @ a["query"] + a["query_bias"]
        recent = pooled(context.history, a["vectors"], items=self.history_items, decay=self.decay)
        if recent is not None:
            asked = asked + a["personal"] * (recent @ a["user"])
        return np.asarray(asked, np.float32)

    def score_all(self, context: Context) -> np.ndarray:
        """As above, float32 ``[n_items]``; all NaN without a query's vector."""
        asked = self.query_vector(context)
        if asked is None:
            return np.full(self.n_items, np.nan, np.float32)
        scores: np.ndarray = self.arrays["vectors"] @ asked + self.arrays["popularity"] * self.arrays["bias"]
        return scores

    def propose(self, context: Context, n: int, allowed: np.ndarray | None = None) -> Proposal:
        """Like everybody's, but no more than the nearest: every item has some score for every query."""
        return super().propose(context, min(n, self.reach), allowed)

    def judging(self, fold: int) -> FittedModel:
        """The same with the weights that judgments of a part of the queries have not taught."""
        if of_fold(FOLDED[0], fold) not in self.arrays:
            return self
        found = copy(self)
        found.arrays = self.arrays | {name: self.arrays[of_fold(name, fold)] for name in FOLDED}
        return found

    def save(self, folder: Path) -> None:
        """One ``.npy`` per array and ``query_tower.json``."""
        write_arrays(folder / "arrays", self.arrays)
        about = {"history_items": self.history_items, "decay": self.decay, "reach": self.reach}
        write_json(folder / "query_tower.json", about)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Memory-mapped."""
        return cls(read_arrays(folder / "arrays"), **read_json(folder / "query_tower.json"))


def refusing(features: FeatureState) -> str | None:
    """Why it cannot be fitted, or None."""
    if features.encoder is None:
        return "queries have no vectors"
    if features.n_searches < LEAST_SEARCHES:
        return f"{features.n_searches} choices after a search, fewer than {LEAST_SEARCHES} teach no tower"
    return None


def fit(config: QueryTowerConfig, data: TrainingData, *, seed: int) -> QueryTower:
    """Train at an instant; from the parent's weights when there is one.

    Same arguments, same bytes, as ``two_tower.fit``.
    """
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from pipelines.learners import query_tower_fit

    parent = data.parent.arrays if isinstance(data.parent, QueryTower) else None
    arrays = query_tower_fit.learn(config, data.features, parent, data.parent_features, seed=seed)
    return QueryTower(arrays, history_items=config.history_items, decay=config.decay, reach=config.reach)


KIND = Kind(
    config=QueryTowerConfig,
    fitted=QueryTower,
    fit=fit,
    needs=frozenset({Need.TEXT, Need.SEARCHES}),
    surfaces=frozenset({Surface.SEARCH}),
    warm_start=True,
    refusing=refusing,
)
