"""Which category a query leads to, by what people chose after it: items that nobody has chosen yet profit as well.

The categories that a query leads to are the classic evidence of query classification by clicks (Shen et al. 2009,
"Product Query Classification"). The score of an item is the share of people whose choice lay in one of its categories,
with a prior, as in ``click_graph``: it lies in [0, 1), and one person lifts it by at most ``1 / (prior + 1)``.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from pipelines.chosen import Chosen, ChosenConfig, counted, of_searches
from pipelines.model_api import Context, TrainingData
from pipelines.search.documents import first_categories


class CategoryPrior(Chosen):
    """Shares of categories by query; no opinion on items of categories that were never chosen after one like it.

    ``items``: ``category`` int32 ``[n_items]``, the first of each item, -1 without one.
    """

    CONFIG: ClassVar[type[ChosenConfig]] = ChosenConfig
    ABOUT: ClassVar[str] = "category_prior.json"

    def score_all(self, context: Context) -> np.ndarray:
        """Shares, float32 ``[n_items]``; NaN where nothing was chosen, and without a query."""
        scores: np.ndarray = np.append(self._shares(context), np.float32(np.nan))[self._items["category"]]
        return scores


def fit(config: ChosenConfig, data: TrainingData, *, seed: int) -> CategoryPrior:
    """Count what was chosen after each search by category."""
    del seed  # nothing is drawn
    category, n_categories = first_categories(data.features.catalog)
    choices = counted(config, data, of=category, n_codes=n_categories)
    return CategoryPrior(choices, {"category": category}, config, n_items=data.features.n_items)


KIND = of_searches(CategoryPrior, fit)
