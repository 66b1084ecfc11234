"""What was asked last, kept in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """Values of the keys asked for last, each made at the first use; thread-safe.

    Not ``functools.lru_cache`` around a method: that is a cycle, and a service freezes what the collector may free.
    """

    def __init__(self, most: int) -> None:
        """``most``: values kept; beyond it the one asked for longest ago goes."""
        self._most = most
        self._kept: OrderedDict[Key, Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """The value of a key, made where it is not kept; two threads may both make one, and either is as good."""
        kept = self.find(key)
        if kept is None:
            self.keep(key, kept := make())
        return kept

    def find(self, key: Key) -> Value | None:
        """The value of a key, or None."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key]

    def keep(self, key: Key, value: Value) -> None:
        """From now on the value of a key; not None."""
        with self._lock:
            self._kept[key] = value
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
