"""Facts about the lists that the holdout was judged on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir

from expectations.runner import Check
from pipelines.adapters import frames
from pipelines.contracts import Surface

FUSED = "fused"
LENGTH = 10
"""Shorter lists than this cannot fill what the metrics look at."""


def checks(rankings: Path, *, catalog: Path, interactions: Path) -> list[Check]:
    """What to judge.

    Args:
        rankings: parquet with surface, system, history_id, rank, item_id, score.
        catalog: parquet of the catalogue that the judged bundle knew.
        interactions: parquet of the interactions before t2.
    """
    with frames.engine() as connection:
        lists = frames.read(connection, rankings)
        items = frames.read(connection, catalog)
        rows = frames.read(connection, interactions)
        everyone = _facts(lists, items)
        fused = _fused(lists.filter(lists.system == FUSED), rows)
    nothing = "nothing was ranked"
    return [
        Check("rankings", everyone or None, nothing),
        Check("rankings_fused", fused or None, "no fused list: nothing to recommend by"),
    ]


def _facts(lists: ir.Table, items: ir.Table) -> list[dict[str, Any]]:
    """One row of facts per surface and system."""
    by = ["surface", "system"]
    known = items.select("item_id").distinct().mutate(known=True)
    ordered = ibis.window(group_by=[*by, "history_id"], order_by="rank")
    table = lists.left_join(known, "item_id").select(*lists.columns, "known")
    table = table.mutate(rise=table.score - table.score.lag().over(ordered))
    one = table.group_by([*by, "history_id"]).agg(
        rows=table.count(),
        wrong_ranks=((table["rank"].min() != 1) | (table["rank"].max() != table.count())).cast("int64"),
        repeated=table.count() - table.item_id.nunique(),
        unknown=table.known.isnull().sum(),
        unscored=(table.score.isnull() | table.score.isnan() | table.score.isinf()).sum(),
        rises=(table.rise > 0).sum().fill_null(0),
    )
    facts = one.group_by(by).agg(
        **{
            "lists": one.count(),
            "lists with gaps in their ranks": one.wrong_ranks.sum(),
            "items repeated in a list": one.repeated.sum(),
            "items not in the catalogue": one.unknown.sum(),
            "scores missing or not finite": one.unscored.sum(),
            "scores that rise down the list": one.rises.sum(),
            f"share of lists shorter than {LENGTH}": (one.rows < LENGTH).cast("float64").mean(),
        }
    )
    rows: list[dict[str, Any]] = facts.order_by(by).to_pyarrow().to_pylist()
    return rows


def _fused(fused: ir.Table, interactions: ir.Table) -> list[dict[str, Any]]:
    """One row of facts per surface."""
    top = fused.filter(fused["rank"] == 1)
    tops = top.group_by(["surface", "item_id"]).agg(lists=top.count())
    common = tops.group_by("surface").agg(most=tops.lists.max(), lists=tops.lists.sum())
    bought = interactions.filter((interactions.target > 0) & interactions.history_id.notnull())
    seen = fused.filter(fused.surface == Surface.RECOMMEND_NEW).semi_join(bought, ["history_id", "item_id"]).count()
    shares: list[dict[str, Any]] = common.order_by("surface").to_pyarrow().to_pylist()
    again = seen.to_pyarrow().as_py()
    return [
        {
            "surface": row["surface"],
            "lists": row["lists"],
            "share of lists with the same first item": row["most"] / row["lists"],
            "items that the user had already": again if row["surface"] == Surface.RECOMMEND_NEW else 0,
        }
        for row in shares
    ]
