"""After a promotion one waits until every answer of the service carries the champion's version."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipelines import champion
from pipelines.actions import served
from pipelines.champion import Pointer
from pipelines.errors import ArtifactError, PromotionRefused

Service = tuple[str, list[str]]


@pytest.fixture
def service() -> Iterator[Service]:
    """A service whose workers answer, in turn, with the versions of a list; the last one stays."""
    versions: list[str] = ["1"]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps({"model_version": versions.pop(0) if len(versions) > 1 else versions[0]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", versions
    server.shutdown()
    server.server_close()


@pytest.fixture
def promoted(tmp_path: Path) -> Callable[[int], Path]:
    """Make a version the champion; gives the home."""

    def promote(version: int) -> Path:
        pointer = Pointer(version, tmp_path / "bundle", None, "b", None, "r")
        with champion.locked(tmp_path):
            champion.write(tmp_path, pointer, record={})
        return tmp_path

    return promote


def test_the_wait_ends_when_no_worker_answers_with_the_old_version(
    service: Service, promoted: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "BETWEEN_SECONDS", 0.0)
    address, versions = service
    versions[:] = ["1", "2", "2", "1", *["2"] * served.IN_A_ROW]
    found = served.wait_until_served(promoted(2), address, seconds=20)
    assert found.version == 2
    assert versions == ["2"]


def test_a_service_that_stays_behind_is_named_with_what_it_said(
    service: Service, promoted: Callable[[int], Path]
) -> None:
    with pytest.raises(ArtifactError, match=r"does not answer with the champion; found: 1; wanted: version 2"):
        served.wait_until_served(promoted(2), service[0], seconds=0.2)


def test_without_a_champion_there_is_nothing_to_wait_for(service: Service, tmp_path: Path) -> None:
    with pytest.raises(PromotionRefused, match="there is no champion"):
        served.wait_until_served(tmp_path, service[0], seconds=1)
