"""Phrases that titles are made of: what people are likely to type, before anybody has.

Frequent runs of words, level by level, since a run is frequent only if its parts are (Agrawal and Srikant 1994, "Fast
Algorithms for Mining Association Rules", section 2.1). A word that hardly ever begins (ends) what stands between two
marks of a title does not begin (end) a phrase either: so ``with`` and ``of`` drop out by themselves, in any language.
A run that nearly always stands within one longer run is a fragment of that.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from pipelines.search.analysis import normalised

LONGEST = 3
"""Words of a phrase; runs of one more are looked at to know fragments."""

LEAST, LEAST_IN_A_SMALL_SHOP, SMALL_SHOP = 3, 2, 1000
"""A phrase stands in so many titles; in fewer where there are few titles."""

AT_THE_EDGE = 0.05
"""Share of a word's occurrences at the beginning (end) of a run from which on it may begin (end) a phrase."""

PRIOR = 10
"""Occurrences that a word's share is smoothed with, one of them at the edge: a rare word is believed."""

FRAGMENT = 0.8
"""Share of a run's occurrences within one longer run from which on it is a fragment."""

MOST = 20_000

_MARKS = re.compile(r"[,;:|()\[\]{}!?\"\u201c\u201d\u2022\u00b7\u2013\u2014/]+|\s[-+&]+\s")
_EDGES = "'\u2019`.*#-+&\u2122\u00ae\u00a9\u3001\u3002"

Run = tuple[str, ...]


def counted(titles: Iterable[str]) -> dict[str, int]:
    """The phrases of distinct titles and how often each occurs: the first :data:`MOST`, ties by text."""
    distinct = {normalised(title) for title in titles}
    segments = [words for title in sorted(distinct) for part in _MARKS.split(title) if (words := _words(part))]
    least = LEAST if len(distinct) >= SMALL_SHOP else LEAST_IN_A_SMALL_SHOP
    begins, ends = _edge_words(segments)
    said = {
        run: count
        for run, count in _frequent_runs(segments, least).items()
        if run[-1] in ends and (len(run) == 1 or run[0] in begins) and _is_said(run)
    }
    fragments = _fragments(said)
    phrases = {" ".join(run): n for run, n in said.items() if len(run) <= LONGEST and run not in fragments}
    return dict(sorted(phrases.items(), key=lambda one: (-one[1], one[0]))[:MOST])


def _words(part: str) -> list[str]:
    return [word for piece in part.split() if (word := piece.strip(_EDGES))]


def _is_said(run: Run) -> bool:
    """Neither a single letter nor a number at an edge."""
    return len(" ".join(run)) > 1 and not run[0].isdigit() and not run[-1].isdigit()


def _frequent_runs(segments: Sequence[Sequence[str]], least: int) -> dict[Run, int]:
    """Runs of one word to one more than a phrase may have, that occur at least so often."""
    every = Counter(word for words in segments for word in words)
    level: dict[Run, int] = {(word,): n for word, n in every.items() if n >= least}
    found = dict(level)
    for size in range(2, LONGEST + 2):
        runs = (tuple(words[at : at + size]) for words in segments for at in range(len(words) - size + 1))
        level = {r: n for r, n in Counter(r for r in runs if r[:-1] in level and r[1:] in level).items() if n >= least}
        found |= level
    return found


def _edge_words(segments: Sequence[Sequence[str]]) -> tuple[set[str], set[str]]:
    """Words that may begin, and words that may end a phrase."""
    every = Counter(word for words in segments for word in words)
    firsts, lasts = Counter(words[0] for words in segments), Counter(words[-1] for words in segments)
    begins, ends = (
        {word for word, n in every.items() if (edge[word] + 1) / (n + PRIOR) >= AT_THE_EDGE} for edge in (firsts, lasts)
    )
    return begins, ends


def _fragments(said: dict[Run, int]) -> set[Run]:
    """Runs of two words or more that nearly always stand in one that is a word longer."""
    return {
        part
        for run, count in said.items()
        for part in (run[:-1], run[1:])
        if len(part) > 1 and part in said and count >= FRAGMENT * said[part]
    }
