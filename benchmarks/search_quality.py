"""How good a bundle's search is on a shop's judgments, beside each of its members: no judgment is learned from.

``python -m benchmarks.search_quality [--artifacts artifacts] [--typos] [--json]``, after ``make demo SHOP=esci_us`` in
the folder that it names.

Method: the whole catalogue is ranked for every judged query, without user and exploration. nDCG@10 with the gains of
the judgments, log2 discount and the ideal of each query, an item that nobody judged counting 0; recall@100 of the items
with the highest gain. Differences are paired by query, with a 95 % bootstrap interval. ``--typos`` gives every query
with a word of five letters or more one typing error in one such word (two letters swapped, one lost, doubled or
replaced; seeded) and states what is left.
"""

from __future__ import annotations

import argparse
import json
import random
import string
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from pipelines.bundle import Bundle
from pipelines.contracts import Surface
from pipelines.errors import ArtifactError
from pipelines.evaluation import bootstrap
from pipelines.model_api import Context
from pipelines.ranking import RankRequest

FUSED, LEXICAL = "fused", "bm25"
CUT, DEEP = 10, 100
LETTERS = 5
"""A word with fewer is left as it is."""

SEED = 7


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Quality of a bundle's search on the shop's judgments.")
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"), help="of a run (default: %(default)s)")
    parser.add_argument("--typos", action="store_true", help="also with one typing error a query")
    parser.add_argument("--json", action="store_true", help="print JSON")
    told = parser.parse_args()
    report = measured(told.artifacts, typos=told.typos)
    if told.json:
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
    else:
        _print(report)


def measured(artifacts: Path, *, typos: bool) -> dict[str, Any]:
    """Means of all systems, and what the fusion gains over them."""
    judged = judgments(artifacts / "canonical" / "judgments.parquet")
    bundle = Bundle.load(artifacts / "bundle")
    if not bundle.on(Surface.SEARCH):
        raise ArtifactError(f"{artifacts / 'bundle'} has no member that searches", do="add one to models")
    clean = scores(bundle, judged, list(judged))
    report: dict[str, Any] = {"queries": len(judged), "items": bundle.features.n_items, "bundle": bundle.id}
    report["systems"] = {name: _means(found) for name, found in clean.items()}
    members = [name for name in clean if name != FUSED]
    best = max(members, key=lambda name: float(clean[name][:, 0].mean()))
    report["gains"] = {
        name: _gain(clean[FUSED], clean[name]) for name in dict.fromkeys([best, LEXICAL]) if name in clean
    }
    if typos:
        draw = random.Random(SEED)  # noqa: S311 - a benchmark
        wrong = scores(bundle, judged, [misspelt(query, draw) for query in judged])[FUSED]
        report["typos"] = _means(wrong) | {
            "share_kept": round(float(wrong[:, 0].mean() / clean[FUSED][:, 0].mean()), 4)
        }
    return report


def judgments(path: Path) -> dict[str, dict[str, float]]:
    """Gains by item, by query, in the order of the alphabet."""
    found: dict[str, dict[str, float]] = {}
    for row in pq.read_table(path).sort_by([("query", "ascending"), ("item_id", "ascending")]).to_pylist():
        found.setdefault(row["query"], {})[row["item_id"]] = row["gain"]
    if not found:
        raise ArtifactError(f"{path} holds no judgment", do="name the artifacts of a shop that has some")
    return found


def scores(bundle: Bundle, judged: dict[str, dict[str, float]], typed: Sequence[str]) -> dict[str, np.ndarray]:
    """nDCG@10 and recall@100 of every query, float64 ``[queries, 2]``, by system."""
    members = bundle.on(Surface.SEARCH)
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in (FUSED, *members)}
    for gains, query in zip(judged.values(), typed, strict=True):
        asked = RankRequest(surface=Surface.SEARCH, query=query, n=DEEP)
        lists = {FUSED: [item.id for item in bundle.rank(asked, bundle.history()).items]}
        context = Context(bundle.history(), Surface.SEARCH, bundle.query(query))
        for name, member in members.items():
            lists[name] = bundle.features.item_ids.ids(member.candidates(context, DEEP).codes)
        for name, ids in lists.items():
            rows[name].append((ndcg(ids, gains), recall(ids, gains)))
    return {name: np.array(found) for name, found in rows.items()}


def ndcg(ids: Sequence[str], gains: dict[str, float]) -> float:
    """nDCG@10 of a list."""
    discount = 1 / np.log2(np.arange(2, CUT + 2))
    ideal = sorted(gains.values(), reverse=True)[:CUT]
    best = float(np.dot(ideal, discount[: len(ideal)]))
    reached = [gains.get(item, 0.0) for item in ids[:CUT]]
    return float(np.dot(reached, discount[: len(reached)])) / best if best else 0.0


def recall(ids: Sequence[str], gains: dict[str, float]) -> float:
    """Share of the items with the highest gain among the first hundred."""
    wanted = {item for item, gain in gains.items() if gain == max(gains.values())}
    return len(wanted & set(ids[:DEEP])) / len(wanted)


def misspelt(query: str, draw: random.Random) -> str:
    """A query with one typing error in one of its long words; without such a word it stays."""
    words = query.split()
    long = [place for place, word in enumerate(words) if len(word) >= LETTERS and word.isalpha()]
    if not long:
        return query
    place = draw.choice(long)
    word, at = words[place], draw.randrange(1, len(words[place]) - 1)
    words[place] = draw.choice(
        (
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            word[:at] + word[at + 1 :],
            word[:at] + word[at] + word[at:],
            word[:at] + draw.choice(string.ascii_lowercase) + word[at + 1 :],
        )
    )
    return " ".join(words)


def _means(found: np.ndarray) -> dict[str, float]:
    return {"ndcg@10": round(float(found[:, 0].mean()), 4), "recall@100": round(float(found[:, 1].mean()), 4)}


def _gain(fused: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    gain = bootstrap.difference(fused[:, 0], other[:, 0], seed=SEED)
    return {} if gain is None else gain.as_difference()


def _print(report: dict[str, Any]) -> None:
    console = Console()
    table = Table(title=f"{report['queries']} judged queries, {report['items']:,} items, bundle {report['bundle']}")
    for name in ("system", "nDCG@10", "recall@100"):
        table.add_column(name, justify="left" if name == "system" else "right")
    for name, found in report["systems"].items():
        table.add_row(name, f"{found['ndcg@10']:.4f}", f"{found['recall@100']:.4f}")
    if "typos" in report:
        table.add_row("fused, one typo", f"{report['typos']['ndcg@10']:.4f}", f"{report['typos']['recall@100']:.4f}")
    console.print(table)
    for name, gain in report["gains"].items():
        span = f"{gain['mean_difference']:+.4f} ({gain['ci_low']:+.4f} to {gain['ci_high']:+.4f})"
        console.print(f"nDCG@10 of fused over {name}: {span}")


if __name__ == "__main__":
    main()
