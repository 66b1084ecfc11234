"""Which category a query leads to, by what people chose after it: items that nobody has chosen yet profit as well.

The categories that a query leads to are the classic evidence of query classification by clicks (Shen et al. 2009,
"Product Query Classification"). The score of an item is the share of people whose choice lay in one of its categories,
with a prior, as in ``click_graph``: it lies in [0, 1), and one person lifts it by at most ``1 / (prior + 1)``.
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
from pipelines.search.documents import first_categories
from pipelines.storage import read_array, read_json, write_arrays, write_json


class CategoryPriorConfig(ModelConfig):
    """How much it takes to be believed, and how far a query reaches."""

    prior: float = Field(5.0, gt=0, description="people's choices that count as having said nothing")
    days: float = Field(90.0, gt=0, description="time constant of the decay")
    likeness: float = Field(0.5, gt=0, le=1, description="least Jaccard index of the terms of queries that are alike")


class CategoryPrior(FittedModel):
    """Shares of categories by query; no opinion on items of categories that were never chosen after one like it."""

    BOUNDED: ClassVar[bool] = True

    def __init__(self, choices: Choices, category: np.ndarray, config: CategoryPriorConfig) -> None:
        """``choices``: of categories; ``category`` int32 ``[n_items]``: first category of each item, -1 without one."""
        super().__init__(len(category))
        self._choices = choices
        self._category = category
        self._config = config

    def score_all(self, context: Context) -> np.ndarray:
        """Shares, float32 ``[n_items]``; NaN where nothing was chosen, and without a query."""
        terms = context.query.terms if context.query is not None else ()
        shares = self._choices.shares(terms, prior=self._config.prior, likeness=self._config.likeness)
        scores: np.ndarray = np.append(shares, np.float32(np.nan))[self._category]
        return scores

    def save(self, folder: Path) -> None:
        """Write the choices, ``items/category.npy`` and ``category_prior.json``."""
        self._choices.save(folder)
        (folder / "items").mkdir()
        write_arrays(folder / "items", {"category": self._category})
        write_json(folder / "category_prior.json", self._config.model_dump())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote."""
        config = CategoryPriorConfig(**read_json(folder / "category_prior.json"))
        return cls(Choices.load(folder), read_array(folder / "items" / "category.npy"), config)


def fit(config: CategoryPriorConfig, data: TrainingData, *, seed: int) -> CategoryPrior:
    """Count what was chosen after each search by category; a person counts once for a query and a category."""
    from pipelines.features import history  # the table engine, which a service has not

    del seed  # nothing is drawn
    category, n_categories = first_categories(data.features.catalog)
    key = Analyzer(data.features.language).key
    keys, codes, evidence = history.chosen_after_searches(data.features, key, days=config.days, of=category)
    return CategoryPrior(Choices.of(n_categories, keys, codes, evidence), category, config)


KIND = Kind(
    config=CategoryPriorConfig,
    fitted=CategoryPrior,
    fit=fit,
    needs=frozenset({Need.SEARCHES}),
    surfaces=frozenset({Surface.SEARCH}),
)
