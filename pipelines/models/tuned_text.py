"""What means the same in this shop: as ``text``, but queries are encoded by a network tuned on the shop's labels.

The stage ``tune`` makes it (``adapters.tuner``). The vectors of the items are those of ``text``: only what is asked is
read differently.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from pydantic import Field

from pipelines.contracts import Surface
from pipelines.features.state import FeatureState
from pipelines.model_api import Context, FittedModel, Kind, ModelConfig, Need, Proposal, TrainingData
from pipelines.search.encoding import ENCODER, Additions, QueryEncoder
from pipelines.storage import read_array, read_json, write_arrays, write_json
from pipelines.tuning import saved


class TunedTextConfig(ModelConfig):
    """How far meaning alone reaches."""

    reach: int = Field(100, ge=1, description="items of a list that nothing but their meaning brings in")


class TunedText(FittedModel):
    """Unit vectors of the items and an encoder of queries; no opinion on items without text, nor without a query."""

    by_meaning: ClassVar[bool] = True

    def __init__(
        self,
        vectors: np.ndarray,
        encoder: Path,
        versions: Mapping[str, Additions],
        config: TunedTextConfig,
    ) -> None:
        """Put parts together.

        Args:
            vectors: float16 ``[n_items, d]``, zero rows for items without text.
            encoder: folder of the graph; read with the first query.
            versions: of ``tuning.saved``.
            config: of the kind.
        """
        super().__init__(len(vectors))
        self._vectors = vectors
        self._folder = encoder
        self._versions = dict(versions)
        self._config = config
        self._encoder = QueryEncoder(encoder, versions[saved.ALL])
        self._single = np.asarray(vectors, np.float32)
        self._without_text = ~self._single.any(axis=1)
        self._judging: dict[int, TunedText] = {}

    def score_all(self, context: Context) -> np.ndarray:
        """Cosines, float32 ``[n_items]``, -1 to 1."""
        if context.query is None or not context.query.text:
            return np.full(self.n_items, np.nan, np.float32)
        scores: np.ndarray = self._single @ self._encoder.encode(context.query.text)
        scores[self._without_text] = np.nan
        return scores

    def propose(self, context: Context, n: int, allowed: np.ndarray | None = None) -> Proposal:
        """Like everybody's, but no more than the nearest: every item has some cosine with every query."""
        return super().propose(context, min(n, self._config.reach), allowed)

    def judging(self, fold: int) -> FittedModel:
        """The same with the version that learned nothing of a part of the queries; itself where there is none."""
        if str(fold) not in self._versions:
            return self
        if fold not in self._judging:
            found = copy(self)
            found._encoder = QueryEncoder(self._folder, self._versions[str(fold)])  # noqa: SLF001 - of its own kind
            self._judging[fold] = found
        return self._judging[fold]

    def save(self, folder: Path) -> None:
        """Write ``vectors.npy``, ``tuned_text.json``, and ``tuned/`` as ``tuning.saved`` has it."""
        write_arrays(folder, {"vectors": self._vectors})
        write_json(folder / "tuned_text.json", self._config.model_dump())
        (folder / "tuned").mkdir()
        saved.write(folder / "tuned", self._folder, self._versions, {})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote."""
        config = TunedTextConfig(**read_json(folder / "tuned_text.json"))
        tuned = folder / "tuned"
        return cls(read_array(folder / "vectors.npy"), tuned / ENCODER, saved.read(tuned), config)


def refusing(features: FeatureState) -> str | None:
    """Why there is no tuned encoder as of the instant, or None."""
    return saved.reason(features.tuned)


def fit(config: TunedTextConfig, data: TrainingData, *, seed: int) -> TunedText:
    """Take the item texts' vectors and the tuned encoder as they are."""
    del seed  # the stage `tune` has drawn what there was to draw
    tuned = data.features.tuned
    assert data.features.text is not None  # noqa: S101 - the kind needs it
    assert tuned is not None  # noqa: S101 - the kind refuses without
    return TunedText(np.asarray(data.features.text), tuned / ENCODER, saved.read(tuned), config)


KIND = Kind(
    config=TunedTextConfig,
    fitted=TunedText,
    fit=fit,
    needs=frozenset({Need.TEXT}),
    surfaces=frozenset({Surface.SEARCH}),
    refusing=refusing,
)
