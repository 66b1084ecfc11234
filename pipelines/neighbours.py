"""Weighted neighbour lists of items in compressed rows: what item-based members score with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from pipelines.arrays import read_arrays, write_arrays
from pipelines.model_api import Candidates, best

ROWS_AT_ONCE = 16
"""Rows added up in one go: copies of so many stay in the processor's cache."""


@dataclass(frozen=True)
class Neighbours:
    """``pointer`` int64 ``[n_items + 1]``; ``items`` int32 and ``weights`` float32 ``[n]`` row by row."""

    pointer: np.ndarray
    items: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[tuple[np.ndarray, np.ndarray]]) -> Self:
        """From one (codes, weights) pair an item, in code order."""
        pointer = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(codes) for codes, _ in rows], out=pointer[1:])
        codes = [codes for codes, _ in rows] or [np.zeros(0)]
        weights = [weights for _, weights in rows] or [np.zeros(0)]
        return cls(pointer, np.concatenate(codes).astype(np.int32), np.concatenate(weights).astype(np.float32))

    @property
    def n_items(self) -> int:
        """Number of rows."""
        return len(self.pointer) - 1

    def sum(self, codes: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """Weighted sum of the rows of these codes: float32 ``[n_items]``; weights default to 1."""
        total = np.zeros(self.n_items)
        for start in range(0, len(codes), ROWS_AT_ONCE):
            some = codes[start : start + ROWS_AT_ONCE]
            pairs = zip(self.pointer[some].tolist(), self.pointer[some + 1].tolist(), strict=True)
            spans = [slice(*pair) for pair in pairs]
            # what add.at is given has the types it works in, which makes it several times as fast
            items = np.concatenate([self.items[span] for span in spans], dtype=np.int64)
            values = np.concatenate([self.weights[span] for span in spans], dtype=np.float64)
            if weights is not None:
                lengths = [span.stop - span.start for span in spans]
                values *= np.repeat(weights[start : start + ROWS_AT_ONCE], lengths)
            np.add.at(total, items, values)
        return total.astype(np.float32)

    def nearest(self, code: int, n: int) -> Candidates:
        """The ``n`` heaviest neighbours of one item."""
        row = slice(int(self.pointer[code]), int(self.pointer[code + 1]))
        scores = np.full(self.n_items, np.nan, np.float32)
        scores[self.items[row]] = self.weights[row]
        scores[code] = np.nan
        return best(scores, n)

    def save(self, folder: Path) -> None:
        """Write the three arrays."""
        write_arrays(folder, {"pointer": self.pointer, "items": self.items, "weights": self.weights})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote, memory-mapped."""
        arrays = read_arrays(folder)
        return cls(arrays["pointer"], arrays["items"], arrays["weights"])
