"""What means the same: cosine of the query's vector with those of the item texts, by a pretrained language model.

Sentence embeddings as in Reimers and Gurevych 2019 (arXiv:1908.10084).
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from pydantic import Field

from pipelines.contracts import Surface
from pipelines.model_api import Context, FittedModel, Kind, ModelConfig, Need, Proposal, TrainingData
from pipelines.storage import read_array, read_json, write_arrays, write_json


class TextConfig(ModelConfig):
    """How far meaning alone reaches."""

    reach: int = Field(100, ge=1, description="items of a list that nothing but their meaning brings in")


class Text(FittedModel):
    """Unit vectors of the items; no opinion on items without text, nor without a query's vector."""

    by_meaning: ClassVar[bool] = True

    def __init__(self, vectors: np.ndarray, config: TextConfig) -> None:
        """``vectors``: float16 ``[n_items, d]``, zero rows for items without text."""
        super().__init__(len(vectors))
        self._vectors = vectors
        self._config = config
        self._single = np.asarray(vectors, np.float32)
        self._without_text = ~self._single.any(axis=1)

    def score_all(self, context: Context) -> np.ndarray:
        """Cosines, float32 ``[n_items]``, -1 to 1."""
        if context.query is None or context.query.vector is None:
            return np.full(self.n_items, np.nan, np.float32)
        scores: np.ndarray = self._single @ np.asarray(context.query.vector, np.float32)
        scores[self._without_text] = np.nan
        return scores

    def propose(self, context: Context, n: int, allowed: np.ndarray | None = None) -> Proposal:
        """Like everybody's, but no more than the nearest: every item has some cosine with every query."""
        return super().propose(context, min(n, self._config.reach), allowed)

    def save(self, folder: Path) -> None:
        """Write ``vectors.npy`` and ``text.json``."""
        write_arrays(folder, {"vectors": self._vectors})
        write_json(folder / "text.json", self._config.model_dump())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote."""
        return cls(read_array(folder / "vectors.npy"), TextConfig(**read_json(folder / "text.json")))


def fit(config: TextConfig, data: TrainingData, *, seed: int) -> Text:
    """Take the item texts' vectors as they are."""
    del seed  # nothing is drawn
    assert data.features.text is not None  # noqa: S101 - the kind needs it
    return Text(np.asarray(data.features.text), config)


KIND = Kind(config=TextConfig, fitted=Text, fit=fit, needs=frozenset({Need.TEXT}), surfaces=frozenset({Surface.SEARCH}))
