"""Ids and the numbers that arrays use for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.arrays import read_array

SEARCHED_AT_THE_COST_OF_HASHED = 100
"""Ids of an index that are hashed in the time in which one is searched for: few are searched for, many joined."""


class IdIndex:
    """Sorted text ids, each with the code (row number) that arrays use for it.

    The ids lie in one UTF-8 blob with offsets, memory-mapped from disk: a million ids cost no
    Python objects and are shared by all workers. Order is by UTF-8 bytes.
    """

    def __init__(self, blob: np.ndarray, offsets: np.ndarray) -> None:
        """``blob``: uint8 ``[bytes]``; ``offsets``: int64 ``[n + 1]``."""
        self._blob = blob
        self._offsets = offsets

    @classmethod
    def of(cls, ids: Iterable[str]) -> IdIndex:
        """Index distinct ids, whatever order they come in."""
        encoded = sorted({item.encode() for item in ids})
        offsets = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(item) for item in encoded], out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), np.uint8), offsets)

    def __len__(self) -> int:
        """Number of ids."""
        return len(self._offsets) - 1

    def __getitem__(self, code: int) -> str:
        """The id with this code."""
        return self._bytes(int(code)).decode()

    def _bytes(self, code: int) -> bytes:
        return self._blob[self._offsets[code] : self._offsets[code + 1]].tobytes()

    def ids(self, codes: Iterable[int] | None = None) -> list[str]:
        """The ids of these codes, or all of them in order."""
        return [self[code] for code in (range(len(self)) if codes is None else codes)]

    def code(self, item: str) -> int:
        """The code of an id, or -1 when it is unknown."""
        key = item.encode()
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self._bytes(middle) < key:
                low = middle + 1
            else:
                high = middle
        return low if low < len(self) and self._bytes(low) == key else -1

    def codes(self, items: Sequence[str]) -> np.ndarray:
        """Codes of many ids, int64, -1 for unknown ones."""
        if len(items) < len(self) / SEARCHED_AT_THE_COST_OF_HASHED:
            return np.fromiter((self.code(item) for item in items), np.int64, len(items))
        offsets, blob = (pa.py_buffer(np.ascontiguousarray(array)) for array in (self._offsets, self._blob))
        ids = pa.LargeStringArray.from_buffers(len(self), offsets, blob)
        found = pc.index_in(pa.array(items, pa.large_string()), value_set=ids)
        codes: np.ndarray = found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        return codes

    def codes_of_each(self, lists: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """:meth:`codes` of each list."""
        ends = np.cumsum([len(items) for items in lists], dtype=np.int64)
        return np.split(self.codes([item for items in lists for item in items]), ends)[:-1]

    def save(self, folder: Path, name: str) -> None:
        """Write ``<name>.blob.npy`` and ``<name>.offsets.npy``."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{name}.blob.npy", self._blob)
        np.save(folder / f"{name}.offsets.npy", self._offsets)

    @classmethod
    def load(cls, folder: Path, name: str) -> IdIndex:
        """Read what :meth:`save` wrote, memory-mapped."""
        return cls(read_array(folder / f"{name}.blob.npy"), read_array(folder / f"{name}.offsets.npy"))
