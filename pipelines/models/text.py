"""What means the same: cosine of the query's vector with those of the item texts, by a pretrained language model.

Sentence embeddings as in Reimers and Gurevych 2019 (arXiv:1908.10084).
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field

from pipelines.contracts import Surface
from pipelines.meaning import ItemTexts, Meaning
from pipelines.model_api import Context, Kind, ModelConfig, Need, TrainingData
from pipelines.storage import read_json, write_json


class TextConfig(ModelConfig):
    """How far meaning alone reaches."""

    reach: int = Field(100, ge=1, description="items of a list that nothing but their meaning brings in")


class Text(Meaning):
    """Vectors of the items, compared with the one that the query brings along."""

    def __init__(self, texts: ItemTexts, config: TextConfig) -> None:
        """``texts`` of the items."""
        super().__init__(texts, reach=config.reach)
        self._config = config

    def asked(self, context: Context) -> np.ndarray | None:
        """The query's own vector."""
        return None if context.query is None else context.query.vector

    def save(self, folder: Path) -> None:
        """Write the vectors and ``text.json``."""
        self._texts.save(folder)
        write_json(folder / "text.json", self._config.model_dump())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote."""
        return cls(ItemTexts.load(folder), TextConfig(**read_json(folder / "text.json")))


def fit(config: TextConfig, data: TrainingData, *, seed: int) -> Text:
    """Round the item texts' vectors."""
    del seed  # nothing is drawn
    assert data.features.text is not None  # noqa: S101 - the kind needs it
    return Text(ItemTexts.of(np.asarray(data.features.text)), config)


KIND = Kind(config=TextConfig, fitted=Text, fit=fit, needs=frozenset({Need.TEXT}), surfaces=frozenset({Surface.SEARCH}))
