"""When a worker looks for garbage: at young objects as ever, at all that is kept once a minute.

A request leaves no cycles behind, but what is kept of it (queries as they were read, orders) grows old, and by itself
Python then looks through ever more of it, whenever many new ones have come: 5 ms now and then and 30 ms at last, in
the middle of a request.
"""

from __future__ import annotations

import gc
import threading

EVERY_S = 60.0
"""Between two looks at everything."""

NEVER = 2**31 - 1
"""Young collections before older objects are looked at too, so that this is left to :class:`Collector`."""


class Collector:
    """Collects for this process from :meth:`start` to :meth:`close`; what is there at the start is never looked at."""

    def __init__(self, *, every_s: float = EVERY_S) -> None:
        """``every_s``: between two looks at everything."""
        self._every_s = every_s
        self._before = gc.get_threshold()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._collect, name="garbage-collector", daemon=True)

    def start(self) -> None:
        """Take over, once all that stays is loaded."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(self._before[0], NEVER, NEVER)
        gc.enable()  # where a service starts, it is off so far
        self._thread.start()

    def _collect(self) -> None:
        while not self._stop.wait(self._every_s):
            gc.collect()

    def close(self) -> None:
        """Leave it to Python again."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=1)
        gc.set_threshold(*self._before)
