"""What people choose after a search, told to the service, comes up for that search after the next run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines import feedback, prepared
from pipelines.actions.collect import collect
from pipelines.bundle import Bundle
from pipelines.contracts import Surface
from pipelines.models.click_graph import ClickGraphConfig
from pipelines.ranking import RankRequest
from tests.e2e.server import Server, serving
from tests.stages import pipeline, shops

pytestmark = [pytest.mark.e2e]

QUERY, CHOSEN, SPAMMED = "oak chair", "00020", "00024"
KINDS = ("oak chair", "glass table", "paper lamp", "blue vase")
MODELS = {"bm25": {"kind": "bm25"}, "clicks": {"kind": "click_graph"}, "popularity": {"kind": "popularity"}}
PEOPLE = 20


def scores(bundle: Bundle) -> dict[str, float]:
    asked = RankRequest(surface=Surface.SEARCH, query=QUERY, n=100)
    return {item.id: item.score for item in bundle.rank(asked, bundle.history()).items}


def look(visitor: str, item: str) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat()
    about = {"visitor_id": visitor, "item_id": item, "search_query": QUERY}
    return {"event_type": "detail-page-view", "event_time": now, **about}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shops.write_csv(tmp_path / "shop" / "catalog" / "all.csv", shops.catalogue(40, titles=KINDS))
    pipeline.write_params(tmp_path, models=MODELS)
    pipeline.run(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture
def server(shop: Path) -> Iterator[Server]:
    with serving(shop, FUSELINE_BUNDLE=str(shop / "artifacts" / "bundle")) as started:
        yield started


def test_choices_of_many_lift_an_item_and_those_of_one_no_further_than_the_bound(
    shop: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (shop / "artifacts" / "bundle" / prepared.FOLDER / prepared.SUGGESTIONS).is_dir()
    before = scores(Bundle.load(shop / "artifacts" / "bundle"))
    shown = [item["id"] for item in server.post("/v1/search", {"query": QUERY, "n": 40, "explore": False})["items"]]
    assert shown.index(CHOSEN) > 2
    told = [look(f"v{n}", CHOSEN) for n in range(PEOPLE)] + [look("spammer", SPAMMED) for _ in range(300)]
    assert server.post("/v1/events", told)["accepted"] == len(told)
    collect(home=shop, url=feedback.events_url(shop, {}), now=datetime.now(UTC) + timedelta(hours=2))

    pipeline.run(shop, monkeypatch)
    bundle = Bundle.load(shop / "artifacts" / "bundle")
    after = scores(bundle)
    assert max(after, key=lambda item: after[item]) == CHOSEN
    alike = [item for item in before if item not in {CHOSEN, SPAMMED}]
    others = max(after[item] - before[item] for item in alike)
    bound = 1 / (ClickGraphConfig().prior + 1)
    assert after[CHOSEN] - before[CHOSEN] > bound
    assert 0 < after[SPAMMED] - before[SPAMMED] - others <= bound
