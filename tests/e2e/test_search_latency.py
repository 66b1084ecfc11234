"""The speed benchmark of search runs through on a small catalogue."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks.bm25_peers import SYSTEMS
from benchmarks.search_latency import COUNTING, DISTINCT, EMPTY, MIX, _asked

pytestmark = pytest.mark.e2e
SMALL = ["--items", "80", "--seconds", "0.3", "--rounds", "1", "--warm-up", "0.3", "--workers", "1"]


@pytest.mark.parametrize("encoder", ["none", "all-MiniLM-L6-v2"])
def test_every_figure_is_there_and_no_request_fails(encoder: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.search_latency", *SMALL, "--encoder", encoder, "--json"]
    ran = subprocess.run([*command, "--cache", str(tmp_path)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert [row["what"] for row in found["rows"]] == [EMPTY, DISTINCT, MIX, COUNTING]
    assert all(row["errors"] == 0 and row["closed_loop_per_s"] > 0 and row["p99_ms"] > 0 for row in found["rows"])
    members = {"bm25", "coverage"} | ({"text"} if encoder != "none" else set())
    assert members <= set(found["build_s"])
    assert members <= set(found["megabytes"])
    assert [row["system"] for row in found["peers"]] == list(SYSTEMS)
    assert found["queries"][DISTINCT]["repeated"] == 0 < found["queries"][MIX]["repeated"]
    assert found["catalogue"]["texts"] == found["of_it_real_products"]["texts"] == 80
    assert min(found["memory_mb_per_worker"]) > 0


def test_no_query_that_comes_once_is_one_of_the_mix() -> None:
    told = Namespace(warm_up=1, rounds=1, seconds=1, seed=7)
    asked = _asked(told, [f"red mug {letter} with a handle of cork" for letter in "abcdefghijklmnopqrstuvwxyz"])
    assert len(asked.distinct) > 100
    assert len(set(asked.distinct)) == len(asked.distinct)
    assert not set(asked.distinct) & set(asked.mix)
