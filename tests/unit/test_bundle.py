"""A bundle's lists depend on the request and the history alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines.bundle import Bundle
from pipelines.contracts import Surface
from pipelines.errors import ArtifactError
from pipelines.exploration import PROTECTED, RATE, explore
from pipelines.features.lookup import LiveEvent
from pipelines.features.state import FeatureState
from pipelines.fusion.reciprocal_rank import ReciprocalRank
from pipelines.fusion.spread import SOLD, demand, spread
from pipelines.fusion.surface import SurfaceFusion
from pipelines.manifest import MANIFEST
from pipelines.model_api import TrainingData
from pipelines.models import item_knn, popularity, repeat
from pipelines.ranking import Filter, RankRequest
from pipelines.storage import file_sha256, write_json
from tests.conformance import worlds


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    features = worlds.two_tastes(tmp_path_factory.mktemp("world"))
    data = TrainingData(features)
    members = {
        "popularity": popularity.fit(popularity.PopularityConfig(), data, seed=0),
        "repeat": repeat.fit(repeat.RepeatConfig(), data, seed=0),
        "item_knn": item_knn.fit(item_knn.ItemKnnConfig(), data, seed=0),
    }
    fusion = {s: SurfaceFusion(ReciprocalRank(60.0), 50) for s in (Surface.RECOMMEND, Surface.RECOMMEND_NEW)}
    manifest = {"id": "x", "members": {name: {"kind": name, "applicable": True} for name in members}, "surfaces": {}}
    return Bundle(manifest, features, members, fusion)


def ids(bundle: Bundle, request: RankRequest, **who: object) -> list[str]:
    return [item.id for item in bundle.rank(request, bundle.history(**who)).items]  # type: ignore[arg-type]


def test_the_same_request_gives_the_same_list(bundle: Bundle) -> None:
    assert ids(bundle, RankRequest(), user_id="u00") == ids(bundle, RankRequest(), user_id="u00")


def test_pages_follow_each_other_without_gap_or_repeat(bundle: Bundle) -> None:
    whole = ids(bundle, RankRequest(n=12), user_id="u00")
    pages = [ids(bundle, RankRequest(n=4, offset=start), user_id="u00") for start in (0, 4, 8)]
    assert [item for page in pages for item in page] == whole
    assert len(set(whole)) == 12


def test_ranks_go_on_over_pages(bundle: Bundle) -> None:
    shown = bundle.rank(RankRequest(n=3, offset=4), bundle.history(user_id="u00")).items
    assert [item.rank for item in shown] == [5, 6, 7]


def test_what_was_bought_is_left_out_where_only_new_items_count(bundle: Bundle) -> None:
    history = bundle.history(user_id="u00")
    seen = set(bundle.features.item_ids.ids(history.seen))
    assert seen.isdisjoint(ids(bundle, RankRequest(surface=Surface.RECOMMEND_NEW, n=14), user_id="u00"))


def test_an_event_posted_a_moment_ago_changes_the_list(bundle: Bundle) -> None:
    bought = LiveEvent(worlds.missing_item(0), worlds.PURCHASE, worlds.NOW)
    new = RankRequest(surface=Surface.RECOMMEND_NEW, n=14)
    assert bought.item_id in ids(bundle, new, user_id="u00")
    assert bought.item_id not in ids(bundle, new, user_id="u00", events=[bought])


def test_a_visitor_stands_in_for_a_user_without_history(bundle: Bundle) -> None:
    assert ids(bundle, RankRequest(), user_id="nobody", visitor_id="u01") == ids(bundle, RankRequest(), user_id="u01")


def test_somebody_never_met_gets_what_sells_and_is_told_so(bundle: Bundle) -> None:
    shown = bundle.rank(RankRequest(n=5), bundle.history(user_id="nobody"))
    assert len(shown.items) == 5
    assert shown.fallback == "unknown_user"


def test_recent_items_make_a_stranger_known(bundle: Bundle) -> None:
    shown = bundle.rank(RankRequest(n=5), bundle.history(visitor_id="new", recent_items=["a1"]))
    assert shown.fallback is None


def test_excluded_and_unavailable_items_never_appear(bundle: Bundle, tmp_path: Path) -> None:
    assert "a1" not in ids(bundle, RankRequest(n=14, exclude=("a1", "unknown")), user_id="u00")
    available = pa.array([item != "a2" for item in bundle.features.item_ids.ids()])
    place = bundle.features.catalog.schema.get_field_index("available")
    catalog = bundle.features.catalog.set_column(place, "available", available)
    gone = Bundle(bundle.manifest, _with_catalog(bundle, catalog), bundle.members, bundle.fusion)
    assert "a2" not in ids(gone, RankRequest(n=14), user_id="u00")
    assert "a2" in ids(gone, RankRequest(n=14, filter=Filter(available=False)), user_id="u00")


def test_a_category_includes_its_descendants_and_prices_are_inclusive(bundle: Bundle) -> None:
    paths = ["Home > Chairs|Sale" if item.startswith("a") else "Garden" for item in bundle.features.item_ids.ids()]
    place = bundle.features.catalog.schema.get_field_index("category")
    catalog = bundle.features.catalog.set_column(place, "category", pa.array(paths))
    shop = Bundle(bundle.manifest, _with_catalog(bundle, catalog), bundle.members, bundle.fusion)
    for category in ("Home", "Home > Chairs", "Sale"):
        shown = ids(shop, RankRequest(n=14, filter=Filter(category=category)), user_id="u01")
        assert sorted(shown) == [f"a{k}" for k in range(6)]
    assert ids(shop, RankRequest(filter=Filter(category="Chairs")), user_id="u01") == []
    assert len(ids(shop, RankRequest(n=14, filter=Filter(price_min=2.0, price_max=2.0)), user_id="u01")) == 14
    assert ids(shop, RankRequest(filter=Filter(price_min=2.01)), user_id="u01") == []


def test_a_spread_moves_what_sells_anyway_down_and_another_surface_stays(bundle: Bundle) -> None:
    wide = replace(bundle.fusion[Surface.RECOMMEND], spread=0.5)
    wider = Bundle(bundle.manifest, bundle.features, bundle.members, bundle.fusion | {Surface.RECOMMEND: wide})
    request, history = RankRequest(n=14), bundle.history(user_id="u00")
    before = {item.code: item.score for item in bundle.rank(request, history).items}
    codes = np.array(sorted(before))
    demanded = demand(bundle.features.items[SOLD])[codes]
    expected = dict(
        zip(codes.tolist(), spread(np.array([before[c] for c in codes], np.float32), demanded, 0.5), strict=True)
    )
    after = {item.code: item.score for item in wider.rank(request, history).items}
    assert after == pytest.approx(expected, rel=1e-5)
    assert list(after) != list(before)
    new = RankRequest(surface=Surface.RECOMMEND_NEW, n=14)
    assert ids(wider, new, user_id="u00") == ids(bundle, new, user_id="u00")


def test_similar_items_of_an_unknown_item_are_what_sells(bundle: Bundle) -> None:
    assert bundle.similar("unknown", 3).fallback == "unknown_item"
    assert {item.id[0] for item in bundle.similar("a1", 4).items} == {"a", "z"}


def test_given_items_are_scored_and_unknown_ones_are_not(bundle: Bundle) -> None:
    one, unknown, same = bundle.score_items(["a1", "unknown", "a1"], bundle.history(user_id="u01"))
    assert one == same
    assert one is not None
    assert unknown is None


def test_explained_items_name_the_members_that_know_them(bundle: Bundle) -> None:
    first = bundle.rank(RankRequest(n=1, explain=True), bundle.history(user_id="u00")).items[0]
    assert {source.model for source in first.sources} <= set(bundle.members)
    assert first.sources[0].rank >= 1


def test_a_member_that_is_gone_degrades_the_list_and_does_not_break_it(bundle: Bundle) -> None:
    without = bundle.without("item_knn")
    assert len(without.rank(RankRequest(n=10), without.history(user_id="u00")).items) == 10
    assert "item_knn" in bundle.members


def test_exploration_spares_the_first_five_and_its_propensities_are_the_frequencies() -> None:
    order = list(range(40))
    draws = [explore(order, 10, seed=seed) for seed in range(20_000)]
    assert all(shown[:PROTECTED] == order[:PROTECTED] for shown, _ in draws)
    assert all(sum(one != two for one, two in zip(shown, order, strict=False)) <= 1 for shown, _ in draws)
    changed = np.mean([shown != order[:10] for shown, _ in draws])
    assert changed == pytest.approx(RATE, abs=0.005)
    at_six = np.mean([shown[5] == 5 for shown, _ in draws])
    stated = {shown[5]: chances[5] for shown, chances in draws}
    assert stated[5] == pytest.approx(at_six, abs=0.005)
    assert stated[5] + 20 * min(stated.values()) == pytest.approx(1.0)


def test_a_missing_or_damaged_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="holds no bundle"):
        Bundle.load(tmp_path)
    (tmp_path / "part.npy").write_bytes(b"good")
    files = {"part.npy": file_sha256(tmp_path / "part.npy")}
    write_json(tmp_path / MANIFEST, {"files": files, "members": {}, "surfaces": {}})
    (tmp_path / "part.npy").write_bytes(b"damaged")
    with pytest.raises(ArtifactError, match=r"part\.npy is damaged") as caught:
        Bundle.load(tmp_path)
    assert "next:" in str(caught.value)
    (tmp_path / "part.npy").unlink()
    with pytest.raises(ArtifactError, match=r"part\.npy is missing"):
        Bundle.load(tmp_path)
    (tmp_path / MANIFEST).write_text(json.dumps({})[:-1])
    with pytest.raises(ArtifactError, match="is not JSON"):
        Bundle.load(tmp_path)


def _with_catalog(bundle: Bundle, catalog: pa.Table) -> FeatureState:

    return replace(bundle.features, catalog=catalog)
