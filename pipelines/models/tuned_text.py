"""What means the same in this shop: as ``text``, but queries are encoded by a network tuned on the shop's labels.

The stage ``tune`` makes it (``adapters.tuner``). The vectors of the items are those of ``text``: only what is asked is
read differently.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from copy import copy
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field

from pipelines.contracts import Surface
from pipelines.features.state import FeatureState
from pipelines.meaning import ItemTexts, Meaning
from pipelines.model_api import Context, FittedModel, Kind, ModelConfig, Need, TrainingData
from pipelines.search.encoding import ENCODER, Additions, NetworkEncoder
from pipelines.storage import read_json, write_json
from pipelines.tuning import saved

KEPT_VECTORS = 10_000
"""Vectors of recent queries; 1.5 kB each at 384 numbers."""


class TunedTextConfig(ModelConfig):
    """How far meaning alone reaches."""

    reach: int = Field(100, ge=1, description="items of a list that nothing but their meaning brings in")


class TunedText(Meaning):
    """Vectors of the items and an encoder of queries of its own."""

    def __init__(
        self,
        texts: ItemTexts,
        encoder: Path,
        versions: Mapping[str, Additions],
        config: TunedTextConfig,
    ) -> None:
        """Put parts together.

        Args:
            texts: of the items.
            encoder: folder of the graph; read with the first query.
            versions: of ``tuning.saved``.
            config: of the kind.
        """
        super().__init__(texts, reach=config.reach)
        self._folder = encoder
        self._versions = dict(versions)
        self._config = config
        self._encode = _encoding(NetworkEncoder(encoder, versions[saved.ALL]))
        self._judging: dict[int, TunedText] = {}

    def asked(self, context: Context) -> np.ndarray | None:
        """What the query means, encoded anew."""
        if context.query is None or not context.query.meant:
            return None
        return self._encode(context.query.meant)

    def judging(self, fold: int) -> FittedModel:
        """The same with the version that learned nothing of a part of the queries; itself where there is none."""
        if str(fold) not in self._versions:
            return self
        if fold not in self._judging:
            found = copy(self)
            found._encode = _encoding(NetworkEncoder(self._folder, self._versions[str(fold)]))  # noqa: SLF001 - own kind
            self._judging[fold] = found
        return self._judging[fold]

    def save(self, folder: Path) -> None:
        """Write the vectors, ``tuned_text.json``, and ``tuned/`` as ``tuning.saved`` has it."""
        self._texts.save(folder)
        write_json(folder / "tuned_text.json", self._config.model_dump())
        (folder / "tuned").mkdir()
        saved.write(folder / "tuned", self._folder, self._versions, {})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote."""
        config = TunedTextConfig(**read_json(folder / "tuned_text.json"))
        tuned = folder / "tuned"
        return cls(ItemTexts.load(folder), tuned / ENCODER, saved.read(tuned), config)


def _encoding(encoder: NetworkEncoder) -> Callable[[str], np.ndarray]:
    """Its vectors; those of recent queries are kept, as the reader of queries keeps those of the untuned encoder."""
    return functools.lru_cache(KEPT_VECTORS)(encoder.encode)


def refusing(features: FeatureState) -> str | None:
    """Why there is no tuned encoder as of the instant, or None."""
    return saved.reason(features.tuned)


def fit(config: TunedTextConfig, data: TrainingData, *, seed: int) -> TunedText:
    """Round the item texts' vectors, and take the tuned encoder as it is."""
    del seed  # the stage `tune` has drawn what there was to draw
    tuned = data.features.tuned
    assert data.features.text is not None  # noqa: S101 - the kind needs it
    assert tuned is not None  # noqa: S101 - the kind refuses without
    return TunedText(ItemTexts.of(np.asarray(data.features.text)), tuned / ENCODER, saved.read(tuned), config)


KIND = Kind(
    config=TunedTextConfig,
    fitted=TunedText,
    fit=fit,
    needs=frozenset({Need.TEXT}),
    surfaces=frozenset({Surface.SEARCH}),
    refusing=refusing,
)
