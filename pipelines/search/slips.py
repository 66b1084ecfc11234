"""Typing errors as people make them, to measure what a search keeps of its quality."""

from __future__ import annotations

import random
import string

LETTERS = 5
"""A word with fewer is left as it is."""


def misspelt(query: str, draw: random.Random) -> str:
    """A query with one typing error in one of its long words; without such a word it stays.

    Two letters swapped, one lost, doubled or replaced; never the first or the last letter of the word.
    """
    words = query.split()
    long = [place for place, word in enumerate(words) if len(word) >= LETTERS and word.isalpha()]
    if not long:
        return query
    place = draw.choice(long)
    word, at = words[place], draw.randrange(1, len(words[place]) - 1)
    words[place] = draw.choice(
        (
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            word[:at] + word[at + 1 :],
            word[:at] + word[at] + word[at:],
            word[:at] + draw.choice(string.ascii_lowercase) + word[at + 1 :],
        )
    )
    return " ".join(words)
