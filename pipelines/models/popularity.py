"""What sells now: one score for everybody, the strongest baseline for people never met."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field, field_validator

from pipelines.arrays import read_array, write_arrays
from pipelines.features.definitions import ITEM
from pipelines.model_api import Context, FittedModel, Kind, ModelConfig, Proposal, TrainingData, first_allowed


class PopularityConfig(ModelConfig):
    """Which item aggregate counts as popularity."""

    aggregate: str = Field("bought_last28", description="name of an aggregate in features.definitions.ITEM")

    @field_validator("aggregate")
    @classmethod
    def _exists(cls, value: str) -> str:
        names = [aggregate.name for aggregate in ITEM]
        if value not in names:
            raise ValueError(f"no item aggregate {value!r}; there are: {', '.join(names)}")
        return value


class Popularity(FittedModel):
    """Scores float32 ``[n_items]``, 0 for what did not sell; the same for every context."""

    def __init__(self, scores: np.ndarray) -> None:
        """``scores``: float32 ``[n_items]``."""
        super().__init__(len(scores))
        self._scores = scores

    def score_all(self, context: Context) -> np.ndarray:
        """The scores, whoever asks."""
        return self._scores

    def propose(self, context: Context, n: int, allowed: np.ndarray | None = None) -> Proposal:
        """The head of one list that is sorted once."""
        return Proposal(first_allowed(self._order, n, allowed), self._scores.__getitem__)

    @functools.cached_property
    def _order(self) -> np.ndarray:
        """Codes from the best, ties by lower code."""
        return np.argsort(-self._scores, kind="stable")

    def save(self, folder: Path) -> None:
        """Write ``scores.npy``."""
        write_arrays(folder, {"scores": self._scores})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read ``scores.npy``."""
        return cls(np.asarray(read_array(folder / "scores.npy")))


def fit(config: PopularityConfig, data: TrainingData, *, seed: int) -> Popularity:
    """Take the aggregate as it is."""
    return Popularity(np.array(data.features.items[config.aggregate], np.float32))


KIND = Kind(config=PopularityConfig, fitted=Popularity, fit=fit)
