"""The best items by an inner product with a vector, without reading all of every item's vector.

Vectors of items are turned once so that most of their length lies in the first few coordinates. With u and v
so turned and cut into head and tail, ``u . v <= u_head . v_head + |u_tail| |v_tail|`` (Cauchy and Schwarz). The
bound needs the head and one length an item; only items whose bound reaches the score of the n-th best found so far are
looked at whole. The result is exact. (The idea of a partial product with a bound on the rest: Teflioudi, Gemulla
and Mykytiuk 2015, "LEMP: fast retrieval of large entries in a matrix product".)
"""

from __future__ import annotations

import functools

import numpy as np

from pipelines.main_axes import SAMPLE, main_axes
from pipelines.model_api import best

HEAD = 24
"""Coordinates that are read of every item; with 24 of 128 about one item in a hundred is then read whole."""
ROUNDING = 2e-5
"""Share of the largest possible product by which a bound may be too low in float32."""


class InnerProducts:
    """Vectors with a constant each: score = u . v + b."""

    def __init__(self, vectors: np.ndarray, bias: np.ndarray) -> None:
        """``vectors`` float32 ``[n_items, d]``, ``bias`` float32 ``[n_items]``."""
        self.vectors = vectors
        self.bias = bias

    def score(self, user: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Scores of these items, float32 ``[len(codes)]``."""
        scores: np.ndarray = self.vectors[codes] @ user + self.bias[codes]
        return scores

    def best(self, user: np.ndarray, n: int, allowed: np.ndarray | None = None) -> np.ndarray:
        """Codes of the ``n`` best items, best first, ties by lower code.

        Args:
            user: float32 ``[d]``.
            n: at most this many.
            allowed: bool ``[n_items]``, or None for all; others never appear.
        """
        if len(user) <= HEAD or 8 * n > len(self.bias):
            return best(self.vectors @ user + self.bias, n, allowed).codes
        bound = self._bound(user)
        # the n items with the highest bounds are good ones: the least of them is a floor for the best n
        codes = best(bound, n, allowed).codes
        if len(codes) == n:
            floor = self.score(user, codes).min() - self._slack * np.linalg.norm(user)
            codes = np.flatnonzero(bound >= floor)
            codes = codes if allowed is None else codes[allowed[codes]]
        order = np.lexsort((codes, -self.score(user, codes)))[:n]
        return codes[order]

    def _bound(self, user: np.ndarray) -> np.ndarray:
        """What no item's score exceeds, float32 ``[n_items]``."""
        axes, columns = self._turned
        head = axes @ user
        tail = np.linalg.norm(user - head @ axes)
        bound: np.ndarray = np.concatenate([head, np.array([tail, 1.0], np.float32)]) @ columns
        return bound

    @functools.cached_property
    def _turned(self) -> tuple[np.ndarray, np.ndarray]:
        """Main axes ``[HEAD, d]``; and ``[HEAD + 2, n_items]``: heads, lengths of the tails, constants."""
        main = main_axes(self.vectors, HEAD)
        columns = np.empty((HEAD + 2, len(self.vectors)), np.float32)
        for start in range(0, len(self.vectors), SAMPLE):
            some = slice(start, start + SAMPLE)
            heads = self.vectors[some] @ main.T
            columns[:HEAD, some] = heads.T
            columns[HEAD, some] = np.linalg.norm(self.vectors[some] - heads @ main, axis=1)
        columns[HEAD + 1] = self.bias
        return main, columns

    @functools.cached_property
    def _slack(self) -> float:
        """Rounding of a bound a unit of the user's length."""
        squares = np.einsum("ij,ij->i", self.vectors, self.vectors)
        return ROUNDING * float(np.sqrt(squares.max(initial=0.0)))
