"""Results as tables: per user, per place of a list, and small ones for ``dvc plots``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.evaluation import metrics
from pipelines.evaluation.protocol import SurfaceEvaluation
from pipelines.ids import IdIndex

MEASURED = metrics.of_one(search=True)

PER_USER = pa.schema(
    [
        pa.field("surface", pa.string()),
        pa.field("system", pa.string()),
        pa.field("history_id", pa.string()),
        *(pa.field(name, pa.float64()) for name in MEASURED),
        pa.field("history_length", pa.int64()),
        pa.field("n_relevant", pa.int64()),
    ]
)
"""One row per surface, system and user; a metric is null where it is undefined."""

RANKINGS = pa.schema(
    [
        pa.field("surface", pa.string()),
        pa.field("system", pa.string()),
        pa.field("history_id", pa.string()),
        pa.field("rank", pa.int64()),
        pa.field("item_id", pa.string()),
        pa.field("score", pa.float64()),
        pa.field("fallback", pa.string()),
    ]
)
"""One row per place of a list, ``rank`` from 1 without gaps."""


def per_user(results: Mapping[str, SurfaceEvaluation]) -> pa.Table:
    """Every user's numbers, in the order surface, system, user."""
    parts = [_per_user(surface, system, result) for surface, result in results.items() for system in result.lists]
    return pa.concat_tables([PER_USER.empty_table(), *parts])


def _per_user(surface: str, system: str, result: SurfaceEvaluation) -> pa.Table:
    n = len(result.audience)
    nothing = np.full(n, np.nan)
    columns: dict[str, Any] = {
        "surface": [surface] * n,
        "system": [system] * n,
        "history_id": list(result.audience.users),
        **{name: pa.array(result.per_user[system].get(name, nothing), from_pandas=True) for name in MEASURED},
        "history_length": result.audience.history_length,
        "n_relevant": result.audience.n_relevant,
    }
    return pa.table(columns, schema=PER_USER)


def rankings(results: Mapping[str, SurfaceEvaluation], items: IdIndex) -> pa.Table:
    """Every list, in the order surface, system, user, rank."""
    ids = pa.array(items.ids(), pa.string())
    parts = [_rankings(surface, system, result, ids) for surface, result in results.items() for system in result.lists]
    return pa.concat_tables([RANKINGS.empty_table(), *parts])


def _rankings(surface: str, system: str, result: SurfaceEvaluation, ids: pa.Array) -> pa.Table:
    lists = result.lists[system]
    users, places = np.nonzero(lists.codes >= 0)
    columns: dict[str, Any] = {
        "surface": pa.repeat(surface, len(users)),
        "system": pa.repeat(system, len(users)),
        "history_id": pa.array(result.audience.users, pa.string()).take(users),
        "rank": places + 1,
        "item_id": ids.take(lists.codes[users, places]),
        "score": pa.array(lists.scores[users, places], from_pandas=True),
        "fallback": pa.array(lists.fallbacks, pa.string()).take(users),
    }
    return pa.table(columns, schema=RANKINGS)


def plots(documents: Mapping[str, Any]) -> dict[str, pa.Table]:
    """Tables for ``dvc plots`` by file name: headline metrics, differences, ledger, steps and weeks.

    Those that dvc.yaml names are there without a row too: a plot of nothing is not an error.
    """
    found = {
        "metrics": [
            {"surface": surface, "system": system, "metric": metric, **span}
            for surface, systems in _applicable(documents["metrics"])
            for system, spans in _applicable(systems)
            for metric, span in _applicable(spans)
        ],
        "differences": [
            {"surface": surface, "member": member, "metric": metric, **span}
            for surface, compared in _applicable(documents["comparisons"])
            for member, spans in compared["members"].items()
            for metric, span in spans.items()
        ],
        "ledger": [
            {"surface": surface, "member": member, **lost["ndcg@10"]}
            for surface, members in _applicable(documents["ledger"])
            for member, lost in members.items()
        ],
        "steps": [
            {"surface": s["surface"], "step": f"{s['from']} to {s['to']}", "days": s["days"], **s["overlap@10"]}
            for s in documents["stability"]["steps"]
        ],
        "weeks": [
            {"surface": w["surface"], "instant": w["instant"], "week": w["week"], "start": w["start"], **w["ndcg@10"]}
            for w in documents["stability"]["weeks"]
        ],
    }
    shown: dict[str, pa.Table] = {}
    for surface in documents["metrics"]:
        shown |= {f"ndcg_{surface}": _header("system"), f"weeks_{surface}": _header("week")}
        chosen = [row for row in found["metrics"] if (row["surface"], row["metric"]) == (surface, "ndcg@10")]
        found[f"ndcg_{surface}"] = sorted(chosen, key=lambda row: -row["mean"])
        found[f"weeks_{surface}"] = [row for row in found["weeks"] if row["surface"] == surface]
    return shown | {name: pa.Table.from_pylist(rows) for name, rows in found.items() if rows}


def _header(what: str) -> pa.Table:
    return pa.table({what: pa.array([], pa.string()), "mean": pa.array([], pa.float64())})


def _applicable(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [] if "not_applicable" in values else [(k, v) for k, v in values.items() if "not_applicable" not in v]
