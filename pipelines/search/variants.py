"""Rare spellings in a catalogue's own texts, and the frequent word that each stands for.

A catalogue that writes ``coffe`` eight times beside 916 times ``coffee`` knows both words, so no correction touches the
first, and who types it misses nearly all there is. Two things together tell a spelling from a word of its own: it is
one error away from a word that is far more frequent, and its items lie where those of the other lie, by the vectors of
their texts. ``grape`` is one error away from ``grade`` too, but its items lie elsewhere.

Nothing is replaced, as the test may err: the frequent word is searched beside the rare one
(:attr:`pipelines.search.query.Query.beside`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import OSA

from pipelines.search.analysis import Analyzer
from pipelines.search.item_words import ItemWords

SHORTEST = 5
"""Letters of a rare spelling, at least: shorter words are one error away from too much."""

TIMES = 50
"""The other word occurs so many times as often."""

STANDARD_ERRORS = 2.5
"""How far the items of a spelling lie from what as many items drawn at random would give, towards those of the word."""


def variants(counts: Mapping[str, int], written: ItemWords, vectors: np.ndarray, analyzer: Analyzer) -> dict[str, str]:
    """The frequent word of each rare spelling.

    Args:
        counts: how often each word occurs, of :func:`pipelines.search.spelling.counted`.
        written: the words of what is written about each item.
        vectors: of the item texts, unit, float ``[n_items, d]``; zeros for an item without text.
        analyzer: of the texts; words of one stem are found together anyway.
    """
    pairs = _one_error_apart(counts, analyzer)
    known = np.asarray(vectors, np.float32)
    known = known[known.any(axis=1)]
    if not pairs or not len(known):
        return {}
    having = written.having({*pairs, *pairs.values()})
    centre = known.mean(axis=0)
    spread = known.T @ known / len(known) - np.outer(centre, centre)
    return {
        rare: word
        for rare, word in sorted(pairs.items())
        if _standard_errors(vectors[having[rare]], vectors[having[word]], centre, spread) >= STANDARD_ERRORS
    }


def _one_error_apart(counts: Mapping[str, int], analyzer: Analyzer) -> dict[str, str]:
    """Rare words, and the most frequent word one error away that begins alike; ties by the alphabet."""
    rare, frequent = defaultdict(list), defaultdict(list)
    for word in sorted(counts):
        if counts[word] >= TIMES:
            frequent[word[0]].append(word)
        if len(word) >= SHORTEST:
            rare[word[0]].append(word)
    found: dict[str, str] = {}
    for letter, words in frequent.items():
        others = rare[letter]
        apart = process.cdist(words, others, scorer=OSA.distance, score_cutoff=1, dtype=np.uint8)
        for row, column in np.argwhere(apart == 1).tolist():
            word, other = words[row], others[column]
            if counts[word] < TIMES * counts[other] or analyzer.stem(word) == analyzer.stem(other):
                continue
            if other not in found or counts[word] > counts[found[other]]:
                found[other] = word
    return found


def _standard_errors(few: np.ndarray, many: np.ndarray, centre: np.ndarray, spread: np.ndarray) -> float:
    """How far the mean of a few vectors lies towards the mean of many, as a z-test has it.

    Args:
        few: float ``[m, d]``.
        many: float ``[n, d]``.
        centre: mean of all vectors, float ``[d]``.
        spread: their covariance, float ``[d, d]``.
    """
    if not len(few) or not len(many):
        return 0.0
    towards = many.mean(axis=0, dtype=np.float32) - centre
    deviation = float(np.sqrt(max(towards @ spread @ towards, 0.0)))
    if not deviation:
        return 0.0
    apart = float((few.mean(axis=0, dtype=np.float32) - centre) @ towards)
    return apart / deviation * float(np.sqrt(len(few)))
