"""Inner products with vectors kept as bytes: a quarter of the memory that float32 needs, and sums that are exact.

A vector v becomes integers k = rint(v / s) from -127 to 127 with a scale s = max|v| / 127 of its own (symmetric linear
quantisation, Jacob et al. 2018, arXiv:1712.05877, section 2.1, with zero point 0). Then u . v is about
s_u s_v (k_u . k_v). The inner sum is one of integers, which no order of summation and no width of registers changes:
a row scores the same to the bit among all rows, among a few, and on another machine.

Every coordinate is off by at most s / 2. With u' and v' as rounded, u . v - u' . v' = u . (v - v') + v' . (u - u'), so
the product is off by at most (s_v |u|_1 + s_u |v'|_1) / 2. For unit vectors of 384 numbers that is about .03; errors of
many coordinates cancel, so that .0005 is usual (root mean square) and .003 the most among 43,000 drawn at random.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from pipelines import native
from pipelines.arrays import read_array, write_arrays

if TYPE_CHECKING:
    from numkong import PackedMatrix

CODES, SCALES = "codes.npy", "scales.npy"

LARGEST = 127
"""Of the integers, either sign; -128 is left out, so that a vector and its opposite are opposite."""


class RoundedVectors(NamedTuple):
    """Rows of int8 with their scales.

    Attributes:
        codes: int8 ``[n, d]``.
        scales: float32 ``[n]``; NaN: a row of zeros, which has no direction to compare.
    """

    codes: np.ndarray
    scales: np.ndarray

    @classmethod
    def of(cls, vectors: np.ndarray) -> Self:
        """Round float vectors ``[n, d]``."""
        codes, scales = rounded(vectors)
        return cls(codes, np.where(scales > 0, scales, np.float32(np.nan)))

    def products(self, vector: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Inner products with a vector that is rounded likewise, float32, one a row; NaN: a row of zeros.

        Args:
            vector: float ``[d]``.
            rows: int64 ``[m]``, from 0, or None for all.
        """
        n = len(self.codes) if rows is None else len(rows)
        if not n or not self.codes.size:
            return np.full(n, np.nan, np.float32)
        if native.kernels is not None:
            out = np.empty(n, np.float32)
            asked = np.ascontiguousarray(vector, np.float32)
            places = None if rows is None else np.ascontiguousarray(rows, np.int64)
            native.kernels.products(self.codes, self.scales, asked, places, out)
            return out
        question, scale = _one_rounded(vector)
        codes, scales = (self.codes, self.scales) if rows is None else self._of(rows)
        return _scaled(integer_products(question, codes), scales, scale)

    def direction(self, rows: np.ndarray) -> np.ndarray | None:
        """Unit vector of the sum of these rows, float32 ``[d]``; None where they add up to nothing.

        Added one after the other, so that it is the same to the bit on every machine. ``rows``: int64 ``[m]``, from 0.
        """
        d = self.codes.shape[1]
        if native.kernels is not None:
            out = np.empty(d, np.float32)
            return out if native.kernels.direction(self.codes, self.scales, rows, out) else None
        total = np.zeros(d, np.float32)
        for row in rows[~np.isnan(self.scales[rows])].tolist():
            total += self.codes[row] * self.scales[row]
        squares = np.cumsum(total.astype(np.float64) ** 2)  # in order; a sum is not
        length = np.sqrt(squares[-1]) if d else 0.0
        return (total / length).astype(np.float32) if length > 0 else None

    def _of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Some rows; ``take`` copies them in half the time of brackets."""
        return self.codes.take(rows, axis=0), self.scales.take(rows)

    def save(self, folder: Path) -> None:
        """Write :data:`CODES` and :data:`SCALES`."""
        write_arrays(folder, {Path(CODES).stem: self.codes, Path(SCALES).stem: self.scales})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote, memory-mapped; ``vectors.npy`` of an earlier version is rounded."""
        if not (folder / CODES).exists() and (folder / "vectors.npy").exists():
            return cls.of(read_array(folder / "vectors.npy"))
        return cls(read_array(folder / CODES), read_array(folder / SCALES))


def rounded(vectors: np.ndarray, *, largest: int = LARGEST) -> tuple[np.ndarray, np.ndarray]:
    """Integers int8 ``[n, d]`` and scales float32 ``[n]`` of float vectors ``[n, d]``; scale 0 for a row of zeros.

    ``largest``: of the integers, either sign.
    """
    values = np.ascontiguousarray(vectors, np.float32)
    scales = np.abs(values).max(axis=1, initial=0) / np.float32(largest)
    codes = np.rint(values / np.where(scales > 0, scales, 1)[:, None])
    return codes.astype(np.int8), scales


def _one_rounded(vector: np.ndarray) -> tuple[np.ndarray, np.float32]:
    """What :func:`rounded` makes of one float vector ``[d]``, to the bit, in half the steps; int8 ``[1, d]``."""
    values = np.asarray(vector, np.float32)
    scale = np.maximum.reduce(np.abs(values), initial=np.float32(0)) / np.float32(LARGEST)
    if not scale:
        return np.zeros((1, len(values)), np.int8), scale
    codes = values / scale
    return np.rint(codes, out=codes).astype(np.int8)[None], scale


def _scaled(sums: np.ndarray, scales: np.ndarray, scale: np.float32) -> np.ndarray:
    found: np.ndarray = np.multiply(sums, scales * scale, dtype=np.float32)
    return found


def integer_products(one: np.ndarray, many: np.ndarray) -> np.ndarray:
    """Exact inner products of int8 ``[1, d]`` with each row of int8 ``[n, d]``, ``[n]`` in a type that holds them.

    The library sums in int32, far from its end: 127 * 127 * d reaches it with 133,000 numbers a vector. float32, which
    scaled products are, holds every one of these integers (up to 2^24) with 1,040 numbers a vector or fewer.
    """
    import numkong  # with the first query: a bundle that does not search needs it not

    return np.asarray(numkong.cdist(one, many, "dot")).reshape(len(many))


class PackedVectors:
    """All rows of :class:`RoundedVectors` in the order that a processor multiplies them in.

    The products are the same to the bit. It is a copy in memory, made with the first question.
    """

    def __init__(self, vectors: RoundedVectors) -> None:
        """``vectors``: not changed afterwards."""
        self._vectors = vectors

    def products(self, vector: np.ndarray) -> np.ndarray:
        """Those of :meth:`RoundedVectors.products` with all rows."""
        codes, scales = self._vectors
        if not codes.size or native.kernels is not None:  # which read the rows as they lie
            return self._vectors.products(vector)
        import numkong

        asked, scale = _one_rounded(vector)
        return _scaled(np.asarray(numkong.dots_packed(asked, self._packed))[0], scales, scale)

    def save(self, folder: Path) -> None:
        """Write the rows as they were."""
        self._vectors.save(folder)

    @functools.cached_property
    def _packed(self) -> PackedMatrix:
        import numkong

        return numkong.dots_pack(self._vectors.codes, dtype="int8")
