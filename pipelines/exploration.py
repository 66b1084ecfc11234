"""A little exploration with exact propensities: one slot, below the fifth place, now and then."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

RATE = 0.05
"""Chance that a list has an explored slot."""
PROTECTED = 5
"""The first places are never touched."""
POOL = 20
"""An explored item comes from this many places right after the list."""

REACH = 2 * PROTECTED + POOL
"""Places that :func:`swap_one` may touch."""


def explore(order: Sequence[int], n: int, *, seed: int) -> tuple[list[int], list[float]]:
    """Give at most one slot below the fifth place to a near miss.

    With chance :data:`RATE` a slot is drawn evenly from places 6 to n and an item evenly from the pool of
    the next places; the item takes the slot and the one that stood there leaves the list.

    Args:
        order: items best first, the list and what comes after it.
        n: length of the list.
        seed: decides everything.

    Returns:
        The list of at most ``n`` items, and for each the chance that this policy puts it at that place.
    """
    shown, pool = list(order[:n]), list(order[n : n + POOL])
    slots = range(PROTECTED, len(shown))
    if not pool or not slots:
        return shown, [1.0] * len(shown)
    chances = [1.0 if place < PROTECTED else 1.0 - RATE / len(slots) for place in range(len(shown))]
    draw = random.Random(seed)  # noqa: S311 - a policy, not a secret
    if draw.random() < RATE:
        place = draw.choice(slots)
        shown[place] = draw.choice(pool)
        chances[place] = RATE / len(slots) / len(pool)
    return shown, chances


def swap_one(n: int, *, seed: int) -> tuple[list[int], list[float]]:
    """Let a near miss and one of places 6 to 10 trade places: for lists of several pages, which then stay whole.

    With chance :data:`RATE` one of the five places and one of the pool of the next places are drawn evenly.

    Args:
        n: length of the whole list.
        seed: decides everything; the same for all pages of a list.

    Returns:
        Which of the list, from 0, stands at each of the first places, at most :data:`REACH`, two of them exchanged or
        none, and the chance that this policy puts it there. Behind them all stands where it stood, with chance 1.
    """
    shown = list(range(min(n, REACH)))
    chances = [1.0] * len(shown)
    slots, pool = shown[PROTECTED : 2 * PROTECTED], shown[2 * PROTECTED :]
    if not pool:
        return shown, chances
    for places in (slots, pool):
        for place in places:
            chances[place] = 1.0 - RATE / len(places)
    draw = random.Random(seed)  # noqa: S311 - a policy, not a secret
    if draw.random() < RATE:
        up, down = draw.choice(slots), draw.choice(pool)
        shown[up], shown[down] = down, up
        chances[up] = chances[down] = RATE / len(slots) / len(pool)
    return shown, chances


def weights(propensities: np.ndarray, *, clip: float) -> np.ndarray:
    """How much an impression counts, so that what the policy seldom shows is not drowned by what it always shows.

    Inverse propensity, clipped: unbiased below the clip, and no single impression counts more than ``clip``
    (Ionides, Truncated importance sampling, 2008). NaN, an unknown propensity, counts 1.

    Args:
        propensities: in (0, 1], any shape.
        clip: the largest weight, at least 1.

    Returns:
        float64 of the same shape, in [1, clip].
    """
    known = np.where(np.isnan(propensities), 1.0, propensities)
    return np.minimum(1.0 / known, clip)
