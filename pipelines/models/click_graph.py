"""What people chose after the same search, or one like it: the graph that choices draw between queries and items.

Craswell and Szummer 2007, "Random Walks on the Click Graph", with one step to queries of nearly the same terms. The
score is a share with a prior, ``e_i / (prior + sum_j e_j)`` with e the evidence of ``search.choices``: it lies in
[0, 1), and one person lifts it by at most ``1 / (prior + 1)``.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from pipelines.chosen import Chosen, ChosenConfig, counted, of_searches
from pipelines.model_api import Context, TrainingData


class ClickGraphConfig(ChosenConfig):
    """Items are many, and what was chosen after another query says less of them than of categories."""

    likeness: float = Field(0.6, gt=0, le=1, description="least Jaccard index of the terms of queries that are alike")


class ClickGraph(Chosen):
    """Choices by query; no opinion on what was never chosen after a query like this."""

    CONFIG: ClassVar[type[ChosenConfig]] = ClickGraphConfig
    ABOUT: ClassVar[str] = "click_graph.json"

    def score_all(self, context: Context) -> np.ndarray:
        """Shares, float32 ``[n_items]``; NaN for items that nobody chose, and without a query."""
        return self._shares(context)


def fit(config: ClickGraphConfig, data: TrainingData, *, seed: int) -> ClickGraph:
    """Count what was chosen after each search."""
    del seed  # nothing is drawn
    return ClickGraph(counted(config, data), {}, config, n_items=data.features.n_items)


KIND = of_searches(ClickGraph, fit)
