"""Weighted neighbour lists of items in compressed rows: what item-based members score with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from pipelines.model_api import Candidates, best
from pipelines.storage import read_arrays, write_arrays


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
        spans = [
            slice(*span) for span in zip(self.pointer[codes].tolist(), self.pointer[codes + 1].tolist(), strict=True)
        ]
        if not spans:
            return np.zeros(self.n_items, np.float32)
        items = np.concatenate([self.items[span] for span in spans])
        values = np.concatenate([self.weights[span] for span in spans])
        if weights is not None:
            values = values * np.repeat(weights, [span.stop - span.start for span in spans])
        return np.bincount(items, weights=values, minlength=self.n_items).astype(np.float32)

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
