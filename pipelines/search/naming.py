"""Brands and categories that a query names, by the catalogue's own names of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from pipelines.contracts import CATEGORY_PATH
from pipelines.search.analysis import Analyzer, pieces, unaccented

LONGEST = 8
"""Words of a name."""

MOST = 5
"""Brands, or category paths, that one name stands for: those with most items."""

OWN_SHARE = 0.02
"""A brand that is one word is known beside other words if so much of the word's use in the catalogue is its own."""


class Named(NamedTuple):
    """Names as the catalogue has them, in the order of the query: ``brands``, and ``categories`` as whole paths."""

    brands: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()


class Names:
    """The catalogue's names; read-only, thread-safe.

    A brand is known by its letters alone, however they are spaced (``coca cola``, ``Coca-Cola``); a category by the
    stems of the last part of its path, so that ``mug`` names ``Kitchen > Mugs``.
    """

    def __init__(
        self, brands: Mapping[str, int], categories: Mapping[str, int], words: Mapping[str, int], analyzer: Analyzer
    ) -> None:
        """``brands``, ``categories``: and how many items each has; ``words``: of ``spelling.counted``."""
        self._analyzer = analyzer
        self._brands = _by_key(brands, lambda name: [unaccented(one) for one in pieces(name)])
        self._categories = _by_key(categories, lambda path: self._stems(pieces(path.split(CATEGORY_PATH)[-1])))
        self._common = {
            key
            for key, names in self._brands.items()
            if sum(brands[name] for name in names) < OWN_SHARE * words.get(key, 0)
        }

    def named_in(self, text: str) -> Named:
        """The longest names in a query, from its left to its right."""
        parts = pieces(text)
        words = [unaccented(one) for one in parts]
        whole = "".join(words)
        brands = [key for key in _spans(words, self._brands) if key == whole or key not in self._common]
        categories = _spans(self._stems(parts), self._categories)
        return Named(
            tuple(name for key in brands for name in self._brands[key][:MOST]),
            tuple(path for key in categories for path in self._categories[key][:MOST]),
        )

    def _stems(self, words: Sequence[str]) -> list[str]:
        return [one if one[0].isdigit() else self._analyzer.stem(one) for one in words]


def _by_key(counts: Mapping[str, int], parts: Callable[[str], Sequence[str]]) -> dict[str, list[str]]:
    """Names by their letters, those with most items first; a single letter or digit names nothing."""
    found: dict[str, list[str]] = {}
    for name in sorted(counts, key=lambda one: (-counts[one], one)):
        key = "".join(parts(name))
        if len(key) > 1:
            found.setdefault(key, []).append(name)
    return found


def _spans(words: Sequence[str], known: Mapping[str, Sequence[str]]) -> list[str]:
    """Keys of names in a row of words, the longest at each place; no word is used twice."""
    found, at = [], 0
    while at < len(words):
        key, end = "", at + 1
        joined = ""
        for place in range(at, min(len(words), at + LONGEST)):
            joined += words[place]
            if joined in known:
                key, end = joined, place + 1
        if key:
            found.append(key)
        at = end
    return list(dict.fromkeys(found))
