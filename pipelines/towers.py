"""What towers have in common: the settings of their training, and how a history is pooled."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from pipelines.features.state import UserHistory
from pipelines.model_api import ModelConfig

DAMPING = 0.1
"""Added to a history's total weight, in purchases of today: one that is old or thin says little, and its user
comes close to the average user."""


class TowerConfig(ModelConfig):
    """Hyper-parameters of users and items; defaults tuned on Online Retail II before 2010-11-03."""

    dimension: int = Field(128, ge=2, le=1024, description="width of all towers' output")
    text_dimensions: int = Field(128, ge=1, le=1024, description="principal components of the text vectors kept")
    history_items: int = Field(100, ge=1, le=1000, description="distinct recent items that describe a user")
    history_decay_days: Literal[30, 90] = Field(90, description="time constant of a history item's weight")
    example_decay_days: float = Field(45.0, gt=0, description="time constant of an example's weight")
    repeat_weight: float = Field(0.0, ge=0, le=1, description="weight of purchases of items the user already had")
    history_dropout: float = Field(0.5, ge=0, lt=1, description="share of history items left out while training")
    batch_size: int = Field(1024, ge=2, description="examples a step; their items are each other's negatives")
    learning_rate: float = Field(0.004, gt=0, le=1, description="Adam's rate at the start")
    epochs: int = Field(8, ge=1, description="at most, from scratch")
    warm_epochs: int = Field(2, ge=1, description="at most, from an earlier instant's weights")
    least_steps: int = Field(25, ge=1, description="steps an epoch has at least, however small the shop")
    examples_per_epoch: int = Field(1_000_000, ge=1, description="at most; else the effective number of examples")

    @property
    def decay(self) -> str:
        """The history aggregate that weighs a history's items."""
        return f"strength_decay{self.history_decay_days}"


def pooled(history: UserHistory, vectors: np.ndarray, *, items: int, decay: str) -> np.ndarray | None:
    """Weighted mean of the vectors of a history's recent items, damped, ``[d]``; None when the history says nothing.

    Args:
        history: finished for scoring.
        vectors: of all items, ``[n_items, d]``.
        items: at most so many, the most recent ones.
        decay: the aggregate that weighs them.
    """
    weights = history.aggregates[decay][:items]
    total = weights.sum()
    if not total > 0:
        return None
    mean: np.ndarray = (weights / (total + np.float32(DAMPING))) @ vectors[history.items[:items]]
    return mean
