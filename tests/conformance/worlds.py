"""Small worlds with a known answer, as feature states."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.contracts import CATALOG, INTERACTIONS, USERS
from pipelines.features import history
from pipelines.features.state import FeatureState

NOW = datetime(2020, 3, 1, tzinfo=UTC)
TEXT_DIM = 8
PURCHASE = "purchase-complete"
STRENGTHS = {PURCHASE: 1.0, "add-to-cart": 0.3, "detail-page-view": 0.1}


def row(
    user: str | None,
    item: str,
    days_ago: float,
    event: str | None = None,
    kind: str = PURCHASE,
    *,
    query: str | None = None,
) -> dict[str, object]:
    """One interaction, ``days_ago`` before :data:`NOW`."""
    time = NOW - timedelta(days=days_ago)
    return {
        "history_id": user,
        "item_id": item,
        "event_id": event or f"{user}-{item}-{days_ago}",
        "event_type": kind,
        "event_time": time,
        "strength": STRENGTHS[kind],
        "target": float(kind == PURCHASE),
        "event_share": 1.0,
        "quantity": 1.0,
        "spend": 2.0,
        "query": query,
    }


def product(item: str, **more: object) -> dict[str, object]:
    """One catalogue row, known from the beginning."""
    return {"item_id": item, "title": f"title {item}", "available": True, "price": 2.0, **more}


def write(folder: Path, rows: Sequence[dict[str, object]], products: Sequence[dict[str, object]]) -> Path:
    """The three tables that features are built from."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=INTERACTIONS.schema), folder / "interactions.parquet")
    pq.write_table(pa.Table.from_pylist(list(products), schema=CATALOG.schema), folder / "catalog.parquet")
    countries = [
        {"user_id": user, "attributes": '{"country": "%s"}' % ("Norway" if place % 2 else "Chile")}
        for place, user in enumerate(sorted({str(r["history_id"]) for r in rows if r["history_id"]}))
    ]
    pq.write_table(pa.Table.from_pylist(countries, schema=USERS.schema), folder / "users.parquet")
    return folder


def state(tables: Path, time: datetime = NOW) -> FeatureState:
    """Features of the tables as of a time."""
    return history.build(tables, time, target=PURCHASE, strengths=STRENGTHS, text=None)


def two_tastes(folder: Path, *, users: int = 40) -> FeatureState:
    """Even users buy a0…a5, odd users b0…b5, each all but one of them; everybody buys z once, long ago.

    The answer: what a user misses of the own taste comes before anything of the other.
    """
    rows = []
    for user in range(users):
        taste = "ab"[user % 2]
        missing = (user // 2) % 6
        # each buys in an order of the own, or the order would be learned instead of the taste
        order = random.Random(user).sample([k for k in range(6) if k != missing], 5)  # noqa: S311 - a world
        rows.append(row(f"u{user:02d}", "z", 80.0))
        rows += [
            row(f"u{user:02d}", f"{taste}{k}", 2.0 + 9 * place + user % 7, f"e{user}-{k}", query=f"title {taste}{k}")
            for place, k in enumerate(order)
        ]
    products = [product(f"{taste}{k}") for taste in "ab" for k in range(6)] + [product("z"), product("never-sold")]
    return state(write(folder, rows, products))


def with_text(features: FeatureState) -> FeatureState:
    """The same world with a direction of its own for each item's text."""
    vectors = np.random.default_rng(0).normal(size=(features.n_items, TEXT_DIM))
    return replace(features, text=(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16))


def missing_item(user: int) -> str:
    """The item of the own taste that a user of :func:`two_tastes` has not bought."""
    return f"{'ab'[user % 2]}{(user // 2) % 6}"
