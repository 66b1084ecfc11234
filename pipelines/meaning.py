"""A member that compares the meaning of a query with that of every item: all but how the query is encoded."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np

from pipelines.model_api import Candidates, Context, FittedModel, Proposal, best
from pipelines.rounded_vectors import RoundedVectors


class Meaning(FittedModel):
    """Unit vectors of the items, rounded; no opinion on items without text, nor without a query's vector."""

    by_meaning: ClassVar[bool] = True

    def __init__(self, vectors: RoundedVectors, *, reach: int) -> None:
        """``vectors`` of the items, zero rows for those without text; ``reach``: at most so many are proposed."""
        super().__init__(len(vectors.codes))
        self._vectors = vectors
        self._reach = reach

    @abstractmethod
    def asked(self, context: Context) -> np.ndarray | None:
        """Unit vector of what was asked, float32 ``[d]``, or None."""

    def score_all(self, context: Context) -> np.ndarray:
        """Cosines up to the rounding of both vectors (``rounded_vectors``), float32 ``[n_items]``, about -1 to 1."""
        return self._cosines(context, None)

    def score(self, context: Context, codes: np.ndarray) -> np.ndarray:
        """Those of :meth:`score_all`, to the bit; only these rows are read."""
        return self._cosines(context, codes)

    def propose(self, context: Context, n: int, allowed: np.ndarray | None = None) -> Proposal:
        """Like everybody's, but no more than the nearest: every item has some cosine with every query."""
        return super().propose(context, min(n, self._reach), allowed)

    def similar(self, code: int, n: int) -> Candidates | None:
        """Items whose texts mean nearly the same; None for an item without text."""
        scores = self._vectors.products(self._vectors.codes[code].astype(np.float32))
        if np.isnan(scores[code]):
            return None
        scores *= self._vectors.scales[code]
        scores[code] = np.nan
        return best(scores, n)

    def _cosines(self, context: Context, codes: np.ndarray | None) -> np.ndarray:
        vector = self.asked(context)
        if vector is None:
            return np.full(self.n_items if codes is None else len(codes), np.nan, np.float32)
        return self._vectors.products(vector, codes)
