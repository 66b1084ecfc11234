"""A shop that nobody prepared for goes through the whole pipeline by its adapter and path alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.bundle import Bundle
from pipelines.contracts import Surface
from pipelines.ranking import RankRequest
from tests.stages import pipeline, shops

Export = Callable[[Path], None]


def without_prices(shop: Path) -> None:
    shops.write_csv(shop / "catalog" / "all.csv", shops.catalogue(60, price=False))
    shops.write_csv(shop / "events" / "all.csv", shops.events(60))


def a_third_without_customers(shop: Path) -> None:
    shops.write_jsonl(shop / "catalog" / "all.jsonl", shops.catalogue(60))
    shops.write_jsonl(shop / "events" / "dt=2021" / "all.jsonl", shops.events(60, anonymous=0.33))


def eight_weeks(shop: Path) -> None:
    shops.write_csv(shop / "catalog" / "all.csv", shops.catalogue(60))
    shops.write_csv(shop / "events" / "all.csv", shops.events(60, days=56))


def views_only(shop: Path) -> None:
    shops.write_csv(shop / "catalog" / "all.csv", shops.catalogue(60))
    shops.write_csv(shop / "events" / "all.csv", shops.events(60, kind="detail-page-view"))


def other_scripts(shop: Path) -> None:
    shops.write_csv(shop / "catalog" / "all.csv", shops.catalogue(60, titles=("стул", "стол", "花瓶", "灯")))
    shops.write_csv(shop / "events" / "all.csv", shops.events(60))


LEARNING: list[Export] = [without_prices, a_third_without_customers, eight_weeks, views_only, other_scripts]


def final(artifacts: Path) -> tuple[dict[str, Any], dict[str, Any], Bundle]:
    metrics = json.loads((artifacts / "evaluation" / "metrics.json").read_text())
    verdict = json.loads((artifacts / "gate" / "verdict.json").read_text())
    return metrics, verdict, Bundle.load(artifacts / "bundle")


@pytest.mark.parametrize("export", LEARNING, ids=lambda export: export.__name__)
def test_it_is_trained_judged_and_answers(export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(tmp_path / "shop")
    pipeline.write_params(tmp_path)
    metrics, verdict, bundle = final(pipeline.run(tmp_path, monkeypatch))
    fused = metrics["recommend"]["fused"]["ndcg@10"]
    assert fused["n"] > 20
    assert fused["mean"] > metrics["recommend"]["popularity"]["ndcg@10"]["mean"]
    assert verdict["mode"] == "first"
    shown = bundle.rank(RankRequest(n=5), bundle.history(user_id="07"))
    assert len(shown.items) == 5
    assert shown.fallback is None
    assert len(shown.items[0].id) == 5


def test_only_a_catalogue_gives_similar_items_and_a_fallback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shops.write_csv(tmp_path / "shop" / "catalog" / "all.csv", shops.catalogue(30))
    pipeline.write_params(tmp_path)
    metrics, verdict, bundle = final(pipeline.run(tmp_path, monkeypatch))
    assert "not_applicable" in metrics["recommend"]
    assert verdict["verdict"] == "promote"
    assert "no_evidence" in {reason["check"] for reason in verdict["reasons"]}
    shown = bundle.rank(RankRequest(n=5), bundle.history(user_id="somebody"))
    assert len(shown.items) == 5
    assert shown.fallback == "no_members"


def test_the_same_run_again_gives_the_same_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    eight_weeks(tmp_path / "shop")
    pipeline.write_params(tmp_path)
    first = json.loads((pipeline.run(tmp_path, monkeypatch) / "bundle" / "manifest.json").read_text())
    again = json.loads((pipeline.run(tmp_path, monkeypatch) / "bundle" / "manifest.json").read_text())
    assert first == again


def test_lists_after_t2_do_not_change_what_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shops.write_csv(tmp_path / "shop" / "catalog" / "all.csv", shops.catalogue(60))
    log = shops.events(60)
    shops.write_csv(tmp_path / "shop" / "events" / "all.csv", log)
    pipeline.write_params(tmp_path)
    until_judged = pipeline.STAGES[: pipeline.STAGES.index("assemble")]
    artifacts = pipeline.run(tmp_path, monkeypatch, stages=until_judged)
    before = json.loads((artifacts / "judged" / "manifest.json").read_text())
    t2 = before["as_of"]
    changed = [row | {"item_id": "00001"} if row["event_time"] >= t2 else row for row in log]
    assert changed != log
    shops.write_csv(
        tmp_path / "shop" / "events" / "all.csv", list({(r["event_id"], r["item_id"]): r for r in changed}.values())
    )
    pipeline.run(tmp_path, monkeypatch, stages=until_judged)
    after = json.loads((artifacts / "judged" / "manifest.json").read_text())
    assert after["files"] == before["files"]


def test_a_member_taken_out_of_params_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    eight_weeks(tmp_path / "shop")
    pipeline.write_params(tmp_path)
    stages = pipeline.STAGES[: pipeline.STAGES.index("evaluate")]
    pipeline.run(tmp_path, monkeypatch, stages=stages)
    pipeline.write_params(tmp_path, models={name: {"kind": name} for name in ("popularity", "repeat", "ease")})
    artifacts = pipeline.run(tmp_path, monkeypatch, stages=stages)
    assert [path.relative_to(artifacts).parts[0] for path in artifacts.rglob("*item_knn*")] == ["code"]
    assert set(Bundle.load(artifacts / "bundle").members) == {"popularity", "repeat", "ease"}


def test_online_scores_equal_the_judged_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet as pq

    eight_weeks(tmp_path / "shop")
    pipeline.write_params(tmp_path)
    artifacts = pipeline.run(tmp_path, monkeypatch)
    judged = Bundle.load(artifacts / "judged")
    table = pq.read_table(artifacts / "evaluation" / "rankings.parquet").to_pylist()
    fused = [row for row in table if row["system"] == "fused" and row["surface"] == "recommend"]
    for user in sorted({row["history_id"] for row in fused})[:20]:
        wanted = [row for row in fused if row["history_id"] == user]
        shown = judged.rank(RankRequest(n=len(wanted)), judged.history(user_id=user)).items
        assert [item.id for item in shown] == [row["item_id"] for row in wanted]
        np.testing.assert_allclose([item.score for item in shown], [row["score"] for row in wanted], atol=1e-5)


def test_a_catalogue_with_judgments_is_judged_as_a_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = ("oak chair", "glass table", "paper lamp", "blue vase")
    shops.write_csv(tmp_path / "shop" / "catalog" / "all.csv", shops.catalogue(80, titles=kinds))
    judged = [
        {"query": f"{kind} {k}", "item_id": f"{code:05d}", "gain": 1.0 if code == k else 0.1}
        for k in range(40)
        for kind in (kinds[k % 4],)
        for code in range(k % 4, 80, 4)
    ]
    shops.write_csv(tmp_path / "shop" / "judgments" / "all.csv", judged)
    models = {name: {"kind": "bm25"} for name in ("bm25", "coverage")} | {"popularity": {"kind": "popularity"}}
    models["coverage"]["k1"] = 0  # type: ignore[assignment]
    pipeline.write_params(tmp_path, models=models)
    artifacts = pipeline.run(tmp_path, monkeypatch)
    metrics, verdict, _ = final(artifacts)
    assert metrics["recommend"] == {"not_applicable": "no member recommends"}
    assert metrics["search"]["fused"]["ndcg@10"]["n"] == 40
    assert metrics["search"]["fused"]["ndcg@10"]["mean"] > 0.9
    assert verdict["verdict"] == "promote"
    assert "not_worse_than_baseline.search" in {reason["check"] for reason in verdict["reasons"]}
    slices = json.loads((artifacts / "evaluation" / "slices.json").read_text())["search"]
    assert {"query_length", "match", "typing"} <= set(slices)
    assert "40 queries" in (artifacts / "evaluation" / "report.html").read_text()


def test_a_shop_of_nothing_but_titles_searches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = ("oak chair", "стеклянный стол", "紙のランプ", "blue vase")
    shops.write_csv(tmp_path / "shop" / "catalog" / "all.csv", shops.catalogue(200, titles=kinds, price=False))
    pipeline.write_params(tmp_path, models={"bm25": {"kind": "bm25"}, "coverage": {"kind": "bm25", "k1": 0}})
    metrics, verdict, bundle = final(pipeline.run(tmp_path, monkeypatch))
    assert metrics["search"] == {
        "not_applicable": "no query was judged, and nothing was chosen after a search in the holdout"
    }
    assert verdict["verdict"] == "promote"
    for place, query in enumerate(("chairs of oak", "стол", "ランプ", "blue vases")):
        asked = RankRequest(surface=Surface.SEARCH, query=query, n=5)
        shown = bundle.rank(asked, bundle.history())
        assert [int(item.id) % 4 for item in shown.items] == [place] * 5
        assert shown.total == 50
