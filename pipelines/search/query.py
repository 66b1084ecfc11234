"""A query as members read it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Query:
    """What was typed, analysed once for all members.

    Attributes:
        text: normalised.
        terms: of the analysis, distinct, in order; empty when nothing in it is a word or a number.
        vector: unit vector of the text, float32 ``[d]``; None without an encoder.
        brands: of the catalogue that it names, in its order, as the catalogue writes them.
        categories: likewise, as whole paths.
        rewritten: what was searched for instead of what was typed, which is then ``text``; else None.
    """

    text: str
    terms: tuple[str, ...]
    vector: np.ndarray | None = None
    rewritten: str | None = None
    brands: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
