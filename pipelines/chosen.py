"""A member that goes by what people chose after the same search: all but what it is that is counted as chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from pydantic import Field

from pipelines.arrays import read_arrays, write_arrays
from pipelines.contracts import Surface
from pipelines.model_api import Context, FittedModel, Kind, ModelConfig, Need, TrainingData
from pipelines.search.analysis import Analyzer
from pipelines.search.choices import Choices
from pipelines.storage import read_json, write_json

ITEMS = "items"
"""Folder of what a member knows of each item."""


class ChosenConfig(ModelConfig):
    """How much it takes to be believed, and how far a query reaches."""

    prior: float = Field(5.0, gt=0, description="people's choices that count as having said nothing")
    days: float = Field(90.0, gt=0, description="time constant of the decay")
    likeness: float = Field(0.5, gt=0, le=1, description="least Jaccard index of the terms of queries that are alike")


class Chosen(FittedModel):
    """Scores are shares of choices, in [0, 1); no opinion where nobody chose, nor without a query."""

    BOUNDED: ClassVar[bool] = True
    CONFIG: ClassVar[type[ChosenConfig]]
    ABOUT: ClassVar[str]
    """File of the configuration."""

    def __init__(self, choices: Choices, items: dict[str, np.ndarray], config: ChosenConfig, *, n_items: int) -> None:
        """``choices``: of codes; ``items``: what the member knows of each item, arrays ``[n_items]``, or nothing."""
        super().__init__(n_items)
        self._choices = choices
        self._items = items
        self._config = config

    def _shares(self, context: Context) -> np.ndarray:
        """Of each code after the context's query, float32 ``[n_codes]``; NaN where nobody chose."""
        terms = context.query.terms if context.query is not None else ()
        return self._choices.shares(terms, prior=self._config.prior, likeness=self._config.likeness)

    def save(self, folder: Path) -> None:
        """Write the choices, ``items/`` and the configuration."""
        self._choices.save(folder)
        if self._items:
            (folder / ITEMS).mkdir()
            write_arrays(folder / ITEMS, self._items)
        write_json(folder / self.ABOUT, self._config.model_dump())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote."""
        choices, config = Choices.load(folder), cls.CONFIG(**read_json(folder / cls.ABOUT))
        items = read_arrays(folder / ITEMS) if (folder / ITEMS).exists() else {}
        return cls(choices, items, config, n_items=len(next(iter(items.values()))) if items else choices.n_codes)


def counted(
    config: ChosenConfig, data: TrainingData, *, of: np.ndarray | None = None, n_codes: int | None = None
) -> Choices:
    """Choices after each search; a person counts once for a query and a code, and queries with the same terms are one.

    Args:
        config: of the kind.
        data: whose searches are read.
        of: code of each item, int32 ``[n_items]``, -1 for items that do not count; None: the items themselves.
        n_codes: how many codes there are, where they are not items.
    """
    from pipelines.features import history  # the table engine, which a service has not

    key = Analyzer(data.features.language).key
    keys, codes, evidence = history.chosen_after_searches(data.features, key, days=config.days, of=of)
    return Choices.of(data.features.n_items if n_codes is None else n_codes, keys, codes, evidence)


def of_searches(fitted: type[Chosen], fit: Callable[..., Chosen]) -> Kind:
    """The kind of such a member: it needs searches and answers them."""
    needs, surfaces = frozenset({Need.SEARCHES}), frozenset({Surface.SEARCH})
    return Kind(config=fitted.CONFIG, fitted=fitted, fit=fit, needs=needs, surfaces=surfaces)
