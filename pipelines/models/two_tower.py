"""Two-tower retrieval: a user is the pooled vectors of recent items, an item its id, its text and its price.

    v(i) = e(i) + P · text(i) + Q · [log price, price known]          (an item never sold: e(i) = 0)
    u(h) = U · Σ w v / (Σ w + damping) + c + a(attributes)            (w: decayed strengths of recent items)
    score = u · v + b(i)

Trained with TF-Recommenders on (history before an event, item bought in it), in-batch softmax with log-Q
correction and accidental hits removed. By default only purchases of items new to the user teach: what a
person buys again is the `repeat` member's business, and would drown the rest.

Sources: Covington et al. 2016; Yi et al. 2019. Serving is numpy: one gather, one small and one large product.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field

from pipelines.arrays import read_arrays, write_arrays
from pipelines.features.state import UserHistory
from pipelines.inner_product import InnerProducts
from pipelines.model_api import Candidates, Context, FittedModel, Kind, Proposal, TrainingData, best
from pipelines.storage import read_json, write_json
from pipelines.towers import TowerConfig, pooled

ATTRIBUTE = "attribute_"


class TwoTowerConfig(TowerConfig):
    """Hyper-parameters of the two towers."""

    patience: int = Field(1, ge=0, description="epochs more that may pass without progress on the validation days")
    validation_days: float = Field(0.0, ge=0, description="newest days that find the number of epochs; 0: all are run")


class FittedTwoTower(FittedModel):
    """Tables and small weights of the towers; float32 throughout."""

    def __init__(self, arrays: dict[str, np.ndarray], *, history_items: int, decay: str) -> None:
        """Take what was fitted.

        Args:
            arrays: see ``learners.two_tower_fit.assemble``.
            history_items: items of a history that are read, the most recent ones.
            decay: the history aggregate that weighs them.
        """
        super().__init__(len(arrays["vectors"]))
        self.arrays = arrays
        self.history_items = history_items
        self.decay = decay

    def user_vector(self, history: UserHistory) -> np.ndarray | None:
        """The user tower, float32 ``[d]``; None when the history says nothing."""
        a = self.arrays
        recent = pooled(history, a["vectors"], items=self.history_items, decay=self.decay)
        if recent is None:
            return None
        user = recent @ a["user"] + a["user_bias"]
        for name in sorted(n for n in a if n.startswith(ATTRIBUTE)):
            user = user + a[name][history.attributes.get(name.removeprefix(ATTRIBUTE), -1) + 1]
        return np.asarray(user, np.float32)

    def score_all(self, context: Context) -> np.ndarray:
        """As in the protocol; all NaN for a user without history."""
        user = self.user_vector(context.history)
        if user is None:
            return np.full(self.n_items, np.nan, np.float32)
        scores: np.ndarray = self.arrays["vectors"] @ user + self.arrays["bias"]
        return scores

    def propose(self, context: Context, n: int, allowed: np.ndarray | None = None) -> Proposal:
        """By :mod:`pipelines.inner_product`: a long catalogue is not read whole."""
        user = self.user_vector(context.history)
        if user is None:
            return super().propose(context, n, allowed)
        products = self._products
        return Proposal(products.best(user, n, allowed), functools.partial(products.score, user))

    @functools.cached_property
    def _products(self) -> InnerProducts:
        return InnerProducts(np.asarray(self.arrays["vectors"]), np.asarray(self.arrays["bias"]))

    def similar(self, code: int, n: int) -> Candidates | None:
        """By cosine of the item tower's vectors."""
        vectors = self.arrays["vectors"]
        norms = np.linalg.norm(vectors, axis=1) + np.float32(1e-9)
        cosine = (vectors @ vectors[code]) / (norms * norms[code])
        return best(cosine, n, np.arange(self.n_items) != code)

    def save(self, folder: Path) -> None:
        """One ``.npy`` per array and ``two_tower.json``."""
        write_arrays(folder / "arrays", self.arrays)
        write_json(folder / "two_tower.json", {"history_items": self.history_items, "decay": self.decay})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Memory-mapped."""
        about = read_json(folder / "two_tower.json")
        return cls(read_arrays(folder / "arrays"), history_items=about["history_items"], decay=about["decay"])


def fit(config: TwoTowerConfig, data: TrainingData, *, seed: int) -> FittedTwoTower:
    """Train at an instant; from the parent's weights when there is one.

    Same arguments, same bytes, on one machine with one number of threads. TensorFlow is imported here, and
    its op determinism is switched on for the process.
    """
    # tensorflow-recommenders refuses Keras 3; TensorFlow reads this once, at its first import
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from pipelines.learners import two_tower_fit

    parent = data.parent.arrays if isinstance(data.parent, FittedTwoTower) else None
    arrays = two_tower_fit.learn(
        config,
        data.features,
        parent,
        data.parent_features,
        seed=seed,
        validation_days=config.validation_days,
        patience=config.patience,
    )
    return FittedTwoTower(arrays, history_items=config.history_items, decay=config.decay)


KIND = Kind(config=TwoTowerConfig, fitted=FittedTwoTower, fit=fit, warm_start=True)
