"""Vectors seen along the few axes that most of their length lies on: what is near there is looked at whole.

The axes are the eigenvectors of the second moments with the largest eigenvalues (principal components, without taking
the mean away, so that inner products stay inner products). What is left out is small for most vectors, so a few times
as many of the best along the axes hold nearly all of the best; the whole vectors then put them in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from pipelines.arrays import read_array, write_arrays
from pipelines.half_bytes import HALVES, HalfByteVectors
from pipelines.model_api import leading
from pipelines.rounded_vectors import PackedVectors, RoundedVectors

AXES = 128
"""Of the 384 numbers of a sentence embedding a third, with which 99.6 in 100 of the best 100 are found."""

SPARE = 5
"""Times as many as are wanted are looked at whole."""

SAMPLE = 20_000
"""Vectors that are turned at a time; axes are computed from so many, up to twice as many."""


def main_axes(vectors: np.ndarray, n: int) -> np.ndarray:
    """The ``n`` axes with most of the length of vectors float ``[m, d]``, orthonormal float32 ``[n, d]``, main first.

    Computed from every k-th vector where there are many.
    """
    sample = np.asarray(vectors[:: max(1, len(vectors) // SAMPLE)], np.float32)
    _, axes = np.linalg.eigh((sample.T @ sample).astype(np.float64))
    return np.ascontiguousarray(axes[:, ::-1][:, :n].T, np.float32)


def turned(axes: np.ndarray) -> np.ndarray:
    """Other axes of the same space, on which the length of vectors lies evenly; float32 ``[a, d]``, ``a`` even.

    A row of integers has one scale, so numbers that are small beside the largest become 0, as those of the last main
    axes would.
    """
    n = len(axes)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(n, n)))[0]
    found = turn @ axes
    return np.concatenate([found, np.zeros((n % 2, axes.shape[1]))]).astype(np.float32)


@dataclass(frozen=True)
class Outlines:
    """Vectors along their main axes.

    Attributes:
        axes: float32 ``[a, d]``.
        rows: ``[n, a]``, in half bytes; in bytes where an earlier version made them.
    """

    axes: np.ndarray
    rows: HalfByteVectors | PackedVectors

    @classmethod
    def of(cls, vectors: np.ndarray) -> Self:
        """Of float vectors ``[n, d]``."""
        axes = turned(main_axes(vectors, AXES))
        spans = (slice(start, start + SAMPLE) for start in range(0, len(vectors), SAMPLE))
        parts = [HalfByteVectors.of(np.asarray(vectors[span], np.float32) @ axes.T) for span in spans]
        halves, scales = (np.concatenate([getattr(part, name) for part in parts]) for name in ("halves", "scales"))
        return cls(axes, HalfByteVectors(halves, scales))

    def near(self, vector: np.ndarray, n: int, allowed: np.ndarray | None = None) -> np.ndarray:
        """Rows among which nearly all of the best ``n`` by inner product are, int64, ascending.

        Args:
            vector: float ``[d]``.
            n: how many are wanted.
            allowed: bool ``[n_rows]``, or None for all; others never appear.
        """
        return leading(self.rows.products(self.axes @ vector), SPARE * n, allowed)

    def save(self, folder: Path) -> None:
        """Write ``axes.npy`` beside the rows."""
        write_arrays(folder, {"axes": self.axes})
        self.rows.save(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote, memory-mapped."""
        halves = (folder / HALVES).exists()
        rows = HalfByteVectors.load(folder) if halves else PackedVectors(RoundedVectors.load(folder))
        return cls(read_array(folder / "axes.npy"), rows)
