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

from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from pydantic import Field

from pipelines.contracts import Surface
from pipelines.features.state import FeatureState
from pipelines.model_api import Context, FittedModel, Kind, ModelConfig, Need, TrainingData
from pipelines.search.analysis import Analyzer
from pipelines.search.choices import Choices
from pipelines.search.documents import first_categories
from pipelines.storage import read_arrays, read_json, write_arrays, write_json

BANDS = 8
"""Of known prices; items without a price lie in one more."""


class DemandPriorConfig(ModelConfig):
    """How much it takes to be believed, and how far a query reaches."""

    prior: float = Field(11.0, gt=0, description="people's choices that count as having said nothing")
    days: float = Field(90.0, gt=0, description="time constant of the decay")
    likeness: float = Field(0.5, gt=0, le=1, description="least Jaccard index of the terms of queries that are alike")


class DemandPrior(FittedModel):
    """Shares by query times popularity; no opinion where nobody chose, and on items without a category."""

    BOUNDED: ClassVar[bool] = True

    def __init__(self, choices: Choices, items: dict[str, np.ndarray], config: DemandPriorConfig) -> None:
        """Put parts together.

        Args:
            choices: of categories at bands of prices.
            items: ``place`` int32 ``[n_items]``, which of them an item lies in, -1 without a category; ``popularity``
                float32 ``[n_items]`` in (0, 1].
            config: of the kind.
        """
        super().__init__(len(items["place"]))
        self._choices = choices
        self._items = items
        self._config = config

    def score_all(self, context: Context) -> np.ndarray:
        """As above, float32 ``[n_items]``; NaN where nothing was chosen, and without a query."""
        terms = context.query.terms if context.query is not None else ()
        shares = self._choices.shares(terms, prior=self._config.prior, likeness=self._config.likeness)
        scores: np.ndarray = np.append(shares, np.float32(np.nan))[self._items["place"]] * self._items["popularity"]
        return scores

    def save(self, folder: Path) -> None:
        """Write the choices, ``items/`` and ``demand_prior.json``."""
        self._choices.save(folder)
        (folder / "items").mkdir()
        write_arrays(folder / "items", self._items)
        write_json(folder / "demand_prior.json", self._config.model_dump())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote."""
        config = DemandPriorConfig(**read_json(folder / "demand_prior.json"))
        return cls(Choices.load(folder), read_arrays(folder / "items"), config)


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
    """Count what was chosen after each search by category and price; a person counts once for a query and such."""
    from pipelines.features import history  # the table engine, which a service has not

    del seed  # nothing is drawn
    place, n_places = places(data.features)
    key = Analyzer(data.features.language).key
    keys, codes, evidence = history.chosen_after_searches(data.features, key, days=config.days, of=place)
    items = {"place": place, "popularity": popularity(data.features, config.prior)}
    return DemandPrior(Choices.of(n_places, keys, codes, evidence), items, config)


KIND = Kind(
    config=DemandPriorConfig,
    fitted=DemandPrior,
    fit=fit,
    needs=frozenset({Need.SEARCHES}),
    surfaces=frozenset({Surface.SEARCH}),
)
