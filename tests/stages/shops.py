"""Small shops as their owners would export them."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

START = datetime(2021, 1, 4, tzinfo=UTC)


def catalogue(
    n: int, *, titles: Sequence[str] = ("chair", "table", "lamp", "vase"), price: bool = True
) -> list[dict[str, Any]]:
    """Products with ids like ``00042``."""
    rows = []
    for k in range(n):
        row: dict[str, Any] = {"item_id": f"{k:05d}", "title": f"{titles[k % len(titles)]} {k}"}
        if price:
            row["price"] = 1 + k % 9
        rows.append(row)
    return rows


def events(
    items: int,
    *,
    users: int = 60,
    days: int = 120,
    kind: str = "purchase-complete",
    anonymous: float = 0.0,
    seed: int = 1,
) -> list[dict[str, Any]]:
    """Every user visits about weekly and keeps to a taste: a third of the catalogue, some of it again and again."""
    draw = random.Random(seed)  # noqa: S311 - a world, not a secret
    rows = []
    for user in range(users):
        own = [k for k in range(items) if k % 3 == user % 3]
        favourites = draw.sample(own, min(4, len(own)))
        day = draw.random() * 7
        while day < days:
            for item in {draw.choice(favourites), draw.choice(own), draw.choice(own)}:
                row = {
                    "event_id": f"e{user}-{day:.3f}",
                    "event_type": kind,
                    "event_time": (START + timedelta(days=day)).isoformat(),
                    "item_id": f"{item:05d}",
                }
                if draw.random() >= anonymous:
                    row["user_id"] = f"0{user}"
                rows.append(row)
            day += 4 + draw.random() * 6
    return rows


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """One JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Comma-separated, with a header of all names that occur."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows(rows)
