"""Item-based collaborative filtering: cosine between the sets of buyers, with shrinkage.

Sarwar et al. 2001 ("Item-based collaborative filtering recommendation algorithms"); shrinkage after
Bell and Koren 2007. With X users x items, 1 where ever bought, and G = X'X:
``C[i, j] = G[i, j] / (sqrt(G[i, i]) * (sqrt(G[j, j]) + shrink))``, zero diagonal; score = x C.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field

from pipelines.model_api import Candidates, Context, FittedModel, Kind, ModelConfig, TrainingData
from pipelines.neighbours import Neighbours


class ItemKnnConfig(ModelConfig):
    """Shrinkage and size of the neighbourhood."""

    shrink: float = Field(10.0, ge=0, description="added to the norm of the scored item; damps rare items")
    neighbours: int = Field(1500, ge=1, description="neighbours kept per item; memory is 8 bytes each")


class ItemKnn(FittedModel):
    """The score of an item is the sum of its similarities to what the user bought."""

    def __init__(self, neighbours: Neighbours) -> None:
        """``neighbours``: similar items of each item."""
        super().__init__(neighbours.n_items)
        self._neighbours = neighbours

    def score_all(self, context: Context) -> np.ndarray:
        """Float32 ``[n_items]``; 0 for items no neighbour of which was bought; all NaN without a purchase."""
        seen = context.history.seen
        if not len(seen):
            return np.full(self.n_items, np.nan, np.float32)
        return self._neighbours.sum(seen)

    def similar(self, code: int, n: int) -> Candidates:
        """The item's own neighbours."""
        return self._neighbours.nearest(code, n)

    def save(self, folder: Path) -> None:
        """Write the neighbour lists."""
        self._neighbours.save(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote, memory-mapped."""
        return cls(Neighbours.load(folder))


def fit(config: ItemKnnConfig, data: TrainingData, *, seed: int) -> ItemKnn:
    """Count co-buyers in blocks of items, so that memory stays at block x items."""
    from scipy import sparse

    user_items = data.features.user_items
    bought = np.asarray(user_items.aggregates["bought"]) > 0
    n_items = data.features.n_items
    shape = (data.features.n_users, n_items)
    ones = np.ones(int(bought.sum()), np.float32)
    x = sparse.csr_matrix((ones, (user_items.users[bought], user_items.items[bought])), shape=shape)
    norm = np.sqrt(np.asarray(x.sum(axis=0)).ravel())
    columns = x.T.tocsr()
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    for start in range(0, n_items, 512):
        block = (columns[start : start + 512] @ x).tocsr()
        for row in range(block.shape[0]):
            item = start + row
            span = slice(block.indptr[row], block.indptr[row + 1])
            others, counts = block.indices[span], block.data[span]
            others, counts = others[others != item], counts[others != item]
            weights = (counts / (norm[item] * (norm[others] + config.shrink))).astype(np.float32)
            order = np.lexsort((others, -weights))[: config.neighbours]
            kept.append((others[order], weights[order]))
    return ItemKnn(Neighbours.of(kept))


KIND = Kind(config=ItemKnnConfig, fitted=ItemKnn, fit=fit)
