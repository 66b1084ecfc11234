"""What happens while the event store does not answer: one caller looks now and then, the others are told at once."""

from __future__ import annotations

import logging
import time

from pipelines.errors import ArtifactError

logger = logging.getLogger("fuseline.events")

PATIENCE_S = 1.0
"""How long a database that failed is left alone before somebody looks again."""

RETRY_AFTER_S = 5
"""What a caller is told to wait when the store does not answer."""


class StoreUnavailable(ArtifactError):
    """The event store does not answer at the moment; nothing was stored."""


class Breaker:
    """Whether a database answers, so that not everybody waits for one that does not."""

    def __init__(self) -> None:
        """It is taken to answer until it has failed once."""
        self._down = False
        self._look_at = 0.0

    def check(self) -> None:
        """Pass while it answers; while it does not, pass one caller now and then, who looks.

        Raises:
            StoreUnavailable: for all others.
        """
        if not self._down:
            return
        now = time.monotonic()
        if now < self._look_at:
            raise StoreUnavailable("the event store does not answer", do=f"try again in {RETRY_AFTER_S} s")
        self._look_at = now + PATIENCE_S

    def failed(self, error: Exception) -> StoreUnavailable:
        """Remember a failure; what to raise for it."""
        if not self._down:
            logger.error("the event store does not answer: %s", str(error).splitlines()[0])
        self._down, self._look_at = True, time.monotonic() + PATIENCE_S
        return StoreUnavailable("the event store does not answer", do=f"try again in {RETRY_AFTER_S} s")

    def answered(self) -> None:
        """Remember that it answers."""
        if self._down:
            logger.info("the event store answers again")
            self._down = False
