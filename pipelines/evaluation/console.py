"""What a person at a terminal sees: progress, then the headline metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

from pipelines.contracts import FUSED, Surface
from pipelines.evaluation import metrics
from pipelines.evaluation.protocol import Track

HEADERS = {
    "ndcg@10": "ndcg\n@10",
    "recall@20": "recall\n@20",
    "recall@100": "recall\n@100",
    "mrr@10": "mrr\n@10",
    "hit_rate@10": "hit\nrate\n@10",
    "map@10": "map\n@10",
    "precision@10": "preci-\nsion\n@10",
    "coverage@10": "cover-\nage\n@10",
    "diversity@10": "diver-\nsity\n@10",
    "novelty@10": "novel-\nty\n@10",
    "gini@10": "gini\n@10",
}


LEFT_OUT = {Surface.RECOMMEND: (), Surface.RECOMMEND_NEW: (), Surface.SEARCH: ("novelty@10",)}
"""Columns that a table has no room for, and which say little there."""


def progress(console: Console) -> Track[Any]:
    """A bar on a terminal, a line in a log."""

    def shown(rows: Sequence[Any], description: str) -> Iterable[Any]:
        if console.is_terminal:
            return track(rows, description, console=console, transient=True)
        console.print(f"{description}, {len(rows)}")
        return rows

    return shown


def headline(documents: Mapping[str, Any]) -> Iterator[Table | str]:
    """Per surface a table of systems by falling nDCG and the gain over the best single member, or why there is none.

    Tables fit 80 columns, which is what a log has.
    """
    for surface, systems in documents["metrics"].items():
        if "not_applicable" in systems:
            yield f"{surface}: not applicable, {systems['not_applicable']}"
            continue
        absent = {name: spans["not_applicable"] for name, spans in systems.items() if "not_applicable" in spans}
        table = Table(title=surface, title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=0)
        table.add_column("system", no_wrap=True)
        names = [name for name in metrics.shown(search=surface == Surface.SEARCH) if name not in LEFT_OUT[surface]]
        for name in names:
            table.add_column(HEADERS[name], justify="right", no_wrap=True)
        shown = [name for name in systems if name not in absent]
        for system in sorted(shown, key=lambda name: -systems[name]["ndcg@10"]["mean"]):
            cells = [_cell(name, systems[system][name]) for name in names]
            table.add_row(system, *cells, style="bold" if system == FUSED else None)
        yield table
        yield from (f"{name}: not applicable, {reason}" for name, reason in absent.items())
        yield from _gain(surface, documents["comparisons"][surface])


def _gain(surface: str, compared: Mapping[str, Any]) -> Iterator[str]:
    if "not_applicable" in compared:
        return
    gain = compared["ndcg@10"]
    of = "queries" if surface == Surface.SEARCH else "users"
    span = f"{gain['mean_difference']:+.4f} ({gain['ci_low']:+.4f} to {gain['ci_high']:+.4f}, {gain['n']} {of})"
    yield f"{surface}: nDCG@10 of fused over {gain['best_single']}, the best member: {span}"


def _cell(name: str, span: Mapping[str, Any]) -> str:
    if "mean" not in span:
        return "–"
    return f"{span['mean']:.2f}" if name == "novelty@10" else f"{span['mean']:.4f}".removeprefix("0")
