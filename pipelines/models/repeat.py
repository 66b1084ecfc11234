"""Personal frequency with decay: people buy again what they bought before.

The strongest single baseline where baskets repeat (Hu et al. 2020, "Modeling personalized item frequency
information for next-basket recommendation", describe the effect). It has nothing to say about items that
are new to the user.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field, field_validator

from pipelines.arrays import read_array, write_arrays
from pipelines.contracts import Surface
from pipelines.features.definitions import USER_ITEM
from pipelines.model_api import Context, FittedModel, Kind, ModelConfig, Proposal, TrainingData, first_allowed
from pipelines.storage import read_json, write_json

TIE_BREAK = 1e-6
"""Weight of popularity: enough to order equals, too little to reorder the rest."""


class RepeatConfig(ModelConfig):
    """How fast a purchase loses weight."""

    aggregate: str = Field("bought_decay90", description="name of an aggregate in features.definitions.USER_ITEM")

    @field_validator("aggregate")
    @classmethod
    def _exists(cls, value: str) -> str:
        names = [aggregate.name for aggregate in USER_ITEM]
        if value not in names:
            raise ValueError(f"no user-item aggregate {value!r}; there are: {', '.join(names)}")
        return value


class Repeat(FittedModel):
    """Score of an item = its decayed count in the user's history, ties by popularity."""

    def __init__(self, tie_break: np.ndarray, aggregate: str) -> None:
        """``tie_break``: float32 ``[n_items]`` in [0, 1]; ``aggregate``: name in the history."""
        super().__init__(len(tie_break))
        self._tie_break = tie_break
        self._aggregate = aggregate

    def score_all(self, context: Context) -> np.ndarray:
        """Float32 ``[n_items]``; all NaN without a history, and where only new items count."""
        if context.surface == Surface.RECOMMEND_NEW or not len(context.history):
            return np.full(self.n_items, np.nan, np.float32)
        scores: np.ndarray = self._small.copy()
        scores[context.history.items] += context.history.aggregates[self._aggregate]
        return scores

    def score(self, context: Context, codes: np.ndarray) -> np.ndarray:
        """As in the protocol; looks the codes up in the history."""
        history = context.history
        if context.surface == Surface.RECOMMEND_NEW or not len(history):
            return np.full(len(codes), np.nan, np.float32)
        scores: np.ndarray = self._small[codes]
        order = np.argsort(history.items, kind="stable")
        mine = history.items[order]
        place = np.minimum(np.searchsorted(mine, codes), len(mine) - 1)
        found = mine[place] == codes
        scores[found] += history.aggregates[self._aggregate][order[place[found]]]
        return scores

    def propose(self, context: Context, n: int, allowed: np.ndarray | None = None) -> Proposal:
        """The history's items, and the head of the rest, whose order is the same for everybody."""
        items = context.history.items
        if context.surface == Surface.RECOMMEND_NEW or not len(items):
            return Proposal(np.zeros(0, np.int64), functools.partial(self.score, context))
        rest = first_allowed(self._order, n + len(items), allowed)
        mine = items if allowed is None else items[allowed[items]]
        codes = np.union1d(mine, rest)
        # equal scores keep the order of codes, which are ascending
        order = np.argsort(-self.score(context, codes), kind="stable")[:n]
        return Proposal(codes[order], functools.partial(self.score, context))

    @functools.cached_property
    def _small(self) -> np.ndarray:
        """What breaks ties, float32 ``[n_items]``."""
        return np.asarray(TIE_BREAK * self._tie_break, np.float32)

    @functools.cached_property
    def _order(self) -> np.ndarray:
        """Codes of items nobody asks back for, from the best, ties by lower code."""
        return np.argsort(-self._small, kind="stable")

    def save(self, folder: Path) -> None:
        """Write ``tie_break.npy`` and ``repeat.json``."""
        write_arrays(folder, {"tie_break": self._tie_break})
        write_json(folder / "repeat.json", {"aggregate": self._aggregate})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote."""
        return cls(np.asarray(read_array(folder / "tie_break.npy")), read_json(folder / "repeat.json")["aggregate"])


def fit(config: RepeatConfig, data: TrainingData, *, seed: int) -> Repeat:
    """Keep recent popularity for ties; the frequencies themselves are features of the history."""
    sold = np.asarray(data.features.items["bought_last28"], np.float32)
    return Repeat(sold / max(1.0, float(sold.max(initial=0.0))), config.aggregate)


KIND = Kind(config=RepeatConfig, fitted=Repeat, fit=fit)
