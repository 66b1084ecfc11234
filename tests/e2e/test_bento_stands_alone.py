"""The Bento runs where nothing but its lock is installed and no checkout is near."""

from __future__ import annotations

import http.client
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.made_bundle import make
from pipelines import native
from pipelines.adapters.bento import LOCK, ROOT, build_bento, environment, store
from pipelines.bundle import Bundle
from pipelines.ranking import RankRequest
from pipelines.service_process import free_port

pytestmark = pytest.mark.e2e

BLOCKER = """
import sys

class Blocker:
    blocked = frozenset({names!r})

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.blocked:
            raise ModuleNotFoundError(f"No module named {{name!r}}: it is not in the serving lock", name=name)
        return None

sys.meta_path.insert(0, Blocker())
"""


def not_in_the_lock() -> set[str]:
    """Modules of the packages that are installed here and not named in the lock."""
    lock = (ROOT / LOCK).read_text(encoding="utf-8")
    locked = {re.sub(r"[-_.]+", "-", name).lower() for name in re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)}
    packages = importlib.metadata.packages_distributions()
    names = {module: {re.sub(r"[-_.]+", "-", d).lower() for d in owners} for module, owners in packages.items()}
    ours = {"fuseline"}  # installed here in place; the Bento brings its own copy
    allowed = locked | ours
    return {m for m, owners in names.items() if not owners & allowed and not m.startswith("_") and m.isidentifier()}


def test_the_lock_holds_one_version_a_package_and_no_index() -> None:
    lines = (ROOT / LOCK).read_text(encoding="utf-8").splitlines()
    pinned = [line for line in lines if line and not line.lstrip().startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+(\[\w+\])?==[\w.+!]+( ;.*)?", line) for line in pinned)
    assert not [line for line in lines if "://" in line or line.startswith("-")]
    for heavy in ("tensorflow", "pandas", "duckdb", "mlflow", "scipy", "torch"):
        assert not [line for line in pinned if line.startswith(f"{heavy}==")]


def test_an_exported_bento_answers_the_same_lists_from_an_empty_store(tmp_path: Path) -> None:
    bundle = make(tmp_path / "bundle")
    tag = build_bento(bundle, version="7", home=tmp_path / "home")
    assert tag == "fuseline:7"
    assert build_bento(bundle, version="7", home=tmp_path / "home") == tag
    taken = list((store(tmp_path / "home") / "bentos").glob("fuseline/7/src/pipelines/native/_kernels*.so"))
    assert len(taken) == (native.kernels is not None)
    bentoml = [sys.executable, "-m", "bentoml"]
    exported, elsewhere = tmp_path / "fuseline.bento", tmp_path / "elsewhere"
    elsewhere.mkdir()
    subprocess.run([*bentoml, "export", tag, str(exported)], env=environment(tmp_path / "home"), check=True)
    (tmp_path / "block").mkdir()
    (tmp_path / "block" / "sitecustomize.py").write_text(BLOCKER.format(names=sorted(not_in_the_lock())))
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("FUSELINE_", "PYTHONPATH"))}
    variables |= {"BENTOML_HOME": str(elsewhere), "BENTOML_DO_NOT_TRACK": "True"}
    subprocess.run([*bentoml, "import", str(exported)], env=variables, cwd=elsewhere, check=True)
    variables["PYTHONPATH"] = str(tmp_path / "block")
    port = free_port()
    command = [*bentoml, "serve", "fuseline:latest", "--port", str(port)]
    log = tmp_path / "service.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=variables, cwd=elsewhere, stdout=out, stderr=out)
    try:
        answer = first_answer(port, process, log)
        local = Bundle.load(bundle)
        wanted = local.rank(RankRequest(n=10), local.history(user_id="u001"))
        assert [(item["id"], item["score"]) for item in answer["items"]] == [(i.id, i.score) for i in wanted.items]
        assert answer["model_version"] == "7"
        assert ask(port, "GET", "/v1/models")[0] == 501
        assert (elsewhere / "fuseline" / "var" / "events" / "events.db").exists()
    finally:
        process.terminate()
        process.wait(timeout=30)


def ask(port: int, method: str, path: str, body: object = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, None if body is None else json.dumps(body))
    answer = connection.getresponse()
    return answer.status, answer.read()


def first_answer(port: int, process: subprocess.Popen[bytes], log: Path) -> dict[str, list[dict[str, object]]]:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            status, raw = ask(port, "POST", "/v1/recommend", {"user_id": "u001", "explore": False})
        except OSError:
            time.sleep(0.1)
            continue
        assert status == 200, raw
        answer: dict[str, list[dict[str, object]]] = json.loads(raw)
        return answer
    raise AssertionError(log.read_text())
