"""A search whose words find nothing is rescued in a fixed order, and says how; the shopper's filter is never broken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines import rescue
from pipelines.bundle import Bundle
from pipelines.contracts import Surface
from pipelines.features.state import FeatureState
from pipelines.fusion.convex import Convex
from pipelines.fusion.surface import SurfaceFusion
from pipelines.model_api import TrainingData
from pipelines.models import bm25, text
from pipelines.ranking import Filter, Ranking, RankRequest
from tests.conformance import worlds

PRODUCTS = {
    "mug": {"title": "Stoneware mug", "brand": "Kiln", "category": "Kitchen > Drinking > Mugs", "available": False},
    "cup": {"title": "Porcelain cup", "brand": "Kiln", "category": "Kitchen > Drinking > Cups", "price": 6.0},
    "glass": {"title": "Tumbler", "brand": "Vitro", "category": "Kitchen > Drinking > Glasses", "price": 4.0},
    "pan": {"title": "Frying pan", "brand": "Vitro", "category": "Kitchen > Cooking", "price": 30.0},
    "shoe": {"title": "Running shoes", "brand": "Fleet", "category": "Sport > Shoes", "price": 60.0},
    "lace": {"title": "Pair of shoelaces", "brand": "Fleet", "price": 2.0},
    "knot": {"title": "Solitaire", "brand": "Fleet", "price": 2.0, "available": False},
}
SOLD = ["shoe"] * 3 + ["pan"] * 2 + ["cup"]
MEANINGS = {"mug": (1, 0), "cup": (0.9, 0.4), "glass": (0.8, 0.6), "shoe": (0, 1), "pan": (0.7, 0.7)}


class Meaning:
    """An encoder for which everything is about walking."""

    def encode(self, plain: str) -> np.ndarray:
        return np.array([0.0, 1.0], np.float32)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> FeatureState:
    products = [worlds.product(item, **about) for item, about in PRODUCTS.items()]
    bought = [worlds.row(f"u{n}", item, 1.0 + n) for n, item in enumerate(SOLD)]
    found = worlds.state(worlds.write(tmp_path_factory.mktemp("shop"), bought, products))
    vectors = np.array([MEANINGS.get(item, (0, 0)) for item in found.item_ids.ids()], np.float16)
    words = {"stoneware": 2, "mug": 3, "running": 2, "shoes": 4, "frying": 2, "pan": 2, "kitchen": 9, "solitaire": 1}
    return replace(found, text=vectors, words=words)


def shop(features: FeatureState, *, means: bool) -> Bundle:
    data = TrainingData(features)
    members = {"bm25": bm25.fit(bm25.Bm25Config(), data, seed=0)}
    if means:
        members["text"] = text.fit(text.TextConfig(), data, seed=0)  # type: ignore[assignment]
    manifest = {"id": "x", "members": {name: {"kind": name, "applicable": True} for name in members}, "surfaces": {}}
    fusion = {Surface.SEARCH: SurfaceFusion(Convex(dict.fromkeys(members, 1.0 / len(members)), 0.5), 100)}
    return Bundle(manifest, features, members, fusion, Meaning() if means else None)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def plain(features: FeatureState) -> Bundle:
    """A shop without an encoder."""
    return shop(features, means=False)


@pytest.fixture(scope="module")
def meaning(features: FeatureState) -> Bundle:
    return shop(features, means=True)


def search(bundle: Bundle, query: str, **options: object) -> Ranking:
    asked = RankRequest(surface=Surface.SEARCH, query=query, **{"n": 100, **options})  # type: ignore[arg-type]
    return bundle.rank(asked, bundle.history())


def ids(ranking: Ranking) -> list[str]:
    return [item.id for item in ranking.items]


def test_a_search_that_finds_something_by_its_words_needs_no_rescue(plain: Bundle, meaning: Bundle) -> None:
    for bundle in (plain, meaning):
        found = search(bundle, "frying pan")
        assert (ids(found)[0], found.fallback, found.rewritten_query) == ("pan", None, None)


def test_first_the_words_are_relaxed_and_the_answer_says_to_what(plain: Bundle, meaning: Bundle) -> None:
    for bundle in (plain, meaning):
        found = search(bundle, "qqzzxx fryi")
        assert (found.fallback, found.rewritten_query) == (rescue.WORDS_RELAXED, "frying")
        assert ids(found)[0] == "pan"


def test_then_meaning_alone_answers(meaning: Bundle) -> None:
    found = search(meaning, "sneaker")
    assert (found.fallback, found.rewritten_query) == (rescue.MEANING_ONLY, None)
    assert ids(found)[0] == "shoe"


def test_then_the_nearest_category_of_what_cannot_be_had(plain: Bundle) -> None:
    found = search(plain, "stoneware mug")
    assert found.fallback == rescue.SAME_CATEGORY
    assert ids(found) == ["cup", "glass"]  # what sells first; not the pan, which is one step further
    assert found.total == 2


def test_without_a_category_the_brand_is_what_is_near(plain: Bundle) -> None:
    found = search(plain, "solitaire")
    assert (found.fallback, ids(found)) == (rescue.SAME_BRAND, ["shoe", "lace"])


def test_last_comes_what_sells(plain: Bundle) -> None:
    found = search(plain, "qqzzxx")
    assert found.fallback == rescue.WHAT_SELLS
    assert ids(found)[:3] == ["shoe", "pan", "cup"]
    assert "mug" not in ids(found)


def test_a_filter_is_kept_and_named_where_it_shuts_out_what_the_words_find(plain: Bundle, meaning: Bundle) -> None:
    wanted = Filter(brand="Vitro")
    found = search(plain, "running shoes", filter=wanted)
    assert (ids(found), found.total, found.fallback) == ([], 0, rescue.FILTER_EXCLUDES_MATCHES)
    near = search(meaning, "running shoes", filter=wanted)
    assert near.fallback == rescue.FILTER_EXCLUDES_MATCHES
    assert set(ids(near)) == {"glass", "pan"}


def test_a_filter_is_named_too_where_it_shuts_out_what_the_relaxed_words_find(plain: Bundle) -> None:
    found = search(plain, "qqzzxx fryi", filter=Filter(brand="Fleet"))
    assert (ids(found), found.fallback) == ([], rescue.FILTER_EXCLUDES_MATCHES)
    assert found.rewritten_query == "frying"


def test_a_filter_that_nothing_passes_is_named_so(plain: Bundle, meaning: Bundle) -> None:
    for bundle in (plain, meaning):
        found = search(bundle, "running shoes", filter=Filter(brand="nobody"))
        assert (ids(found), found.total, found.fallback) == ([], 0, rescue.NOTHING_PASSES_FILTER)


@pytest.mark.parametrize("query", ["qqzzxx", "stoneware mug", "solitaire", "qqzzxx fryi", "sneaker"])
def test_every_rescue_keeps_the_filter(plain: Bundle, meaning: Bundle, query: str) -> None:
    for bundle in (plain, meaning):
        assert set(ids(search(bundle, query, filter=Filter(price_max=5.0)))) <= {"glass", "lace"}


@pytest.mark.parametrize("query", ["qqzzxx", "stoneware mug", "sneaker"])
def test_pages_of_a_rescue_are_its_whole_list_cut_up(plain: Bundle, meaning: Bundle, query: str) -> None:
    for bundle in (plain, meaning):
        whole = search(bundle, query)
        pages = [search(bundle, query, n=2, offset=start) for start in range(0, len(whole.items), 2)]
        assert [item for page in pages for item in ids(page)] == ids(whole)
        assert {page.fallback for page in pages} == {whole.fallback}
        assert {page.total for page in pages} == {whole.total} == {len(whole.items)}


def test_a_shop_that_searches_by_meaning_alone_is_not_always_in_need_of_rescue(meaning: Bundle) -> None:
    assert search(meaning.without("bm25"), "sneaker").fallback is None


def test_facets_count_what_the_rescue_found(plain: Bundle) -> None:
    found = search(plain, "stoneware mug", facets=("brand",))
    assert found.facets["brand"] == [("Kiln", 1), ("Vitro", 1)]


def test_a_query_without_a_word_is_not_rescued(plain: Bundle) -> None:
    assert search(plain, "?!").fallback == "empty_query"


def test_a_rescue_is_the_same_from_a_saved_bundle(plain: Bundle, tmp_path: Path) -> None:
    member = plain.members["bm25"]
    member.save(tmp_path)
    again = Bundle(plain.manifest, plain.features, {"bm25": type(member).load(tmp_path)}, plain.fusion)
    for query in ("qqzzxx", "stoneware mug", "qqzzxx fryi"):
        assert search(again, query) == search(plain, query)


def test_the_storefront_has_words_for_every_rescue(root: Path) -> None:
    page = (root / "serving" / "page.html").read_text(encoding="utf-8")
    names = [value for name, value in vars(rescue).items() if name.isupper() and name != "CATEGORY_PATH"]
    names = [name for name in names if isinstance(name, str)]
    assert len(names) == 7
    assert not [name for name in names if f"  {name}: " not in page]
