"""What sells, in the categories and at the prices that a query leads to.

    score(i) = share(q, category(i), band(i)) · s(i),   s(i) = (buyers(i) + prior) / (most of the category + prior)

The share is that of the people who chose something of this category and band of prices after the query, with the same
prior, as in ``click_graph``; popularity orders what lies there. Both factors lie in [0, 1] and one person moves each by
less than ``1 / (prior + 1)``, so an item is lifted by less than ``2 / (prior + 1)``. A band is an octile of the shop's
prices.

Popularity and price as evidence beside a query's words: Sorokina and Cantú-Paz 2016, "Amazon Search: The Joy of Ranking
Products", section 3.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from pipelines.chosen import Chosen, ChosenConfig, counted, of_searches
from pipelines.features.state import FeatureState
from pipelines.model_api import Context, TrainingData
from pipelines.search.documents import first_categories

BANDS = 8
"""Of known prices; items without a price lie in one more."""


class DemandPriorConfig(ChosenConfig):
    """One person moves both factors of a score, so it takes twice as many to be believed."""

    prior: float = Field(11.0, gt=0, description="people's choices that count as having said nothing")


class DemandPrior(Chosen):
    """Shares by query times popularity; no opinion where nobody chose, and on items without a category.

    ``items``: ``place`` int32 ``[n_items]``, category and band of prices of an item, -1 without a category;
    ``popularity`` float32 ``[n_items]`` in (0, 1].
    """

    CONFIG: ClassVar[type[ChosenConfig]] = DemandPriorConfig
    ABOUT: ClassVar[str] = "demand_prior.json"

    def score_all(self, context: Context) -> np.ndarray:
        """As above, float32 ``[n_items]``; NaN where nothing was chosen, and without a query."""
        shares = np.append(self._shares(context), np.float32(np.nan))
        scores: np.ndarray = shares[self._items["place"]] * self._items["popularity"]
        return scores


def places(features: FeatureState) -> tuple[np.ndarray, int]:
    """Category and band of each item in one number, int32 ``[n_items]``, -1 without a category; and how many."""
    category, n_categories = first_categories(features.catalog)
    price = features.items["price"]
    known = np.isfinite(price) & (price > 0)
    band = np.full(len(price), BANDS, np.int32)
    if known.any():
        edges = np.quantile(price[known], np.arange(1, BANDS) / BANDS)
        band[known] = np.searchsorted(edges, price[known], side="right")
    return np.where(category < 0, -1, category * (BANDS + 1) + band).astype(np.int32), n_categories * (BANDS + 1)


def popularity(features: FeatureState, prior: float) -> np.ndarray:
    """Buyers of an item, as a share of those of what sells most in its category, float32 ``[n_items]`` in (0, 1]."""
    category, n_categories = first_categories(features.catalog)
    buyers = np.asarray(features.items["buyers"], np.float32)
    most = np.zeros(n_categories + 1, np.float32)  # the last is for items without a category
    np.maximum.at(most, category, buyers)
    shares: np.ndarray = ((buyers + prior) / (most[category] + prior)).astype(np.float32)
    return shares


def fit(config: DemandPriorConfig, data: TrainingData, *, seed: int) -> DemandPrior:
    """Count what was chosen after each search by category and price."""
    del seed  # nothing is drawn
    place, n_places = places(data.features)
    items = {"place": place, "popularity": popularity(data.features, config.prior)}
    return DemandPrior(counted(config, data, of=place, n_codes=n_places), items, config, n_items=data.features.n_items)


KIND = of_searches(DemandPrior, fit)
