"""What a shortlist has to do with its query, on a shop small enough to count by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipelines.features.state import FeatureState, UserHistory
from pipelines.fusion.candidates import CandidateList
from pipelines.fusion.query_features import OF_SHORTLIST, QUERY_FEATURES, described, query_part
from pipelines.model_api import Context
from pipelines.search.query import Query
from tests.conformance import worlds

PRODUCTS = {
    "a": {"title": "Blue Tea Cup", "brand": "Kiln", "category": "Kitchen > Cups", "price": 10.0},
    "b": {"title": "Tea pot, blue", "brand": "Fleet", "category": "Kitchen > Pots | Gifts", "price": 40.0},
    "c": {"title": "Running shoes", "category": None, "price": None},
}
CODES = np.arange(3)
FIRST = np.array([2.0, 1.0, 0.0], np.float32)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> FeatureState:
    products = [worlds.product(item, **about) for item, about in PRODUCTS.items()]
    found = worlds.state(worlds.write(tmp_path_factory.mktemp("shop"), [], products))
    return replace(found, words={"blue": 2, "tea": 2})


def columns(features: FeatureState, text: str, **named: tuple[str, ...]) -> dict[str, list[float]]:
    found = described(features, CODES, Query(text, tuple(text.split()), **named), FIRST)
    assert tuple(found) == OF_SHORTLIST
    return {name: np.broadcast_to(values, 3).tolist() for name, values in found.items()}


def test_matched_fields_count_the_typed_words_of_the_title_and_the_names_of_the_catalogue(
    features: FeatureState,
) -> None:
    found = columns(features, "blue tea", brands=("Kiln",), categories=("Kitchen > Pots",))
    assert found["words_in_title"] == [1.0, 1.0, 0.0]
    assert found["phrase_in_title"] == [1.0, 0.0, 0.0]
    assert found["brand_named"] == [1.0, 0.0, 0.0]
    assert found["category_named"] == [0.0, 1.0, 0.0]


def test_what_is_not_named_says_nothing(features: FeatureState) -> None:
    found = columns(features, "blue tea")
    assert np.isnan(found["brand_named"]).all()
    assert np.isnan(found["category_named"]).all()


def test_the_first_results_say_which_category_and_price_is_meant(features: FeatureState) -> None:
    found = columns(features, "tea")
    np.testing.assert_allclose(found["category_share"], [1 / 3, 1 / 3, np.nan])
    half = np.log(40 / 10) / 2  # the median of two prices lies in the middle of their logarithms
    np.testing.assert_allclose(found["price_of_first"], [-half, half, np.nan], rtol=1e-5)


def test_a_query_has_a_length_and_rare_words(features: FeatureState) -> None:
    found = columns(features, "blue dragon")
    assert found["query_words"] == [2.0, 2.0, 2.0]
    rarity = (np.log(4 / 3) + np.log(4 / 1)) / 2
    np.testing.assert_allclose(found["query_rarity"], rarity)


def test_before_there_is_a_shortlist_only_the_feedback_is_known(features: FeatureState) -> None:
    context = Context(UserHistory.empty(), "search", Query("tea", ("tea",)))
    found = CandidateList(CODES, ("one",), FIRST[:, None], context)
    part = query_part(features, found).values
    assert part.shape == (3, len(QUERY_FEATURES))
    assert np.isnan(part).all()  # without text vectors there is no feedback either
    assert not np.isnan(query_part(features, found, FIRST).values[:, 0]).any()


def test_an_empty_shortlist_has_no_rows(features: FeatureState) -> None:
    context = Context(UserHistory.empty(), "search", Query("tea", ("tea",)))
    nothing = CandidateList(CODES[:0], ("one",), FIRST[:0, None], context)
    assert query_part(features, nothing, FIRST[:0]).values.shape == (0, len(QUERY_FEATURES))
