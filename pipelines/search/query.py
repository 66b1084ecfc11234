"""A query as members read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Negation(NamedTuple):
    """What a query says shall not be there, as in ``belt without buckle``.

    ``meant``: the text without that; ``wanted``: its terms; ``unwanted``: terms of what shall not be there, none of
    them among the wanted; both distinct, in order, neither empty.
    """

    meant: str
    wanted: tuple[str, ...]
    unwanted: tuple[str, ...]


@dataclass(frozen=True)
class Query:
    """What was typed, analysed once for all members.

    Attributes:
        text: normalised.
        terms: of the analysis, distinct, in order; empty when nothing in it is a word or a number.
        vector: unit vector of what is meant, float32 ``[d]``; None without an encoder.
        brands: of the catalogue that it names, in its order, as the catalogue writes them.
        categories: likewise, as whole paths.
        rewritten: what was searched for instead of what was typed, which is then ``text``; else None.
        negation: what it says shall not be there, or None.
        beside: terms of the frequent words that rare spellings in it stand for (``search.variants``).
    """

    text: str
    terms: tuple[str, ...]
    vector: np.ndarray | None = None
    rewritten: str | None = None
    brands: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    negation: Negation | None = None
    beside: tuple[str, ...] = ()

    @property
    def meant(self) -> str:
        """The text without what shall not be there."""
        return self.text if self.negation is None else self.negation.meant

    @property
    def wanted(self) -> tuple[str, ...]:
        """The terms that an item should have."""
        return (*(self.terms if self.negation is None else self.negation.wanted), *self.beside)

    @property
    def unwanted(self) -> tuple[str, ...]:
        """The terms that an item should not have."""
        return () if self.negation is None else self.negation.unwanted

    def understood(self) -> dict[str, tuple[str, ...]]:
        """For people: the brands and categories that it names, terms of what shall not be there, and those beside."""
        return {
            "brands": self.brands,
            "categories": self.categories,
            "unwanted": self.unwanted,
            "beside": self.beside,
        }
