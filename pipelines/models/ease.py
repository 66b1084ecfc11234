"""Linear autoencoder in closed form (Steck 2019, "Embarrassingly shallow autoencoders for sparse data").

With G = X'X + lambda I and P = G^-1, the weights that minimise |X - XB|^2 + lambda |B|^2 under a zero
diagonal are ``B[i, j] = -P[i, j] / P[j, j]`` (equation 8). Scores are w B, with w the user's decayed counts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field

from pipelines.arrays import read_array, write_arrays
from pipelines.model_api import Candidates, Context, FittedModel, Kind, ModelConfig, TrainingData
from pipelines.neighbours import Neighbours


class EaseConfig(ModelConfig):
    """Regularisation, and the bounds on memory and time."""

    l2: float = Field(200.0, gt=0, description="lambda; larger is smoother")
    max_items: int = Field(8000, ge=2, description="most bought items that take part; fitting takes 16 n^2 bytes")
    neighbours: int = Field(600, ge=1, description="weights kept per item, largest by magnitude; 8 bytes each")


class Ease(FittedModel):
    """Sparse weights among the items that take part."""

    def __init__(self, takes_part: np.ndarray, weights: Neighbours) -> None:
        """``takes_part`` bool ``[n_items]``; ``weights``: row i holds the largest ``B[i, j]`` by magnitude."""
        super().__init__(len(takes_part))
        self._takes_part = takes_part
        self._weights = weights

    def score_all(self, context: Context) -> np.ndarray:
        """Float32 ``[n_items]``; NaN for items that do not take part, all NaN when no bought item does."""
        counts = context.history.aggregates["bought_decay90"]
        known = self._takes_part[context.history.items] & (counts > 0)
        if not known.any():
            return np.full(self.n_items, np.nan, np.float32)
        scores = self._weights.sum(context.history.items[known], counts[known])
        return np.where(self._takes_part, scores, np.float32(np.nan))

    def similar(self, code: int, n: int) -> Candidates | None:
        """Items with the largest weight from this one."""
        return self._weights.nearest(code, n) if self._takes_part[code] else None

    def save(self, folder: Path) -> None:
        """Write the arrays."""
        write_arrays(folder, {"takes_part": self._takes_part})
        self._weights.save(folder / "weights")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote; the weights stay memory-mapped."""
        return cls(np.asarray(read_array(folder / "takes_part.npy")), Neighbours.load(folder / "weights"))


def fit(config: EaseConfig, data: TrainingData, *, seed: int) -> Ease:
    """Invert the Gram matrix of who ever bought what."""
    from scipy import sparse
    from scipy.linalg import lapack

    features = data.features
    bought = np.asarray(features.user_items.aggregates["bought"]) > 0
    users, codes = features.user_items.users[bought], np.asarray(features.user_items.items[bought])
    count = np.bincount(codes, minlength=features.n_items)
    takes_part = np.sort(np.lexsort((np.arange(features.n_items), -count))[: config.max_items])
    takes_part = takes_part[count[takes_part] > 0]
    ones = np.ones(len(codes), np.float32)
    x = sparse.csr_matrix((ones, (users, codes)), (features.n_users, features.n_items))[:, takes_part]
    gram = np.asfortranarray((x.T @ x).toarray())
    gram[np.diag_indices_from(gram)] += config.l2
    factor, _ = lapack.spotrf(gram, lower=1, overwrite_a=1)
    precision, _ = lapack.spotri(factor, lower=1, overwrite_c=1)
    precision = np.tril(precision) + np.tril(precision, -1).T
    weights = (-precision / np.diag(precision)).astype(np.float32)
    np.fill_diagonal(weights, 0.0)
    rows: list[tuple[np.ndarray, np.ndarray]] = [(np.zeros(0, np.int64), np.zeros(0))] * features.n_items
    keep = min(config.neighbours, len(takes_part))
    for place, item in enumerate(takes_part):
        largest = np.sort(np.argpartition(-np.abs(weights[place]), keep - 1)[:keep])
        rows[item] = (takes_part[largest], weights[place, largest])
    mask = np.zeros(features.n_items, bool)
    mask[takes_part] = True
    return Ease(mask, Neighbours.of(rows))


KIND = Kind(config=EaseConfig, fitted=Ease, fit=fit)
