"""A service gets a port that stays free until it binds it, and whoever else answers there is not taken for it."""

from __future__ import annotations

import random
import socket
import threading

import pytest

from pipelines import service_process
from pipelines.errors import ArtifactError
from pipelines.service_process import PORTS, free_port


@pytest.mark.parametrize(
    "answer", [b"", b"\r\n\r\n", b"+PONG\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"]
)
def test_who_answers_otherwise_is_not_the_service(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answered() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        thread = threading.Thread(target=answered)
        thread.start()
        ready = service_process._ready(listening.getsockname()[1])
        thread.join()
    assert ready == answer.startswith(b"HTTP/1.1 200")


def test_no_outgoing_connection_gets_a_port_that_was_drawn() -> None:
    assert {free_port() in PORTS for _ in range(20)} == {True}
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()) as out:
        assert out.getsockname()[1] not in PORTS


def test_a_port_that_is_taken_is_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = free_port()
    with socket.create_server(("127.0.0.1", taken)):
        other = free_port()
        monkeypatch.setattr(random, "sample", lambda *_: [taken, other])
        assert free_port() == other
        monkeypatch.setattr(random, "sample", lambda *_: [taken])
        with pytest.raises(ArtifactError, match="no free port"):
            free_port()
