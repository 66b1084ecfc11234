"""A member that compares the meaning of a query with that of every item: all but how the query is encoded."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar, NamedTuple, Self

import numpy as np

from pipelines.main_axes import Outlines
from pipelines.model_api import Candidates, Context, FittedModel, Proposal, best, leading
from pipelines.rounded_vectors import PackedVectors, RoundedVectors

LONG_CATALOGUE = 20_000
"""Items beyond which not all of them are compared by all of their numbers; below, that takes half a millisecond."""


class ItemTexts(NamedTuple):
    """What item texts mean, as queries are compared with it.

    Attributes:
        vectors: unit vectors ``[n_items, d]``, zero rows for items without text.
        outlines: of a long catalogue, the same along the main axes.
    """

    vectors: RoundedVectors
    outlines: Outlines | None

    @classmethod
    def of(cls, text: np.ndarray) -> Self:
        """Of float vectors ``[n_items, d]``."""
        return cls(RoundedVectors.of(text), Outlines.of(text) if len(text) > LONG_CATALOGUE else None)

    def save(self, folder: Path) -> None:
        """Write the vectors, and ``outlines/`` where there are any."""
        self.vectors.save(folder)
        if self.outlines is not None:
            self.outlines.save(folder / "outlines")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote, memory-mapped."""
        outlines = folder / "outlines"
        return cls(RoundedVectors.load(folder), Outlines.load(outlines) if outlines.is_dir() else None)


class Meaning(FittedModel):
    """Unit vectors of the items, rounded; no opinion on items without text, nor without a query's vector."""

    by_meaning: ClassVar[bool] = True

    def __init__(self, texts: ItemTexts, *, reach: int) -> None:
        """``texts`` of the items; ``reach``: at most so many are proposed."""
        super().__init__(len(texts.vectors.codes))
        self._texts, self._all = texts, PackedVectors(texts.vectors)
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
        """No more than the nearest: every item has some cosine with every query. Of a long catalogue, nearly these."""
        n, outlines, asked = min(n, self._reach), self._texts.outlines, self.asked(context)
        if outlines is None or asked is None:
            return super().propose(context, n, allowed)
        near = outlines.near(asked, n, allowed)
        found = near[leading(self._texts.vectors.products(asked, near), n)]
        return Proposal(found, lambda codes: self._texts.vectors.products(asked, codes))

    def similar(self, code: int, n: int) -> Candidates | None:
        """Items whose texts mean nearly the same; None for an item without text."""
        scores = self._texts.vectors.products(self._texts.vectors.codes[code].astype(np.float32))
        if np.isnan(scores[code]):
            return None
        scores *= self._texts.vectors.scales[code]
        scores[code] = np.nan
        return best(scores, n)

    def _cosines(self, context: Context, codes: np.ndarray | None) -> np.ndarray:
        vector = self.asked(context)
        if vector is None:
            return np.full(self.n_items if codes is None else len(codes), np.nan, np.float32)
        return self._all.products(vector) if codes is None else self._texts.vectors.products(vector, codes)
