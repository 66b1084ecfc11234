"""Recent histories in Redis: a copy of what the event store says, which may be lost at any time.

A key holds the newest rows of one history, or the user whom a visitor is linked to. It exists only when it is
complete: whoever misses one reads the store and writes the key, unless somebody posted in between (a lease that
posting takes away). What is posted is appended after its commit, before its answer.

A Redis that did not get a write must not be believed afterwards. So all keys carry an epoch that is kept in the
event store: a worker that cannot write moves it on before it answers, every worker looks at it each second, and
whoever has failed looks at it before it trusts Redis again. Old keys then are nobody's, and expire.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pipelines.errors import ArtifactError

logger = logging.getLogger("fuseline.state")

TTL_S = 3600
"""A key that a killed worker could not complete misleads no longer than this."""
TIMEOUT_S = 0.25
PATIENCE_S = 1.0
"""How long a failed Redis is left alone, and how often the epoch is looked at."""
COMPLETE = b"*"
"""First row of a key that holds everything from the beginning."""
ROWS_A_KEY = 600

_POPULATE = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('RPUSH', KEYS[1], unpack(ARGV, 3))
return redis.call('EXPIRE', KEYS[1], ARGV[2])
"""


class RedisState:
    """Keys of one event store; thread-safe."""

    def __init__(self, url: str, store: str) -> None:
        """``url``: ``redis://…``; ``store``: id of the event store.

        Raises:
            ArtifactError: when the library is missing or the address is none. A Redis that is down is no error.
        """
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError as error:
            raise ArtifactError("FUSELINE_STATE_URL needs the package redis", do="install the serving lock") from error
        try:
            self._redis: Any = redis.Redis.from_url(
                url,
                socket_timeout=TIMEOUT_S,
                socket_connect_timeout=TIMEOUT_S,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError as error:
            shown = url.partition("://")[0] + "://…"
            raise ArtifactError(
                "FUSELINE_STATE_URL is no address of a Redis",
                found=shown,
                wanted="redis://host:6379/0",
                do="correct it, or unset it",
            ) from error
        self._errors: tuple[type[Exception], ...] = (redis.RedisError, OSError)
        self._populate = self._redis.register_script(_POPULATE)
        self._store = store
        self._epoch: int | None = None
        self._quiet_until = 0.0

    @property
    def trusted(self) -> bool:
        """Whether Redis is read and written; otherwise every commit has to move the epoch on."""
        return self._epoch is not None

    def look(self, epoch: Callable[[], int]) -> None:
        """Follow the epoch of the store; trust Redis again when it answers."""
        now = time.monotonic()
        if now < self._quiet_until:
            return
        self._quiet_until = now + PATIENCE_S
        if self._epoch is None:
            try:
                self._redis.ping()
            except self._errors:
                return
            logger.info("Redis answers")
        self._epoch = epoch()

    def rows(self, kind: str, name: str, load: Callable[[], Sequence[bytes]]) -> Sequence[bytes] | None:
        """Rows of a key, loaded from the store when it is not there; None when Redis does not answer."""
        epoch = self._epoch
        if epoch is None:
            return None
        key, lease, token = (
            self._key(epoch, kind, name),
            self._key(epoch, "lease-" + kind, name),
            secrets.token_bytes(8),
        )
        try:
            found: list[bytes] = self._redis.lrange(key, 0, -1)
            if found:
                return found
            self._redis.set(lease, token, ex=60)
        except self._errors as error:
            self.distrust(error)
            return None
        loaded = load()
        try:
            self._populate(keys=[key, lease], args=[token, TTL_S, *loaded])
        except self._errors as error:
            self.distrust(error)
        return loaded

    def write_through(self, rows: Mapping[str, Sequence[bytes]], *, stale: Iterable[tuple[str, str]] = ()) -> bool:
        """Append rows to histories and drop keys ``(kind, name)``; False when Redis did not take it."""
        epoch = self._epoch
        if epoch is None:
            return False
        try:
            with self._redis.pipeline(transaction=True) as pipe:
                for name, some in rows.items():
                    key = self._key(epoch, "history", name)
                    pipe.delete(self._key(epoch, "lease-history", name))
                    pipe.rpushx(key, *some)
                    pipe.ltrim(key, -ROWS_A_KEY, -1)
                for kind, name in stale:
                    pipe.delete(self._key(epoch, kind, name), self._key(epoch, "lease-" + kind, name))
                pipe.execute()
        except self._errors as error:
            self.distrust(error)
            return False
        return True

    def distrust(self, error: Exception) -> None:
        """Leave Redis alone for a moment."""
        if self._epoch is not None:
            logger.warning("Redis does not answer, histories come from the event store: %s", error)
        self._epoch = None
        self._quiet_until = time.monotonic() + PATIENCE_S

    def forget(self, names: Iterable[str]) -> None:
        """Remove everything about these ids, whatever the epoch.

        Raises:
            ArtifactError: Redis does not answer.
        """
        try:
            for name in names:
                literal = "".join(f"\\{letter}" if letter in "*?[]\\^-" else letter for letter in name)
                keys = list(self._redis.scan_iter(match=f"fuseline:{self._store}:*:{literal}", count=1000))
                exact = [key for key in keys if key.decode().split(":", 4)[-1] == name]
                if exact:
                    self._redis.delete(*exact)
        except self._errors as error:
            raise ArtifactError("Redis does not answer", found=error, do="try again when it does") from error

    def close(self) -> None:
        """Disconnect."""
        self._redis.close()

    def _key(self, epoch: int, kind: str, name: str) -> str:
        return f"fuseline:{self._store}:{epoch}:{kind}:{name}"
