"""The words that are written about each item, cut out of the texts once for all who ask."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Self

import numpy as np

from pipelines.search.spelling import words_of


class ItemWords(NamedTuple):
    """The words of texts; four bytes for each distinct word of a text, a sixth of what the texts take.

    Attributes:
        counts: how often each word occurs in all texts, in the order of their first occurrence.
        pointer: int64 ``[n_texts + 1]``.
        codes: int32 ``[n]``; those of a text, distinct, lie from its ``pointer`` to the next. A word's code is its
            place in ``counts``.
    """

    counts: Mapping[str, int]
    pointer: np.ndarray
    codes: np.ndarray

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        """Of one text an item."""
        counts: Counter[str] = Counter()
        number: dict[str, int] = {}
        pointer, codes = array("q", [0]), array("i")
        for text in texts:
            words = words_of(text)
            counts.update(words)
            codes.extend([number.setdefault(word, len(number)) for word in dict.fromkeys(words)])
            pointer.append(len(codes))
        return cls(counts, np.frombuffer(pointer, np.int64), np.frombuffer(codes, np.int32))

    def having(self, words: Iterable[str]) -> dict[str, np.ndarray]:
        """Items in whose text each of these words stands, int64, ascending."""
        asked = set(words)
        wanted = {code: word for code, word in enumerate(self.counts) if word in asked}
        places = np.flatnonzero(np.isin(self.codes, list(wanted)))
        codes = self.codes[places]
        order = np.argsort(codes, kind="stable")
        items = (np.searchsorted(self.pointer, places, side="right") - 1)[order]
        starts = np.searchsorted(codes[order], list(wanted))
        found = dict.fromkeys(asked, np.zeros(0, np.int64))
        return found | dict(zip(wanted.values(), np.split(items, starts[1:]) if len(starts) else (), strict=True))
