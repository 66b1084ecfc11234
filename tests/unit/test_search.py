"""A query finds what is called so and what means so; pages fit together; nothing that is typed breaks it."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines import exploration, kept_orders, query_reader
from pipelines.bundle import Bundle
from pipelines.contracts import Surface
from pipelines.features.state import FeatureState, UserHistory
from pipelines.fusion.candidates import CandidateList, scaled
from pipelines.fusion.convex import Convex
from pipelines.fusion.features import FEATURES
from pipelines.fusion.query_features import blended, query_part
from pipelines.fusion.surface import SurfaceFusion
from pipelines.model_api import Context, TrainingData
from pipelines.models import bm25, text
from pipelines.query_reader import QueryReader
from pipelines.ranking import Filter, RankRequest
from pipelines.search.query import Query
from tests.conformance import worlds

PRODUCTS = {
    "mug": {"title": "Coffee mug, 12 oz", "brand": "Kiln", "category": "Kitchen > Mugs", "price": 8.0},
    "cup": {"title": "Tea cup", "brand": "Kiln", "category": "Kitchen > Cups", "price": 6.0},
    "pot": {"title": "Tea pot", "description": "Goes with every cup and mug", "category": "Kitchen", "price": 24.0},
    "shoe": {"title": "Running shoes, red", "brand": "Fleet", "category": "Sport > Shoes", "price": 60.0},
    "boot": {"title": "Hiking boots", "brand": "Fleet", "attributes": '{"colour": "red"}', "price": 90.0},
    "hidden": {"title": "Coffee mug, broken", "available": False},
}
MEANINGS = {"mug": (1, 0), "cup": (0.9, 0.4), "pot": (0.8, 0.6), "shoe": (0, 1), "boot": (0.3, 0.95)}


class Meaning:
    """An encoder that knows two things: drinking and walking."""

    def encode(self, plain: str) -> np.ndarray:
        walks = any(word in plain for word in ("shoe", "boot", "walk", "sneaker"))
        return np.array([0.0, 1.0] if walks else [1.0, 0.0], np.float32)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> FeatureState:
    products = [worlds.product(item, **about) for item, about in PRODUCTS.items()]
    found = worlds.state(worlds.write(tmp_path_factory.mktemp("shop"), [], products))
    vectors = np.array([MEANINGS.get(item, (0, 0)) for item in found.item_ids.ids()], np.float32)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return replace(found, text=unit.astype(np.float16))


@pytest.fixture(scope="module")
def bundle(features: FeatureState) -> Bundle:
    data = TrainingData(features)
    members = {
        "bm25": bm25.fit(bm25.Bm25Config(), data, seed=0),
        "text": text.fit(text.TextConfig(), data, seed=0),
    }
    manifest = {"id": "x", "members": {name: {"kind": name, "applicable": True} for name in members}, "surfaces": {}}
    fusion = {Surface.SEARCH: SurfaceFusion(Convex(dict.fromkeys(members, 0.5), 0.5), 100)}
    return Bundle(manifest, features, members, fusion, Meaning())  # type: ignore[arg-type]


def found(bundle: Bundle, query: str, **options: object) -> list[str]:
    asked = RankRequest(surface=Surface.SEARCH, query=query, **{"n": 100, **options})  # type: ignore[arg-type]
    return [item.id for item in bundle.rank(asked, bundle.history()).items]


def lexical(bundle: Bundle, query: str) -> list[str]:
    context = Context(bundle.history(), Surface.SEARCH, bundle.query(query))
    return bundle.features.item_ids.ids(bundle.members["bm25"].candidates(context, 100).codes)


def test_what_is_called_so_comes_before_what_is_described_so(bundle: Bundle) -> None:
    assert lexical(bundle, "tea cups")[0] == "cup"
    assert lexical(bundle, "mug")[:1] in (["mug"], ["hidden"])
    assert "pot" in lexical(bundle, "mug")


def test_brand_category_and_attributes_are_searched_too(bundle: Bundle) -> None:
    assert set(lexical(bundle, "fleet")) == {"shoe", "boot"}
    assert set(lexical(bundle, "sport")) == {"shoe"}
    assert set(lexical(bundle, "red")) == {"shoe", "boot"}


def test_an_item_that_shares_no_term_has_no_lexical_score(bundle: Bundle) -> None:
    context = Context(bundle.history(), Surface.SEARCH, bundle.query("zzz"))
    assert np.isnan(bundle.members["bm25"].score_all(context)).all()


def test_meaning_finds_what_no_word_does_and_the_answer_says_how_many(bundle: Bundle) -> None:
    asked = RankRequest(surface=Surface.SEARCH, query="sneaker", n=2)
    ranking = bundle.rank(asked, bundle.history())
    assert [item.id for item in ranking.items] == ["shoe", "boot"]
    assert ranking.total == 5


def test_pages_of_a_search_are_the_whole_list_cut_up_also_while_exploring(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exploration, "RATE", 1.0)
    monkeypatch.setattr(exploration, "PROTECTED", 1)
    for explore in (False, True):
        options = {"explore": explore, "seed": 5}
        pages = [found(bundle, "tea mug", n=2, offset=start, **options) for start in range(0, 6, 2)]
        flat = [item for page in pages for item in page]
        assert len(flat) == len(set(flat))
        assert sorted(flat) == sorted(found(bundle, "tea mug"))


def test_a_filter_holds_on_every_page_and_what_is_not_available_is_not_shown(bundle: Bundle) -> None:
    assert "hidden" not in found(bundle, "coffee mug")
    assert "hidden" in found(bundle, "coffee mug", filter=Filter(available=False))
    assert set(found(bundle, "tea", filter=Filter(brand="Kiln"))) == {"mug", "cup"}


def test_facets_count_all_items_found_and_not_only_those_of_the_page(bundle: Bundle) -> None:
    asked = RankRequest(surface=Surface.SEARCH, query="tea", n=1, facets=("brand", "category", "price", "available"))
    ranking = bundle.rank(asked, bundle.history())
    assert ranking.facets["brand"] == [("Fleet", 2), ("Kiln", 2)]
    assert dict(ranking.facets["category"])["Kitchen"] == 3
    assert ranking.facets["available"] == [("true", 5)]
    ranges = ranking.facets["price"]
    assert sum(count for _, count in ranges) == 5
    bounds = [tuple(map(float, name.split("-"))) for name, _ in ranges]
    assert bounds == sorted(bounds)


def test_attributes_are_filtered_and_counted_by_as_any_other_field(bundle: Bundle) -> None:
    red = Filter(attributes=(("colour", ("RED", "blue")),))
    asked = RankRequest(surface=Surface.SEARCH, query="boots", filter=red, facets=("attributes.colour", "brand"))
    ranking = bundle.rank(asked, bundle.history())
    assert [item.id for item in ranking.items] == ["boot"]
    assert ranking.facets == {"attributes.colour": [("red", 1)], "brand": [("Fleet", 1)]}
    assert bundle.catalogue.fields == ("brand", "category", "available", "price", "attributes.colour")
    assert found(bundle, "boots", filter=Filter(attributes=(("size", ("1",)),))) == []


@pytest.mark.parametrize(
    "query",
    ["", " ", "\x00", "😀", "'; DROP TABLE items;--", "<script>alert(1)</script>", "a" * 10_000, "红色", "1/2 in"],
)
def test_nothing_that_is_typed_breaks_a_search(bundle: Bundle, query: str) -> None:
    assert set(found(bundle, query)) <= set(PRODUCTS)


def test_a_query_without_a_word_and_without_a_meaning_says_so(bundle: Bundle) -> None:
    mute = Bundle(bundle.manifest, bundle.features, bundle.members, bundle.fusion)
    ranking = mute.rank(RankRequest(surface=Surface.SEARCH, query="?!"), mute.history())
    assert (ranking.items, ranking.fallback, ranking.total) == ((), "empty_query", 0)


def test_a_slip_is_corrected_and_the_answer_says_what_was_searched_for(bundle: Bundle) -> None:
    spelt = replace(bundle.features, words={"running": 2, "shoes": 2, "coffee": 2})
    careful = Bundle(bundle.manifest, spelt, bundle.members, bundle.fusion)
    ranking = careful.rank(RankRequest(surface=Surface.SEARCH, query="Runing SHOES"), careful.history())
    assert ranking.rewritten_query == "running shoes"
    assert ranking.items[0].id == "shoe"
    assert careful.rank(RankRequest(surface=Surface.SEARCH, query="running"), careful.history()).rewritten_query is None


class Counting(Meaning):
    """Notes what it encoded."""

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def encode(self, plain: str) -> np.ndarray:
        self.encoded.append(plain)
        return super().encode(plain)


def test_a_query_that_comes_again_is_not_encoded_again_until_others_have_pushed_it_out(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query_reader, "KEPT", 2)
    encoder = Counting()
    reader = QueryReader(bundle.features, bundle.catalogue, encoder)  # type: ignore[arg-type]
    first = reader.read("Tea  CUP")
    assert reader.read("tea cup") is first
    for asked in ("mug", "tea cup", "shoe", "tea cup", "mug"):
        assert reader.read(asked).text == asked
    assert encoder.encoded == ["tea cup", "mug", "shoe", "mug"]


def test_a_bundle_that_nobody_holds_is_gone_without_the_collector_which_a_service_freezes(bundle: Bundle) -> None:
    mine = replace(bundle.features)
    loaded = Bundle(bundle.manifest, mine, bundle.members, bundle.fusion, bundle.encoder)
    loaded.rank(RankRequest(surface=Surface.SEARCH, query="tea cup"), loaded.history())
    features = weakref.ref(mine)
    gc.disable()
    try:
        del mine, loaded
        assert features() is None
    finally:
        gc.enable()


def test_a_search_of_somebody_without_a_history_that_comes_again_is_answered_from_the_first_time(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = RankRequest(surface=Surface.SEARCH, query="red running shoes", n=2, facets=("brand",))
    first = bundle.rank(asked, bundle.history())
    last = bundle.rank(replace(asked, n=2, offset=1), bundle.history())
    monkeypatch.setattr(Bundle, "_find", lambda *_: pytest.fail("members were asked"))
    assert bundle.rank(asked, bundle.history()) == first
    assert bundle.rank(replace(asked, offset=1), bundle.history()) == last


@pytest.mark.parametrize(
    "otherwise",
    [
        {"filter": Filter(brand="Kiln")},
        {"exclude": ("mug",)},
        {"explain": True},
        {"query": "coffee mugs broken"},
    ],
)
def test_another_search_is_asked_anew_after_a_like_one_was_kept(bundle: Bundle, otherwise: dict[str, object]) -> None:
    asked = RankRequest(surface=Surface.SEARCH, query="coffee mug tea", n=100)
    other = replace(asked, **otherwise)  # type: ignore[arg-type]
    fresh = bundle.judging("").rank(other, bundle.history())
    kept = bundle.rank(asked, bundle.history())
    assert bundle.rank(other, bundle.history()) == fresh != kept
    assert bundle.rank(asked, bundle.history()) == kept


def test_somebody_with_a_history_is_not_given_the_order_of_others(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = RankRequest(surface=Surface.SEARCH, query="hiking boots", n=2)
    bundle.rank(asked, bundle.history())
    known = bundle.history(recent_items=["mug"])
    assert len(known)
    monkeypatch.setattr(Bundle, "_find", lambda *_: pytest.fail("asked as it should be"))
    with pytest.raises(pytest.fail.Exception, match="asked as it should be"):
        bundle.rank(asked, known)


def test_what_was_kept_with_a_member_is_forgotten_without_it(bundle: Bundle) -> None:
    before = found(bundle, "sneaker")
    assert found(bundle.without("text"), "sneaker") != before == found(bundle, "sneaker")


def test_only_the_newest_searches_are_kept(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_orders, "IN_MEMORY", 2)
    small, asked = bundle.judging(""), []
    find = Bundle._find
    monkeypatch.setattr(Bundle, "_find", lambda self, *rest: asked.append(rest[1].text) or find(self, *rest))
    for query in ("mug", "boots", "mug", "tea pot", "boots", "mug"):
        found(small, query)
    assert asked == ["mug", "boots", "tea pot", "boots", "mug"]


def test_a_corrected_query_is_not_taken_for_the_one_that_was_typed_right(bundle: Bundle) -> None:
    spelt = replace(bundle.features, words={"running": 2, "shoes": 2})
    reader = QueryReader(spelt, bundle.catalogue, Meaning())  # type: ignore[arg-type]
    for _ in range(2):
        assert reader.read("running shoes").rewritten is None
        assert reader.read("runing shoes").rewritten == "running shoes"


def test_a_member_that_fails_leaves_a_list_of_the_others(bundle: Bundle) -> None:
    assert found(bundle.without("text"), "tea cup")[0] == "cup"
    assert found(bundle.without("bm25"), "sneaker")[0] == "shoe"


def test_given_items_are_scored_for_a_query_as_the_search_scores_them(bundle: Bundle) -> None:
    ids = ["shoe", "cup", "nowhere"]
    scores = bundle.score_items(ids, bundle.history(), Surface.SEARCH, query="tea cup")
    assert scores[2] is None
    assert scores[1] > scores[0]  # type: ignore[operator]


def test_similar_items_of_a_shop_that_has_texts_alone_mean_nearly_the_same_and_are_called_so(bundle: Bundle) -> None:
    ranking = bundle.similar("mug", 2)
    assert [item.id for item in ranking.items] == ["cup", "pot"]
    assert [item.score for item in ranking.items] == pytest.approx([0.914, 0.8], abs=0.01)
    assert ranking.fallback == "text_only"
    assert bundle.similar("hidden", 2).fallback == "no_similar_items"


def test_scores_are_scaled_from_the_least_to_the_best_and_no_opinion_counts_as_the_least() -> None:
    scores = np.array([[2.0, 5.0], [4.0, 5.0], [np.nan, 5.0]], np.float32)
    np.testing.assert_allclose(scaled(scores), [[0, 1], [1, 1], [0, 1]])
    context = Context(UserHistory.empty(), Surface.SEARCH)
    one = CandidateList(np.arange(3), ("bm25", "text"), scores, context)
    np.testing.assert_allclose(blended(one), [0.5, 1, 0.5])


def test_a_member_that_scores_all_alike_and_one_that_is_silent_are_scaled_beside_others() -> None:
    nan = np.nan
    scores = np.array([[3, 2, nan], [3, nan, nan], [3, 4, nan]], np.float32)
    np.testing.assert_array_equal(scaled(scores), np.array([[1, 0, 0], [1, 0, 0], [1, 1, 0]], np.float32))
    assert scaled(np.zeros((0, 2), np.float32)).shape == (0, 2)


def test_feedback_lifts_what_is_like_the_first_results(features: FeatureState) -> None:
    shop = replace(features, text=np.tile(np.asarray(features.text), (4, 1)))  # the same items again and again
    place = features.item_ids.code
    codes = np.arange(4 * features.n_items)
    scores = np.where(np.isin(codes, [place("shoe"), place("boot")]), 9.0, 1.0).astype(np.float32)[:, None]
    context = Context(features.history(-1), Surface.SEARCH, Query("shoe", ("shoe",)))
    one = CandidateList(codes, ("bm25",), scores, context)
    part = query_part(shop, one)
    fused = Convex({"bm25": 1.0}, 0.5).score_parts(one, [part])
    assert fused[place("boot") + features.n_items] > fused[place("mug") + features.n_items]
    every = np.concatenate([np.zeros((len(codes), len(FEATURES)), np.float32), part.values], axis=1)
    np.testing.assert_array_equal(Convex({"bm25": 1.0}, 0.5).score(one, every), fused)


def test_a_handful_of_results_says_nothing_of_what_was_meant(features: FeatureState) -> None:
    codes = np.arange(features.n_items)
    context = Context(features.history(-1), Surface.SEARCH, Query("shoe", ("shoe",)))
    one = CandidateList(codes, ("bm25",), np.ones((len(codes), 1), np.float32), context)
    assert np.isnan(query_part(features, one).values).all()


def test_a_swap_keeps_every_item_and_states_the_exact_chances() -> None:
    order = list(range(exploration.REACH))
    draws = [exploration.swap_one(40, seed=seed) for seed in range(20_000)]
    assert all(sorted(shown) == order for shown, _ in draws)
    assert all(shown[: exploration.PROTECTED] == order[: exploration.PROTECTED] for shown, _ in draws)
    moved = [(shown, chances) for shown, chances in draws if shown != order]
    assert len(moved) / len(draws) == pytest.approx(exploration.RATE, rel=0.1)
    stays = np.mean([shown[7] == 7 for shown, _ in draws])
    assert draws[0][1][7] == pytest.approx(stays, abs=0.005)


def test_saved_members_search_alike(bundle: Bundle, tmp_path: Path) -> None:
    context = Context(bundle.history(), Surface.SEARCH, bundle.query("red tea mug"))
    for name, member in bundle.members.items():
        (tmp_path / name).mkdir()
        member.save(tmp_path / name)
        copy = type(member).load(tmp_path / name)
        np.testing.assert_array_equal(copy.score_all(context), member.score_all(context))
        assert {path.suffix for path in (tmp_path / name).rglob("*") if path.is_file()} <= {".npy", ".json"}
