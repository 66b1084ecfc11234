"""Vectors of words that add up to what an encoder says of a text, learned from the encoder itself.

The network gives every word a meaning by its neighbours. Queries are short, and what they say is mostly in their words:
a vector a token, added up and scaled to unit length, comes near to the network at a fiftieth of its cost (static
embeddings out of contextual ones: Gupta and Jaggi 2021, arXiv:2106.04302). No label is needed: the network is asked for
the vectors of phrases, which are words of the catalogue's texts as somebody might type them (:func:`phrases`), and of
single words of its vocabulary, so that words that no text has keep their meaning too. A phrase also leads a little to
the product whose text it is taken from (:func:`targets`).

:func:`fitted` solves for the vectors by ridge regression. Whether they are good enough is asked where it matters:
:func:`found` searches the catalogue with phrases that nothing was learned from, and sees how soon the product comes
whose text a phrase is taken from.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.search.analysis import normalised
from pipelines.text_encoding import text_key

WORD = re.compile(r"[\w'-]+")
ONE_WORD = re.compile(r"[^\W\d_]{3,}")
"""Of a vocabulary: what stands for itself, neither an ending nor a mark."""

IN_TITLES, IN_DESCRIPTIONS = range(1, 7), range(2, 9)
"""Words of a phrase."""

EACH_TITLE, EACH_DESCRIPTION = 6, 4
"""Phrases taken of each."""

HELD_OUT = 10
"""One phrase in so many is kept to compare with."""

TOWARDS_ITEM = 1 / 3
"""Weight of the vector of a phrase's product, beside 1 of the network's."""

RIDGE = 0.3
"""Weight of the squared distance from the network's own word embeddings, mapped; beside one error a phrase."""

ROUNDS = 3
"""Times that the lengths of the targets are set anew, see :func:`fitted`."""

STEPS = 15
"""Of conjugate gradients a round; twice as many change no cosine by .001."""

SHORTEST = 0.05
"""Least length of a target, so that none vanishes."""

FIRST = 10
"""Places of a list that count."""

BLOCK = 256
"""Queries whose similarities to all items are in memory at a time."""


@dataclass(frozen=True)
class Phrases:
    """Distinct ``texts``, and the code of an item whose text each is taken from, int64 ``[len(texts)]``."""

    texts: list[str]
    items: np.ndarray

    def parted(self) -> tuple[Phrases, Phrases]:
        """Those to learn from, and one in :data:`HELD_OUT` to compare with; which, a phrase itself decides."""
        held = np.array([int(text_key(text)[-16:], 16) % HELD_OUT == 0 for text in self.texts], np.bool_)
        return self._keep(np.flatnonzero(~held)), self._keep(np.flatnonzero(held))

    def first(self, n: int) -> Phrases:
        """At most ``n`` of them: a draw in which a phrase keeps its place, whatever others there are."""
        order = sorted(range(len(self.texts)), key=lambda row: text_key(self.texts[row]))
        return self._keep(np.sort(np.array(order[:n], np.int64)))

    def _keep(self, rows: np.ndarray) -> Phrases:
        return Phrases([self.texts[row] for row in rows.tolist()], self.items[rows])


def phrases(titles: Sequence[str | None], descriptions: Sequence[str | None]) -> Phrases:
    """Words of the texts of a catalogue, as somebody might type them, sorted; by item code, None for no text.

    Of a title as often words in a row as words with gaps, of a description words in a row. A text alone decides what is
    taken of it, so that a new product changes nothing for the others.
    """
    found: dict[str, int] = {}
    for item, (title, description) in enumerate(zip(titles, descriptions, strict=True)):
        for phrase in (
            *_taken(title, EACH_TITLE, IN_TITLES, gaps=0.5),
            *_taken(description, EACH_DESCRIPTION, IN_DESCRIPTIONS, gaps=0.0),
        ):
            found.setdefault(phrase, item)
    texts = sorted(found)
    return Phrases(texts, np.array([found[text] for text in texts], np.int64))


def _taken(text: str | None, n: int, lengths: range, *, gaps: float) -> Iterator[str]:
    words = WORD.findall(normalised(text or ""))
    draw = random.Random(text)  # noqa: S311 - any spread will do
    for _ in range(n):
        length = draw.choice(lengths)
        if len(words) < length:
            continue
        if draw.random() < gaps:
            places = sorted(draw.sample(range(len(words)), length))
        else:
            start = draw.randrange(len(words) - length + 1)
            places = list(range(start, start + length))
        yield " ".join(words[place] for place in places)


def single_words(vocabulary: Iterable[str], most: int) -> list[str]:
    """The first ``most`` words of a vocabulary in its order, which begins with the frequent ones."""
    words = [token for token in vocabulary if ONE_WORD.fullmatch(token)]
    return words[:most]


def targets(said: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Where texts shall point, unit vectors float32 ``[n, d]``.

    Args:
        said: what the network says of each, unit vectors float ``[n, d]``.
        items: unit vector of the product that each is taken from, likewise; zeros for one that is taken from none.
    """
    both = np.asarray(said, np.float32) + np.float32(TOWARDS_ITEM) * np.asarray(items, np.float32)
    found: np.ndarray = both / np.maximum(np.linalg.norm(both, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return found


def fitted(tokens: Sequence[Sequence[int]], vectors: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
    """A vector a token, so that their sums point where the texts shall, float32 ``[v, d]``.

    Minimises ``Σ_i |A_i E - s_i v_i|² + RIDGE |E - W M|²``, where row i of A has ``1 / sqrt(length)`` for each token of
    text i, W are the encoder's word embeddings, and M ``[e, d]`` is the map of these that alone does best: a token that
    no text has gets what its embedding says. Only directions count, so the length ``s_i`` of each target becomes what
    the last solution has along it, on average 1, and everything is solved anew from there.

    Args:
        tokens: ids of each text, at least one each.
        vectors: where each shall point, float ``[len(tokens), d]`` of unit length.
        embeddings: W, float32 ``[v, e]``.
    """
    from scipy import sparse  # for whoever learns; who serves does without

    lengths = np.array([len(ids) for ids in tokens])
    used, columns = np.unique(np.concatenate([np.asarray(ids) for ids in tokens]), return_inverse=True)
    share = (lengths**-0.5).astype(np.float32)
    where = np.repeat(np.arange(len(tokens)), lengths), columns
    counts = sparse.csr_matrix((np.repeat(share, lengths), where), shape=(len(tokens), len(used)))
    back, known = counts.T.tocsr(), counts @ embeddings[used]
    moments = (known.T @ known).astype(np.float64) + RIDGE * np.eye(embeddings.shape[1])
    target = np.asarray(vectors, np.float32)
    scales = np.ones((len(target), 1), np.float32)
    own = np.zeros((len(used), target.shape[1]), np.float32)  # of a token that no text has it stays 0
    mapping = np.zeros((embeddings.shape[1], target.shape[1]), np.float32)
    for _ in range(ROUNDS):
        wanted = scales * target
        mapping = np.linalg.solve(moments, (known.T @ wanted).astype(np.float64)).astype(np.float32)
        own = _solved(counts, back, wanted - known @ mapping, own)
        along = np.einsum("id,id->i", known @ mapping + counts @ own, target)[:, None]
        scales = np.maximum(along, SHORTEST)
        scales /= scales.mean()
    fit: np.ndarray = embeddings @ mapping
    fit[used] += own
    return fit


def _solved(counts: Any, back: Any, wanted: np.ndarray, start: np.ndarray) -> np.ndarray:
    """``argmin |A x - b|² + RIDGE |x|²`` from a start, a column at a time at once.

    Conjugate gradients on the normal equations, preconditioned by their diagonal (Golub and Van Loan, Matrix
    Computations, 4th ed., section 11.5).
    """
    diagonal = (np.asarray(back.multiply(back).sum(axis=1)) + RIDGE).astype(np.float32)
    x = start
    rest = back @ (wanted - counts @ x) - RIDGE * x
    towards = rest / diagonal
    direction, size = towards, _columns(rest, towards)
    for _ in range(STEPS):
        moved = back @ (counts @ direction) + RIDGE * direction
        far = size / np.maximum(_columns(direction, moved), np.finfo(np.float32).tiny)
        x, rest = x + far * direction, rest - far * moved
        towards = rest / diagonal
        before, size = size, _columns(rest, towards)
        direction = towards + size / np.maximum(before, np.finfo(np.float32).tiny) * direction
    return x


def _columns(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Inner product of each pair of columns."""
    found: np.ndarray = np.einsum("ij,ij->j", one, other)
    return found


def found(queries: np.ndarray, wanted: np.ndarray, items: np.ndarray) -> np.ndarray:
    """How soon each query finds its item, float64 ``[q]``: nDCG over the first :data:`FIRST`, one item being relevant.

    Args:
        queries: unit vectors float32 ``[q, d]``.
        wanted: code of the item of each, int64 ``[q]``.
        items: unit vectors float ``[n_items, d]``; of items that are equally near, all have the better place.
    """
    texts, out = np.asarray(items, np.float32), np.zeros(len(queries))
    for start in range(0, len(queries), BLOCK):
        span = slice(start, start + BLOCK)
        near = queries[span] @ texts.T
        own = near[np.arange(len(near)), wanted[span]]
        place = 1 + (near > own[:, None]).sum(axis=1)
        out[span] = np.where(place <= FIRST, 1 / np.log2(place + 1), 0)
    return out
