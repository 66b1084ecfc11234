"""What people chose after the same search, or one like it: the graph that choices draw between queries and items.

Craswell and Szummer 2007, "Random Walks on the Click Graph", with one step to queries of nearly the same terms. The
score is a share with a prior, ``e_i / (prior + sum_j e_j)`` with e the evidence of ``search.choices``: it lies in
[0, 1), and one person lifts it by at most ``1 / (prior + 1)``.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from pydantic import Field

from pipelines.contracts import Surface
from pipelines.model_api import Context, FittedModel, Kind, ModelConfig, Need, TrainingData
from pipelines.search.analysis import Analyzer
from pipelines.search.choices import Choices
from pipelines.storage import read_json, write_json


class ClickGraphConfig(ModelConfig):
    """How much it takes to be believed, and how far a query reaches."""

    prior: float = Field(5.0, gt=0, description="people's choices that count as having said nothing")
    days: float = Field(90.0, gt=0, description="time constant of the decay")
    likeness: float = Field(0.6, gt=0, le=1, description="least Jaccard index of the terms of queries that are alike")


class ClickGraph(FittedModel):
    """Choices by query; no opinion on what was never chosen after a query like this."""

    BOUNDED: ClassVar[bool] = True

    def __init__(self, choices: Choices, config: ClickGraphConfig) -> None:
        """``choices``: of items."""
        super().__init__(choices.n_codes)
        self._choices = choices
        self._config = config

    def score_all(self, context: Context) -> np.ndarray:
        """Shares, float32 ``[n_items]``; NaN for items that nobody chose, and without a query."""
        terms = context.query.terms if context.query is not None else ()
        return self._choices.shares(terms, prior=self._config.prior, likeness=self._config.likeness)

    def save(self, folder: Path) -> None:
        """Write the choices and ``click_graph.json``."""
        self._choices.save(folder)
        write_json(folder / "click_graph.json", self._config.model_dump())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote."""
        return cls(Choices.load(folder), ClickGraphConfig(**read_json(folder / "click_graph.json")))


def fit(config: ClickGraphConfig, data: TrainingData, *, seed: int) -> ClickGraph:
    """Count what was chosen after each search; queries with the same terms are one."""
    from pipelines.features import history  # the table engine, which a service has not

    del seed  # nothing is drawn
    key = Analyzer(data.features.language).key
    keys, items, evidence = history.chosen_after_searches(data.features, key, days=config.days)
    return ClickGraph(Choices.of(data.features.n_items, keys, items, evidence), config)


KIND = Kind(
    config=ClickGraphConfig,
    fitted=ClickGraph,
    fit=fit,
    needs=frozenset({Need.SEARCHES}),
    surfaces=frozenset({Surface.SEARCH}),
)
