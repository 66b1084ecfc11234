"""The web server of a worker: uvicorn's, with connections taken as :mod:`serving.connections` says."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import uvicorn

from serving.connections import CONNECTIONS, NOBODY, Held, Listener

logger = logging.getLogger("fuseline.service")


class Connections(set[Any]):
    """uvicorn's set of open connections, which tells of every change."""

    def __init__(self, changed: Callable[[], None]) -> None:
        """``changed``: called after each."""
        super().__init__()
        self._changed = changed

    def add(self, connection: Any) -> None:
        """One is made."""
        super().add(connection)
        self._changed()

    def discard(self, connection: Any) -> None:
        """One has ended."""
        super().discard(connection)
        self._changed()


class EvenServer(uvicorn.Server):
    """uvicorn's server on sockets that workers share, taking its part of the connections and no more."""

    everybody: ClassVar[Held]
    """What all workers hold."""

    def __init__(self, config: uvicorn.Config) -> None:
        """As uvicorn's."""
        super().__init__(config)
        self.server_state.connections = Connections(self._tell)
        self._coming: set[asyncio.Task[Any]] = set()
        self._listeners: list[Listener] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, but for who accepts."""
        await super().startup(sockets=[])
        await self.everybody.together()
        self._listeners = [Listener(self.everybody, one, self._held, self._take) for one in sockets or []]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        self.everybody.say(NOBODY)
        await super().shutdown(sockets=sockets)

    def _held(self) -> int:
        return len(self.server_state.connections) + len(self._coming)

    def _tell(self) -> None:
        if self._listeners:
            self.everybody.say(self._held())

    def _take(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        connection.settimeout(0)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        coming = loop.create_task(loop.connect_accepted_socket(self._protocol, connection, ssl=self.config.ssl))
        self._coming.add(coming)
        coming.add_done_callback(self._came)
        self._tell()

    def _came(self, coming: asyncio.Task[Any]) -> None:
        self._coming.discard(coming)
        self._tell()
        if not coming.cancelled() and coming.exception() is not None:
            logger.debug("a connection was not made: %r", coming.exception())  # such as a failed TLS handshake

    def _protocol(self) -> asyncio.Protocol:
        made: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = made(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol

    @classmethod
    def of(cls, everybody: Held) -> type[Self]:
        """The class for a worker."""
        return type(cls.__name__, (cls,), {"everybody": everybody})


def even(environ: Mapping[str, str], *, worker: int | None) -> None:
    """Let the server that BentoML is about to start in this process be an :class:`EvenServer`.

    Args:
        environ: may name the file of :class:`Held`; without it nothing changes.
        worker: BentoML's number of the worker, from 1; None where there is but one.
    """
    path = environ.get(CONNECTIONS)
    if path and worker is not None and Path(path).is_file():
        uvicorn.Server = EvenServer.of(Held(Path(path), worker - 1))  # type: ignore[misc]
