"""Damage that comes in by the API: what it may not reach, and that the service keeps its champion."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from pipelines import champion
from pipelines.actions.collect import collect
from pipelines.actions.runs.ending import Outcome
from pipelines.actions.runs.places import Run
from pipelines.actions.runs.whole import run_whole
from pipelines.champion import Pointer
from pipelines.replay.log import Order, midnight
from pipelines.storage import read_json
from tests.e2e import real_days
from tests.e2e.airflow import clone
from tests.e2e.server import Server, serving

pytestmark = [pytest.mark.exhaustive, pytest.mark.e2e, pytest.mark.timeout(5400)]

PURCHASES_OF_A_BOT = 5_000


def shuffled(orders: list[Order]) -> list[Order]:
    """The same orders at the same times by the same customers, their products drawn anew from all of them."""
    items = [item for order in orders for item, _, _ in order.products]
    drawn = iter(np.random.default_rng(7).permutation(items).tolist())
    return [order._replace(products=tuple((next(drawn), *line[1:]) for line in order.products)) for order in orders]


def bot(item: str, hour: int) -> list[dict[str, object]]:
    """One visitor who buys one product thousands of times within an hour."""
    start = midnight(real_days.weeks(real_days.NOVEMBER)[0][-1]) + timedelta(hours=hour)
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


@dataclass(frozen=True)
class Loop:
    """Collection and training in a checkout, as the DAGs do both."""

    checkout: Path

    def turn(self, name: str) -> Outcome:
        """Collect all there is, then run under a name."""
        url = f"sqlite:///{self.checkout / 'var' / 'events' / 'events.db'}"
        collect(home=self.checkout, url=url, now=midnight(real_days.NOVEMBER.end))
        return run_whole(Run(self.checkout, name), self.checkout, say=print)

    def failed(self, name: str) -> set[str]:
        """Checks that did not pass in that run."""
        verdict = read_json(Run(self.checkout, name).archived / "verdict.json")
        print(name, verdict["verdict"], [one for one in verdict["reasons"] if not one["passed"]])
        return {one["check"] for one in verdict["reasons"] if not one["passed"]}

    @property
    def serves(self) -> Pointer:
        """The champion."""
        now = champion.read(self.checkout)
        assert now is not None
        return now


def content(pointer: Pointer) -> dict[str, str]:
    """Hashes of all files of a bundle; its id also says through which event it was collected."""
    return dict(read_json(pointer.bundle / "manifest.json")["files"])


def post_bot(service: Server, item: str) -> None:
    body = bot(item, hour=3)
    for start in range(0, len(body), 1000):
        assert service.post("/v1/events", {"events": body[start : start + 1000]})["accepted"] == 1000


def test_honest_feedback_is_learned_from_bots_are_quarantined_and_shuffled_items_are_not_promoted(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    checkout = clone(root, tmp_path / "clone")
    log = real_days.lay(root, checkout, tmp_path, real_days.NOVEMBER)
    monkeypatch.setenv("FUSELINE_HOME", str(checkout))
    loop, (honest, later) = Loop(checkout), real_days.weeks(real_days.NOVEMBER)
    assert loop.turn("first").promoted
    with serving(checkout, FUSELINE_REPLAY="1") as service:
        real_days.play(service, log.orders, honest)
        outcome = loop.turn("honest")
        assert outcome.promoted, outcome
        learned = loop.serves

        post_bot(service, log.orders[honest[0]][0].products[0][0])
        outcome = loop.turn("bots")
        assert outcome.promoted, outcome
        kept = loop.serves
        assert content(kept) == content(learned), "not one number of the bundle is the bot's"

        damaged = shuffled([order for day in later for order in log.orders.get(day, ())])
        days = {day: [order for order in damaged if order.event_time.date() == day] for day in later}
        real_days.play(service, days, later)
        outcome = loop.turn("after t2")
        assert not outcome.promoted, outcome
        assert "newest_week.recommend" in loop.failed("after t2")
        assert (loop.serves, real_days.version(service, real_days.NOVEMBER)) == (kept, str(kept.version))
