"""Orders of recent searches, kept for whoever asks the same: by one process in memory, by all of a machine in a file.

Which worker a request meets is chance, so a query that comes again meets one that has not seen it as often as not. The
file takes every order, memory beside it only those of questions that came before. The file has slots: an order goes
into the one that the hash of its question names, in the place of another. So there is nothing to count and nothing to
clear, and what asks most often is soon back.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import weakref
import zlib
from array import array
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from pipelines.ranking import Filter
from pipelines.recent import Recent

FILE = "orders.bin"

IN_MEMORY = 5000
"""Orders that a process keeps, about 10 kB each."""

NOTED = 32_768
"""Questions of which it is noted that they came; half of all come once, and would drive out those that come again."""

SLOTS = 8192
"""Orders that the processes of a machine keep together, likewise: most take 12 kB, a file being whole pages."""

SLOT = 32_768
"""Bytes of a slot, an order of 4,000 items."""


class Order(NamedTuple):
    """The items of a search that has neither history nor exclusions, and what the answer says of them.

    Attributes:
        codes: int32 ``[m]``, best first.
        scores: float32 ``[m]``.
        fallback: why the list is simpler than it could be, or None.
        rewritten: what was searched for instead of what was typed, or None.
    """

    codes: np.ndarray
    scores: np.ndarray
    fallback: str | None
    rewritten: str | None

    def to_bytes(self) -> bytes:
        """A line of JSON, then codes and scores as the machine has them."""
        about = json.dumps([len(self.codes), self.fallback, self.rewritten]).encode()
        return b"\n".join((about, self.codes.tobytes() + self.scores.tobytes()))

    @classmethod
    def from_bytes(cls, value: bytes) -> Self:
        """Inverse of :meth:`to_bytes`."""
        about, _, rest = value.partition(b"\n")
        n, fallback, rewritten = json.loads(about)
        codes, scores = np.frombuffer(rest, np.int32, n), np.frombuffer(rest, np.float32, n, offset=4 * n)
        return cls(codes, scores, fallback, rewritten)


class KeptOrders:
    """Orders of one bundle by query and filter, each made at the first use; thread-safe."""

    def __init__(self, *, bundle: str = "", folder: Path | None = None) -> None:
        """Keep none so far.

        Args:
            bundle: hash of what the orders follow from.
            folder: shared with other processes, of this bundle or another; None: in memory alone.
        """
        self._bundle = bundle
        self._recent: Recent[tuple[str, Filter], Order] = Recent(IN_MEMORY)
        self._slots = None if folder is None else Slots(folder / FILE, SLOTS)
        self._came = array("q", bytes(8 * NOTED))

    def get(self, query: str, filter_: Filter, make: Callable[[], Order]) -> Order:
        """The order for a query, from memory, else out of another process, else made."""
        asked = query, filter_
        if self._slots is None:
            return self._recent.get(asked, make)
        kept = self._recent.find(asked)
        if kept is not None:
            return kept
        key = repr((self._bundle, query, filter_)).encode()
        found = self._slots.read(key)
        order = make() if found is None else Order.from_bytes(found)
        if found is None:
            self._slots.write(key, order.to_bytes())
        if found is not None or self._came_before(hash(asked)):
            self._recent.keep(asked, order)
        return order

    def _came_before(self, mark: int) -> bool:
        """Whether a question did, by its hash; and note that it has. A doorkeeper (Einziger et al. 2017, "TinyLFU")."""
        place = mark % NOTED
        came = self._came[place] == mark
        self._came[place] = mark
        return came


class Slots:
    """Values in a file that processes share, each at a place that the hash of its key names.

    One call of the system reads a value and one writes it, without a lock: a checksum tells the whole ones from those
    that another process is writing just then. A full disk, or a folder that is gone, costs the sharing, nothing else.
    """

    _HEAD = struct.Struct("<32sII")
    """SHA-256 of the key, CRC-32 and length of the value."""

    def __init__(self, file: Path, n: int) -> None:
        """``n`` slots in a file, made where it is missing; places that nobody wrote to take no room."""
        self._n = n
        self._file = -1
        with suppress(OSError):
            self._file = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            weakref.finalize(self, os.close, self._file)

    def read(self, key: bytes) -> bytes | None:
        """The value of a key; None when its slot is empty, or another key's."""
        digest, place = self._slot(key)
        try:
            found = os.pread(self._file, SLOT, place)
        except OSError:
            return None
        if not found.startswith(digest) or len(found) < self._HEAD.size:
            return None
        _, checksum, length = self._HEAD.unpack_from(found)
        value = found[self._HEAD.size : self._HEAD.size + length]
        return value if zlib.crc32(value) == checksum else None

    def write(self, key: bytes, value: bytes) -> None:
        """Put a value into its slot, in the place of what is there; one too long for a slot is not kept."""
        if self._HEAD.size + len(value) > SLOT:
            return
        digest, place = self._slot(key)
        with suppress(OSError):
            os.pwrite(self._file, self._HEAD.pack(digest, zlib.crc32(value), len(value)) + value, place)

    def _slot(self, key: bytes) -> tuple[bytes, int]:
        digest = hashlib.sha256(key).digest()
        return digest, int.from_bytes(digest[:8]) % self._n * SLOT
