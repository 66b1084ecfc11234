"""The shipped log, cut where a period begins: an export from before it, and the real customers of its days."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import yaml

from pipelines import params as parameters
from pipelines.ingestion.canonical import ingest, snapshot
from pipelines.replay.log import Log, Order, Period, midnight, write_export
from pipelines.replay.shop import Shop, Shown
from tests.e2e.server import Server

NOVEMBER = Period(date(2010, 11, 3), date(2010, 11, 17))


def weeks(period: Period) -> list[list[date]]:
    """Its days, seven by seven."""
    days = [*period.days()]
    return [days[start : start + 7] for start in range(0, len(days), 7)]


def lay(root: Path, checkout: Path, aside: Path, period: Period) -> Log:
    """Give a clone the export of the morning on which a period begins; the log of the period.

    The working directory must be ``root``, below which the shipped export lies.
    """
    data = parameters.load(root / "params.yaml").data
    ingest.ingest(snapshot.take(data, home=aside, root=root), data, home=aside, artifacts=aside / "log")
    write_export(aside / "log" / "canonical", checkout / "shop", start=period.start)
    values = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    values["data"] |= {"adapter": "shop", "path": "shop", "as_of": None}
    (checkout / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return Log.read(aside / "log" / "canonical", period, target="purchase-complete")


def play(service: Server, orders: Mapping[date, Sequence[Order]], days: Sequence[date]) -> int:
    """Days of customers: each asks for a list at midnight and later buys; how many orders counted."""
    shop, counted = Shop(f"http://127.0.0.1:{service.port}"), 0
    for day in days:
        shown: dict[str, Shown] = {}
        for order in orders.get(day, ()):
            if order.history_id is not None and order.history_id not in shown:
                shown[order.history_id] = shop.ask(order, new_only=False, n=10, at=midnight(day))
        counted += shop.tell(orders.get(day, ()), "purchase-complete", shown)
    return counted


def version(service: Server, period: Period) -> str | None:
    """What the service answers with; None while it has no bundle.

    Asked at the period's first instant: a list shown by the wall clock would be the newest of what is collected.
    """
    asked = {"explore": False, "event_time": midnight(period.start).isoformat()}
    status, answer, _ = service.ask("POST", "/v1/recommend", asked)
    return str(answer["model_version"]) if status == 200 else None
