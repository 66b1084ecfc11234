"""What the language model is tuned on: what products are called, and what people wanted when they asked.

Only the side of the query is tuned, so that the vectors of the items stay as they are. An example of the catalogue is a
few words of a title, in their order, as somebody might type them, and the product that they come from: no label is
needed. A labelled query comes with the items that people judged or chose, and with hard negatives: what words and
meaning find without being told (Karpukhin et al. 2020, arXiv:2004.04906, section 3.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

WORD = re.compile(r"[\w'-]+")
SHORTEST, LONGEST = 2, 5
"""Words of a query that is made of a title."""

EACH = 2
"""Queries made of each title."""


@dataclass(frozen=True)
class Wordings:
    """Queries made of titles: ``texts`` and the code of the item that each comes from, int32 ``[len(texts)]``."""

    texts: list[str]
    items: np.ndarray


def wordings(titles: Sequence[str | None], items: np.ndarray, *, seed: int) -> Wordings:
    """Queries made of the titles of some items.

    Args:
        titles: of all items, by code; a title that is no longer than a query gives none.
        items: codes whose titles are used, int ``[m]``.
        seed: decides which words are taken.
    """
    rng = np.random.default_rng(seed)
    texts: list[str] = []
    codes: list[int] = []
    for code in items.tolist():
        words = WORD.findall((titles[code] or "").lower())
        for length in rng.integers(SHORTEST, LONGEST + 1, size=EACH).tolist():
            if len(words) > length:
                taken = np.sort(rng.choice(len(words), length, replace=False))
                texts.append(" ".join(words[place] for place in taken))
                codes.append(code)
    return Wordings(texts, np.array(codes, np.int32))


@dataclass(frozen=True)
class Candidates:
    """A labelled query and the items that are told apart: ``codes`` int32 ``[c]``, ``gains`` float32 ``[c]``."""

    text: str
    codes: np.ndarray
    gains: np.ndarray


def candidates(text: str, gains: dict[int, float], found: Iterable[np.ndarray]) -> Candidates:
    """The labelled items of a query, and below them what was found and nobody labelled.

    Args:
        text: what was asked, as members read it.
        gains: by code of the item; items that are not in the catalogue are left out before.
        found: codes of the first results of each way to search.
    """
    labelled = np.array(sorted(gains), np.int32)
    others = np.setdiff1d(np.concatenate([labelled[:0], *found]).astype(np.int32), labelled)
    worth = np.array([gains[code] for code in labelled.tolist()], np.float32)
    return Candidates(
        text, np.concatenate([labelled, others]), np.concatenate([worth, np.zeros(len(others), np.float32)])
    )


@dataclass(frozen=True)
class Lesson:
    """What one tuned version learns from beside the wordings.

    Attributes:
        name: of the version.
        queries: labelled; empty: the version learns from the wordings alone.
    """

    name: str
    queries: list[Candidates]


def padded(queries: Sequence[Candidates], place_of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places int32 ``[q, c]`` of the candidates, -1 beyond them, and their shares of the gain float32 ``[q, c]``.

    Args:
        queries: each with a gain above 0 somewhere.
        place_of: int ``[n_items]``, the row of each item among the vectors that are learned with.
    """
    longest = max((len(one.codes) for one in queries), default=0)
    places = np.full((len(queries), longest), -1, np.int32)
    shares = np.zeros((len(queries), longest), np.float32)
    for row, one in enumerate(queries):
        places[row, : len(one.codes)] = place_of[one.codes]
        shares[row, : len(one.codes)] = one.gains / one.gains.sum()
    return places, shares


def pool(n_items: int, queries: Iterable[Candidates], *, most: int, seed: int) -> np.ndarray:
    """Codes of the items that are learned with, ascending int64: all, or those of the queries and a draw of others."""
    if n_items <= most:
        return np.arange(n_items)
    needed = np.unique(np.concatenate([np.zeros(0, np.int64), *(one.codes.astype(np.int64) for one in queries)]))
    others = np.setdiff1d(np.arange(n_items), needed)
    drawn = np.random.default_rng(seed).permutation(others)[: max(most - len(needed), 0)]
    return np.sort(np.concatenate([needed, drawn]))
