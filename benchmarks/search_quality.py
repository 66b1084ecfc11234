"""How good a shop's search is on its judgments, beside each of its members, in two tracks that are never mixed.

``python -m benchmarks.search_quality [--artifacts artifacts] [--typos] [--plain] [--json]``, after
``make demo SHOP=esci_us`` in the folder that it names.

Method: the whole catalogue is ranked for every judged query by the judged bundle, without user and exploration. nDCG@10
with the gains of the judgments, log2 discount and the ideal of each query, an item that nobody judged counting 0;
recall@100 of the items with the highest gain. ``zero-shot``: the fusion that reads no judgment. ``supervised``: each
query is answered by members and fusion that learned from the other four fifths of the queries (``search.labels``), or
by the unlearned fusion where nothing was proven better there. Differences are paired by query, with a 95 % bootstrap
interval. ``--typos`` gives every query with a word of five letters or more one typing error in one such word (two
letters swapped, one lost, doubled or replaced; seeded) and states what is left. ``--plain`` puts the systems beside
them that anyone would begin with (:mod:`benchmarks.plain_search`); encoding the items takes a minute.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import plain_search
from benchmarks.telling import add_output, tell
from pipelines.bundle import Bundle
from pipelines.contracts import FUSED, Surface
from pipelines.errors import ArtifactError
from pipelines.evaluation import bootstrap, protocol
from pipelines.evaluation.targets import Audience, queries
from pipelines.search.labels import read_judgments
from pipelines.search.slips import misspelt
from pipelines.workspace import Workspace

ZERO_SHOT, SUPERVISED, LEXICAL = "fused, zero-shot", "fused, supervised", "bm25"
SHOWN = ("ndcg@10", "recall@100")
SEED = 7

PerQuery = dict[str, np.ndarray]
"""Metrics of :data:`SHOWN` by name, float64 ``[queries]``."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Quality of a shop's search on its judgments.")
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"), help="of a run (default: %(default)s)")
    parser.add_argument("--typos", action="store_true", help="also with one typing error a query")
    parser.add_argument("--plain", action="store_true", help="beside plain BM25 and MiniLM, as anyone would begin")
    add_output(parser)
    told = parser.parse_args()
    report = measured(told.artifacts, typos=told.typos, plain=told.plain)
    tell(report, told, _print)


def measured(artifacts: Path, *, typos: bool, plain: bool = False) -> dict[str, Any]:
    """Means of all systems, and what the fusions gain over their members."""
    bundle = Bundle.load(artifacts / "judged")
    path = Workspace(artifacts).split / "judgments.parquet"
    audience = queries(bundle.features, read_judgments(path))
    if not len(audience):
        raise ArtifactError(f"{path} holds no judgment", do="name the artifacts of a shop that has some")
    if not bundle.on(Surface.SEARCH):
        raise ArtifactError(f"{artifacts / 'judged'} has no member that searches", do="add one to models")
    found = scores(bundle, audience)
    members = [name for name in found if name not in {ZERO_SHOT, SUPERVISED}]
    best = max(members, key=lambda name: float(found[name]["ndcg@10"].mean()))
    report: dict[str, Any] = {"queries": len(audience), "items": bundle.features.n_items, "bundle": bundle.id}
    report["methods"] = methods(bundle)
    report["systems"] = {name: _means(one) for name, one in found.items()}
    report["gains"] = {
        fused: {name: _gain(found[fused], found[name]) for name in dict.fromkeys([best, LEXICAL]) if name in found}
        for fused in (ZERO_SHOT, SUPERVISED)
    }
    if plain:
        rows = plain_search.measured(bundle.features, audience)
        report["systems"] |= {name: _means(one) for name, one in rows.items()}
    if typos:
        draw = random.Random(SEED)  # noqa: S311 - a benchmark
        slipped = replace(audience, typed=tuple(misspelt(query, draw) for query in audience.typed))
        report["typos"] = {}
        for name, asked in ((ZERO_SHOT, unlearned(bundle)), (SUPERVISED, bundle)):
            wrong = fused_scores(asked, slipped)
            share = float(wrong["ndcg@10"].mean() / found[name]["ndcg@10"].mean())
            report["typos"][name] = _means(wrong) | {"share_kept": round(share, 4)}
    return report


def unlearned(bundle: Bundle) -> Bundle:
    """The same bundle with the fusion that no judgment has touched."""
    search = bundle.fusion[Surface.SEARCH]
    plain = replace(search, fuser=search.first or search.fuser, first=None, folds={})
    return Bundle(bundle.manifest, bundle.features, bundle.members, {Surface.SEARCH: plain}, bundle.encoder)


def methods(bundle: Bundle) -> dict[str, str]:
    """How each fold of the supervised track fuses."""
    search = bundle.fusion[Surface.SEARCH]
    parts = dict(search.folds) or {0: search}
    return {str(fold): type(part.fuser).__name__.lower() for fold, part in sorted(parts.items())}


def scores(bundle: Bundle, audience: Audience) -> dict[str, PerQuery]:
    """Metrics of every query by system: both tracks of the fusion, then each member."""
    result = protocol.evaluate_surface(bundle, audience)
    supervised = result.per_user[FUSED]
    found = {ZERO_SHOT: fused_scores(unlearned(bundle), audience), SUPERVISED: supervised}
    return found | {name: result.per_user[name] for name in result.members}


def fused_scores(bundle: Bundle, audience: Audience) -> PerQuery:
    """Metrics of every query as the bundle answers it."""
    return protocol.scored(protocol.PLAIN.fused(bundle, audience).codes, audience, bundle.features.n_items)


def _means(found: PerQuery) -> dict[str, float]:
    return {name: round(float(found[name].mean()), 4) for name in SHOWN}


def _gain(fused: PerQuery, other: PerQuery) -> dict[str, Any]:
    gain = bootstrap.difference(fused["ndcg@10"], other["ndcg@10"], seed=SEED)
    return {} if gain is None else gain.as_difference()


def _print(report: dict[str, Any]) -> None:
    console = Console()
    table = Table(title=f"{report['queries']} judged queries, {report['items']:,} items, bundle {report['bundle']}")
    for name in ("system", "nDCG@10", "recall@100"):
        table.add_column(name, justify="left" if name == "system" else "right")
    rows = report["systems"] | {f"{name}, one typo": found for name, found in report.get("typos", {}).items()}
    for name, found in rows.items():
        table.add_row(name, f"{found['ndcg@10']:.4f}", f"{found['recall@100']:.4f}")
    console.print(table)
    console.print(f"methods of the folds: {', '.join(report['methods'].values())}", highlight=False)
    for fused, gains in report["gains"].items():
        for name, gain in gains.items():
            span = f"{gain['mean_difference']:+.4f} ({gain['ci_low']:+.4f} to {gain['ci_high']:+.4f})"
            console.print(f"nDCG@10 of {fused} over {name}: {span}", highlight=False)


if __name__ == "__main__":
    main()
