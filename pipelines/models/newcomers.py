"""What has just come in, and how well it starts: purchases a day of the items first bought in the last weeks.

Members that learn who buys what need weeks of an item's purchases before they propose it, and what sold most in a month
is not what came on Monday. Purchases of a new item are taken for a Poisson process with a gamma prior; the score is the
posterior mean of its rate (Gelman et al. 2013, "Bayesian Data Analysis", section 2.6), so that one order in the first
hour does not lead.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field

from pipelines.arrays import read_array, write_arrays
from pipelines.contracts import Surface
from pipelines.model_api import Context, FittedModel, Kind, ModelConfig, Proposal, TrainingData, first_allowed


class NewcomersConfig(ModelConfig):
    """How long an item is new, and how slowly its first purchases are believed."""

    days: float = Field(28.0, gt=0, description="since the first event of an item")
    prior_days: float = Field(3.0, gt=0, description="days of the usual newcomer's sales that each is credited with")


class Newcomers(FittedModel):
    """Purchases a day, float32 ``[n_items]``, the same for every context; no opinion on items that are not new."""

    def __init__(self, rates: np.ndarray) -> None:
        """``rates``: float32 ``[n_items]``, NaN for what is not new."""
        super().__init__(len(rates))
        self._rates = rates

    def score_all(self, context: Context) -> np.ndarray:
        """The rates, whoever asks."""
        return self._rates

    def propose(self, context: Context, n: int, allowed: np.ndarray | None = None) -> Proposal:
        """The head of one list that is sorted once."""
        return Proposal(first_allowed(self._order, n, allowed), self._rates.__getitem__)

    @functools.cached_property
    def _order(self) -> np.ndarray:
        """Codes of the newcomers from the best, ties by lower code."""
        return np.argsort(-self._rates, kind="stable")[: np.count_nonzero(~np.isnan(self._rates))]

    def save(self, folder: Path) -> None:
        """Write ``rates.npy``."""
        write_arrays(folder, {"rates": self._rates})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read ``rates.npy``."""
        return cls(np.asarray(read_array(folder / "rates.npy")))


def fit(config: NewcomersConfig, data: TrainingData, *, seed: int) -> Newcomers:
    """Rates from the aggregates of the items."""
    del seed  # nothing is drawn
    age = np.asarray(data.features.items["first_age"], np.float64)
    bought = np.asarray(data.features.items["bought"], np.float64)
    new = (age >= 0) & (age <= config.days)
    usual = bought[new].sum() / max(age[new].sum(), 1.0)
    rates = np.full(len(age), np.nan, np.float32)
    rates[new] = (bought[new] + config.prior_days * usual) / (age[new] + config.prior_days)
    return Newcomers(rates)


KIND = Kind(config=NewcomersConfig, fitted=Newcomers, fit=fit, surfaces=frozenset({Surface.RECOMMEND_NEW}))
