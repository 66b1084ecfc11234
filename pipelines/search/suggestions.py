"""What is offered while somebody types: the catalogue's brands, categories, phrases and items that go on like that.

A suffix array over the beginnings of words (Manber and Myers 1993): whatever goes on from the letters typed, from its
first word or from a later one, lies in one span that two binary searches find. Where the whole has no continuation,
finished words are corrected; then the end of what was typed is completed on its own, as in Mitra and Craswell 2015,
"Query Auto-Completion for Rare Prefixes".
"""

from __future__ import annotations

import re
import string
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from pipelines.arrays import read_arrays, write_arrays
from pipelines.contracts import CATEGORY_PATH
from pipelines.search.analysis import UNSPACED, normalised, script, unaccented
from pipelines.search.spelling import Speller
from pipelines.storage import read_json, write_json

COMPARED = 48
"""Characters by which continuations are told apart; longer ones are equal in order."""

END = "\n"
"""Stands before every text; no folded text has it."""


BREAKS = (END, " ")
READ = 80
"""Characters of a text that are compared at all."""

MOST = 20
"""Suggestions of an answer."""

SPARE = 3
"""So many times as many are looked at as are wanted: some texts match at several of their words."""

_ASCII_MARKS = dict.fromkeys(map(ord, string.punctuation), " ")
_START = re.compile(r"(?<=[\n ])[^\n ]|[^\x00-\x7f]")


class Kind(StrEnum):
    """What a suggestion is."""

    BRAND = "brand"
    CATEGORY = "category"
    QUERY = "query"
    ITEM = "item"


class Suggestion(NamedTuple):
    """``text`` is for the search box; ``value``: the brand, the category's path or the item's id, None of a query."""

    text: str
    kind: Kind
    value: str | None = None


def entries(
    *,
    brands: Mapping[str, int],
    categories: Mapping[str, int],
    phrases: Mapping[str, int],
    searched: Mapping[str, int],
    items: Iterable[tuple[str, str]],
) -> Iterator[tuple[Suggestion, float]]:
    """Everything that may be offered, with its weight; of equal texts the first is kept.

    What people searched for comes before what the catalogue is made of (most popular completion: Bar-Yossef and Kraus
    2011, "Context-Sensitive Query Auto-Completion", section 3); a brand or category that they searched for stays one.

    Args:
        brands: and how many items each has.
        categories: paths, likewise; the last part of a path is what is typed.
        phrases: of the titles, and in how many each stands.
        searched: queries, and how many people typed each.
        items: id and title, what sells best first. An item comes after everything else.
    """
    most = max([*brands.values(), *categories.values(), *phrases.values()], default=0)
    people = {folded(text): most + n for text, n in searched.items()}

    def weight(text: str, n: int) -> float:
        return float(people.get(folded(text), n))

    yield from ((Suggestion(name, Kind.BRAND, name), weight(name, n)) for name, n in brands.items())
    for path, n in sorted(categories.items(), key=lambda one: -one[1]):
        leaf = path.split(CATEGORY_PATH)[-1]
        yield Suggestion(leaf, Kind.CATEGORY, path), weight(leaf, n)
    yield from ((Suggestion(text, Kind.QUERY), weight(text, n)) for text, n in [*searched.items(), *phrases.items()])
    for place, (item, title) in enumerate(items):
        yield Suggestion(title, Kind.ITEM, item), 1.0 / (place + 1)


def folded(text: str) -> str:
    """As it is compared: normalised, without accents, marks as spaces."""
    plain = unaccented(normalised(text))
    if plain.isascii():
        spaced = plain.translate(_ASCII_MARKS)
    else:
        spaced = "".join(" " if unicodedata.category(one)[0] in "PSZ" else one for one in plain)
    return " ".join(spaced.split())


class Beginnings(NamedTuple):
    """The beginnings of all words of what may be offered, in the order of the alphabet.

    Attributes:
        offered: what may be, by entry.
        text: all folded texts, :data:`END` before each.
        places: int32 ``[n]``, where in ``text`` each word begins.
        entries: int32 ``[n]``, what each belongs to.
        strength: float32 ``[n]``, the order among those that match.
    """

    offered: list[Suggestion]
    text: str
    places: np.ndarray
    entries: np.ndarray
    strength: np.ndarray

    @classmethod
    def of(cls, weighted: Iterable[tuple[Suggestion, float]]) -> Self:
        """``weighted``: of :func:`entries`."""
        by_text: dict[str, tuple[Suggestion, float]] = {}
        for suggestion, weight in weighted:
            if key := folded(suggestion.text[:READ]):
                by_text.setdefault(key, (suggestion, weight))
        offered = [suggestion for suggestion, _ in by_text.values()]
        text = "".join(END + key for key in by_text)
        lengths = np.array([len(key) + 1 for key in by_text], np.int64)
        starts = np.cumsum(lengths) - lengths + 1
        sorted_ = sorted(_word_starts(text), key=lambda place: text[place : place + COMPARED])
        places = np.array(sorted_, np.int32)
        belongs = np.searchsorted(starts, places, side="right").astype(np.int32) - 1
        weights = np.array([weight for _, weight in by_text.values()], np.float32)
        items = np.array([one.kind is Kind.ITEM for one in offered], np.bool_)
        strength = _strengths(items, weights)[belongs] + np.isin(places, starts)
        return cls(offered, text, places, belongs, strength.astype(np.float32))

    def save(self, folder: Path) -> None:
        """Write ``offered.json`` and the arrays."""
        write_json(folder / "offered.json", {"text": self.text, "offered": self.offered})
        write_arrays(folder, {"places": self.places, "entries": self.entries, "strength": self.strength})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote; the arrays stay memory-mapped."""
        about, kinds = read_json(folder / "offered.json"), {str(kind): kind for kind in Kind}
        offered = [Suggestion(text, kinds[kind], value) for text, kind, value in about["offered"]]
        return cls(offered, about["text"], **read_arrays(folder))


def _strengths(items: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Order among what matches: items last, then by weight, in shares of 1, which stands for what begins so; float64.

    Args:
        items: bool ``[m]``, what is an item.
        weights: of :func:`entries`, ``[m]``.
    """
    heaviest = float(weights.max(initial=0.0, where=~items)) or 1.0
    strength: np.ndarray = 2.0 * ~items + 0.999 * np.where(items, weights, weights / heaviest)
    return strength


class Suggester:
    """Read-only, thread-safe; a dozen bytes for each word of what may be offered, beside the texts."""

    def __init__(self, beginnings: Beginnings, speller: Speller) -> None:
        """``speller`` corrects words that are finished."""
        self._offered, self._text, places, self._entries, self._strength = beginnings
        self._places = np.ascontiguousarray(places).data  # gives numbers, and faster than an array does
        self._speller = speller
        self._at_first = self._best(0, len(places), MOST)

    def complete(self, typed: str, n: int) -> list[Suggestion]:
        """At most ``n`` of :data:`MOST` suggestions, the most likely first; without a letter what is most frequent."""
        prefix = folded(typed)
        if not prefix:
            return self._at_first[:n]
        begun = prefix + " " if typed[-1].isspace() else prefix
        for attempt in self._attempts(begun):
            if found := self._matching(attempt, n):
                return found
        return self._tails(self._finished(begun).rstrip(), n)

    def _attempts(self, begun: str) -> Iterator[str]:
        """What was typed; its finished words corrected; the last one too; and that without an ending."""
        yield begun
        yield self._finished(begun)
        whole = self._speller.corrected(begun) or begun
        yield whole
        if begun[-SPARE:].isalpha():
            yield whole[:-1]

    def _finished(self, begun: str) -> str:
        head, gap, last = begun.rpartition(" ")
        return f"{self._speller.corrected(head) or head}{gap}{last}"

    def _matching(self, prefix: str, n: int) -> list[Suggestion]:
        compared = prefix[:COMPARED]

        def beginning(place: int) -> str:
            return self._text[place : place + len(compared)]

        low = bisect_left(self._places, compared, key=beginning)
        return self._best(low, bisect_right(self._places, compared, lo=low, key=beginning), n)

    def _best(self, low: int, high: int, n: int) -> list[Suggestion]:
        """The strongest of a span; an entry that matches at several words comes once."""
        strength = self._strength[low:high]
        kept = min(SPARE * n, len(strength))
        rows = np.argpartition(-strength, kept - 1)[:kept] if 0 < kept < len(strength) else np.arange(len(strength))
        rows = rows[np.lexsort((rows, -strength[rows]))]
        distinct = dict.fromkeys(self._entries[low + rows].tolist())
        return [self._offered[entry] for entry in list(distinct)[:n]]

    def _tails(self, prefix: str, n: int) -> list[Suggestion]:
        """The end of what was typed completed, the longest end that can be, behind what stands before it."""
        words = prefix.split(" ")
        for first in range(1, len(words)):
            head, tail = " ".join(words[:first]), " ".join(words[first:])
            found = [folded(one.text) for one in self._matching(tail, SPARE * n) if one.kind is not Kind.ITEM]
            begun = [text for text in found if text.startswith(tail)]
            if begun and not tail[0].isdigit():
                return [Suggestion(f"{head} {text}", Kind.QUERY) for text in begun[:n]]
        return []


def _word_starts(text: str) -> Iterator[int]:
    """Where a word begins; in scripts that are written without spaces every letter may begin one."""
    for found in _START.finditer(text):
        letter = found.group()
        if letter.isascii() or text[found.start() - 1] in BREAKS or script(letter).startswith(UNSPACED):
            yield found.start()
