"""Inner products with vectors kept as half bytes: an eighth of the memory that float32 needs, for a first look.

As ``rounded_vectors``, with integers from -7 to 7: what is near by these is looked at again by whole bytes. The sums
are exact here too, so a row scores the same to the bit with and without the compiled loops and on every machine.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from pipelines import native
from pipelines.arrays import read_array, write_arrays
from pipelines.rounded_vectors import PackedVectors, RoundedVectors, rounded

HALVES, SCALES = "halves.npy", "scales.npy"

LARGEST = 7
"""Of the integers, either sign."""

LIFT = 8
"""Added to an integer, so that half a byte holds it."""


@dataclass(frozen=True)
class HalfByteVectors:
    """Rows of integers from -7 to 7 with their scales.

    Attributes:
        halves: uint8 ``[n, h]``; byte j of a row holds number j in its lower half and number h + j in its upper one,
            each with :data:`LIFT` added.
        scales: float32 ``[n]``; NaN: a row of zeros.
    """

    halves: np.ndarray
    scales: np.ndarray

    @classmethod
    def of(cls, vectors: np.ndarray) -> Self:
        """Round float vectors ``[n, 2 h]``."""
        numbers, scales = rounded(vectors, largest=LARGEST)
        lower, upper = np.split((numbers + LIFT).astype(np.uint8), 2, axis=1)
        return cls(lower | upper << 4, np.where(scales > 0, scales, np.float32(np.nan)))

    def products(self, vector: np.ndarray) -> np.ndarray:
        """Inner products with a vector, float ``[2 h]``, that is rounded to bytes; float32 ``[n]``, NaN: zeros."""
        if not self.halves.size:
            return np.full(len(self.halves), np.nan, np.float32)
        if native.kernels is None:
            return self._packed.products(vector)
        out = np.empty(len(self.halves), np.float32)
        asked = np.ascontiguousarray(vector, np.float32)
        native.kernels.half_byte_products(self.halves, self.scales, asked, out)
        return out

    @functools.cached_property
    def _packed(self) -> PackedVectors:
        """The same numbers a byte each, a copy in memory."""
        numbers = np.concatenate([self.halves & 15, self.halves >> 4], axis=1).astype(np.int8) - np.int8(LIFT)
        return PackedVectors(RoundedVectors(numbers, self.scales))

    def save(self, folder: Path) -> None:
        """Write :data:`HALVES` and :data:`SCALES`."""
        write_arrays(folder, {Path(HALVES).stem: self.halves, Path(SCALES).stem: self.scales})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote, memory-mapped."""
        return cls(read_array(folder / HALVES), read_array(folder / SCALES))
