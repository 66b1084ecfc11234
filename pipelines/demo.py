"""The end of ``make demo``: the metrics table, and one request answered by the packaged service.

The champion's Bento is started on a free port of this machine with a state of its own, so that the example
leaves no trace in the shop's events, and is stopped again.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import urllib.request
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from pipelines import champion
from pipelines.adapters import bento
from pipelines.errors import ArtifactError
from pipelines.evaluation.console import headline
from pipelines.features.state import FeatureState
from pipelines.service_process import serving
from pipelines.stages.running import run
from pipelines.storage import read_json

WIDTH = 130
"""Columns of the tables where the output is not a terminal."""


def example_user(features: FeatureState) -> int:
    """Code of the user with the most recent activity among those with five items or more; -1 without any."""
    if not features.n_users:
        return -1
    items = np.diff(features.user_items.pointer)
    activity = np.where(items >= min(5, items.max()), features.users["events_decay30"], -np.inf)
    return int(np.argmax(activity))


def example_query(artifacts: Path) -> str | None:
    """The judged query of middle length, ties by the alphabet; None where nobody judged any."""
    table = pq.read_table(artifacts / "canonical" / "judgments.parquet", columns=["query"])
    queries = sorted(set(table["query"].to_pylist()), key=lambda query: (len(query), query))
    return queries[len(queries) // 2] if queries else None


def recently(features: FeatureState, user: int, n: int = 5) -> list[str]:
    """Titles of the last items of a user, newest first."""
    titles = features.catalog.column("title")
    return [titles[code].as_py() for code in features.history(user).items[:n].tolist()]


@contextlib.contextmanager
def packaged_service(tag: str, home: Path) -> Iterator[str]:
    """Serve a Bento of ``home``'s store with a state of its own; yields its address, then stops it."""
    with tempfile.TemporaryDirectory(prefix="fuseline-demo-") as state:
        environment = {k: v for k, v in bento.environment(home).items() if not k.startswith("FUSELINE_")}
        environment |= {"FUSELINE_HOME": state, "PYTHONPATH": ""}
        with serving(tag, environment=environment, cwd=Path(state), log=Path(state) / "service.log") as started:
            yield started.address


def ask(address: str, route: str, body: dict[str, Any]) -> dict[str, Any]:
    """Post one request."""
    request = urllib.request.Request(  # noqa: S310 - our own address
        f"{address}{route}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - our own address
        found: dict[str, Any] = json.load(answer)
    return found


def answer_table(answer: dict[str, Any], features: FeatureState) -> Table:
    """The list with titles, prices, and the member that speaks most for each item."""
    titles, prices = features.catalog.column("title"), features.items["price"]
    table = Table("", "item", "title", "price", "score", "most from")
    for item in answer["items"]:
        code = features.item_ids.code(item["id"])
        price = f"{prices[code]:.2f}" if np.isfinite(prices[code]) else "–"
        sources = sorted(item["sources"], key=lambda source: source["rank"] or sys.maxsize)
        best = f"{sources[0]['model']} (rank {sources[0]['rank']})" if sources else "–"
        table.add_row(str(item["rank"]), item["id"], titles[code].as_py(), price, f"{item['score']:.3f}", best)
    return table


def main(argv: list[str] | None = None) -> None:
    """Print the tables, start the service, ask once, stop it."""
    parser = ArgumentParser(description="Show the metrics, and one answer of the champion's packaged service.")
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"), help="outputs (default: %(default)s)")
    artifacts = parser.parse_args(argv).artifacts
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    documents = {name: read_json(artifacts / "evaluation" / f"{name}.json") for name in ("metrics", "comparisons")}
    for part in headline(documents):
        console.print(part)
    home = champion.home_from_environment()
    pointer = champion.read(home)
    if pointer is None:
        raise ArtifactError("there is no champion to serve", do="run `dvc repro` and `fuseline promote`")
    features = FeatureState.load(pointer.bundle / "features")
    user, query = example_user(features), example_query(artifacts)
    common = {"n": 10, "explore": False, "explain": True}
    asked: list[tuple[str, dict[str, Any]]] = []
    if user >= 0 or query is None:
        who = {"user_id": features.user_ids[user]} if user >= 0 else {}
        asked.append(("/v1/recommend", who | common))
    if query is not None:
        asked.append(("/v1/search", {"query": query} | common))
    with packaged_service(f"{bento.NAME}:{pointer.version}", home) as address:
        answers = [ask(address, route, body) for route, body in asked]
    for (route, body), answer in zip(asked, answers, strict=True):
        console.print(f"\nPOST {route} {json.dumps(body)}", highlight=False)
        if "user_id" in body:
            console.print(f"last seen by this user: {'; '.join(recently(features, user))}", highlight=False)
        console.print(answer_table(answer, features))
        console.print(f"version {answer['model_version']}, {answer['took_ms']:.1f} ms, fallback: {answer['fallback']}")
    elsewhere = f"FUSELINE_HOME={home} " if home.parent.name == "samples" else ""
    report = artifacts.resolve() / "evaluation" / "report.html"
    console.print(
        f"Next: `{elsewhere}make serve`, then open http://127.0.0.1:3000; report: {report}",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    run(main)
