"""Typing errors, by the catalogue's own words: what nobody has written becomes what it was most likely meant to be.

Only words that the catalogue does not have are touched, so that a correction never hides what is there. Distance is
optimal string alignment (Damerau 1964, with Boytsov's restriction: a swap of neighbours is one error) by ``rapidfuzz``.
"""

from __future__ import annotations

import functools
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import OSA

from pipelines.search.analysis import Analyzer, normalised

SHORTEST = 4
"""Shorter words are left as they are: everything is one letter away from something."""

TWO_ERRORS_FROM = 8
"""Longer words may have two errors."""

TWO_WORDS = 2
"""Errors from which on it is more likely that two words were run together."""

PART = 3
"""Letters of each of these, at least."""

TOLD_ONCE = 2
"""From so many occurrences on a word of a description counts as one of the catalogue's; before, it may be a slip."""

CANDIDATES = 20
REMEMBERED = 10_000
"""Words of queries whose correction is kept: looking for one takes half a millisecond."""

LAST = "\U0010ffff"
"""Comes after whatever continues a word."""

_WORD = re.compile(r"[^\W\d_]+", re.UNICODE)


def words_of(text: str) -> list[str]:
    """Words of a text as they are typed, without numbers."""
    return _WORD.findall(normalised(text))


def counted(names: Iterable[str], occurs: Mapping[str, int]) -> dict[str, int]:
    """The catalogue's words and how often each occurs.

    Args:
        names: titles, brands and categories; each of their words counts.
        occurs: how often each word does in names and descriptions, of :class:`pipelines.search.item_words.ItemWords`; a
            word that names have not counts from :data:`TOLD_ONCE` times on.
    """
    named = {word for text in names for word in words_of(text)}
    found = {word: max(occurs.get(word, 0), 1) for word in named}
    return found | {word: n for word, n in occurs.items() if n >= TOLD_ONCE and word not in found}


class Speller:
    """Corrects queries; read-only, thread-safe."""

    def __init__(self, counts: Mapping[str, int], analyzer: Analyzer) -> None:
        """``counts``: of :func:`counted`; a word whose stem the catalogue has is not unknown."""
        self._counts = dict(counts)
        self._analyzer = analyzer
        self._stems = {analyzer.stem(word) for word in self._counts}
        by_length: dict[int, list[str]] = {}
        for word in self._counts:
            by_length.setdefault(len(word), []).append(word)
        self._by_length = {length: (words, letters(words)) for length, words in by_length.items()}
        self._nearest = functools.lru_cache(REMEMBERED)(self._sought)

    def corrected(self, text: str) -> str | None:
        """The query with its unknown words replaced by the nearest known ones; None when nothing changes."""
        plain = normalised(text)
        words = _WORD.findall(plain)
        if list(map(self._nearest, words)) == words:
            return None
        return _WORD.sub(lambda word: self._nearest(word.group()), plain)

    def relaxed(self, text: str) -> str | None:
        """The query's words as far as they are known: unknown ones completed, cut short to a known one, or left out.

        For a query that finds nothing as it is. None when nothing changes or nothing is left.
        """
        plain = normalised(text)
        looser = " ".join(filter(None, map(self._looser, plain.split(" "))))
        return looser if looser != plain and words_of(looser) else None

    def _looser(self, piece: str) -> str:
        """A piece between spaces: what holds a number, or nothing but known words, stays as it is typed."""
        words = words_of(piece)
        if any(one.isdigit() for one in piece) or all(map(self._known, words)):
            return piece
        return " ".join(filter(None, (self._known(word) or self._begun(word) for word in words)))

    def _known(self, word: str) -> str | None:
        return word if word in self._counts or self._analyzer.stem(word) in self._stems else None

    def _begun(self, word: str) -> str:
        """The most frequent word that begins so, else the longest that this one begins with, else nothing."""
        if len(word) < SHORTEST:
            return ""
        longer = self._sorted[bisect_left(self._sorted, word) : bisect_right(self._sorted, word + LAST)]
        if longer:
            return min(longer, key=lambda other: (-self._counts[other], other))
        ends = range(len(word) - 1, SHORTEST - 1, -1)
        return next((word[:end] for end in ends if word[:end] in self._counts), "")

    @functools.cached_property
    def _sorted(self) -> list[str]:
        return sorted(self._counts)

    def _sought(self, word: str) -> str:
        """One error in a word, two in a long one; beyond one the beginning must be right."""
        if len(word) < SHORTEST or self._known(word):
            return word
        allowed = 2 if len(word) >= TWO_ERRORS_FROM else 1
        choices = self._with_like_letters(word, allowed)
        found = process.extract(word, choices, scorer=OSA.distance, score_cutoff=allowed, limit=CANDIDATES)
        ranked = [
            (distance, other[0] != word[0], -self._counts[other], other)
            for other, distance, _ in found
            if distance == 1 or other[0] == word[0]
        ]
        nearest = min(ranked, default=(TWO_WORDS, False, 0, word))
        return nearest[-1] if nearest[0] < TWO_WORDS else self._two_words(word) or nearest[-1]

    def _two_words(self, word: str) -> str | None:
        """Two known words that were run together: those of which the rarer one is the most frequent."""
        cuts = range(PART, len(word) - PART + 1)
        halves = [(word[:cut], word[cut:]) for cut in cuts]
        ranked = [
            (min(self._counts[a], self._counts[b]), f"{a} {b}") for a, b in halves if {a, b} <= self._counts.keys()
        ]
        return max(ranked)[1] if ranked else None

    def _with_like_letters(self, word: str, errors: int) -> list[str]:
        """All words so many errors away, and few others: an error brings and takes at most one letter."""
        own, found = letters([word])[0], []
        for length in range(max(SHORTEST - 1, len(word) - errors), len(word) + errors + 1):
            words, theirs = self._by_length.get(length, ([], NO_LETTERS))
            near = (np.bitwise_count(theirs & ~own) <= errors) & (np.bitwise_count(own & ~theirs) <= errors)
            found += [words[place] for place in np.flatnonzero(near).tolist()]
        return found


def letters(words: Sequence[str]) -> np.ndarray:
    """Sets of letters as bits, uint64 ``[n]``; letters 64 code points apart share a bit. All words of one length."""
    signs = np.array(words, dtype=np.str_).view(np.uint32).reshape(len(words), -1)
    found: np.ndarray = np.bitwise_or.reduce(np.uint64(1) << (signs & 63).astype(np.uint64), axis=1)
    return found


NO_LETTERS = np.zeros(0, np.uint64)
