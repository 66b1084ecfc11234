"""Damage that comes in by the API: what it may not reach, and that the service keeps its champion."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from pipelines import champion
from pipelines.actions.collect import collect
from pipelines.actions.runs.places import Run
from pipelines.actions.runs.whole import run_whole
from pipelines.replay.log import Order, midnight
from tests.e2e import november
from tests.e2e.airflow import clone
from tests.e2e.server import serving

pytestmark = [pytest.mark.exhaustive, pytest.mark.e2e, pytest.mark.timeout(5400)]

PURCHASES_OF_A_BOT = 5_000


def shuffled(orders: list[Order]) -> list[Order]:
    """The same orders at the same times by the same customers, their products drawn anew from all of them."""
    items = [item for order in orders for item, _, _ in order.products]
    drawn = iter(np.random.default_rng(7).permutation(items).tolist())
    return [order._replace(products=tuple((next(drawn), *line[1:]) for line in order.products)) for order in orders]


def bot(item: str, hour: int) -> list[dict[str, object]]:
    """One visitor who buys one product thousands of times within an hour."""
    start = midnight(november.WEEKS[0][-1]) + timedelta(hours=hour)
    return [
        {
            "event_type": "purchase-complete",
            "event_id": f"bot-{number}",
            "event_time": (start + timedelta(seconds=number % 3600)).isoformat(),
            "visitor_id": "bot",
            "product_details": [{"item_id": item, "quantity": 1, "price": 1.0}],
        }
        for number in range(PURCHASES_OF_A_BOT)
    ]


def test_honest_feedback_is_learned_from_bots_are_quarantined_and_shuffled_items_are_not_promoted(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    checkout = clone(root, tmp_path / "clone")
    log = november.lay(root, checkout, tmp_path)
    url = f"sqlite:///{checkout / 'var' / 'events' / 'events.db'}"
    monkeypatch.setenv("FUSELINE_HOME", str(checkout))

    def loop(name: str, *, collects: bool = True) -> dict[str, object]:
        if collects:
            collect(home=checkout, url=url, now=midnight(november.PERIOD.end))
        return vars(run_whole(Run(checkout, name), checkout, say=print))

    assert loop("first", collects=False)["promoted"]
    with serving(checkout, FUSELINE_REPLAY="1") as service:
        honest, later = november.WEEKS
        november.play(service, log.orders, honest)
        outcome = loop("honest")
        assert outcome["promoted"], outcome
        learned = champion.read(checkout)
        assert learned is not None

        body = bot(log.orders[honest[0]][0].products[0][0], hour=3)
        for start in range(0, len(body), 1000):
            assert service.post("/v1/events", {"events": body[start : start + 1000]})["accepted"] == 1000
        outcome = loop("bots")
        kept = Run(checkout, "bots").archived
        assert (kept / "verdict.json").exists()
        now = champion.read(checkout)
        assert now is not None
        assert now.bundle_id == learned.bundle_id, "not one number of the bundle is the bot's"

        damaged = shuffled([order for day in later for order in log.orders.get(day, ())])
        days = {day: [order for order in damaged if order.event_time.date() == day] for day in later}
        november.play(service, days, later)
        outcome = loop("shuffled")
        assert not outcome["promoted"]
        assert outcome["verdict"] in {"reject", "not_enough_evidence"}, outcome
        now = champion.read(checkout)
        assert now is not None
        assert (now.version, november.version(service)) == (learned.version, str(learned.version))
