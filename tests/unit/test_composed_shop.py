"""The composed catalogue: real words, natural statistics, any size."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks import composed_shop
from pipelines.search.analysis import Analyzer
from pipelines.search.spelling import words_of

SOURCE = composed_shop.real_products()


def words(products: list[dict[str, object]]) -> set[str]:
    return {word for one in products for name in ("title", "description") for word in words_of(str(one[name] or ""))}


def test_a_smaller_catalogue_is_a_part_of_the_real_one() -> None:
    known = {one["item_id"] for one in SOURCE}
    few = composed_shop.products(SOURCE, 50, seed=1)
    assert len({one["item_id"] for one in few}) == 50
    assert {one["item_id"] for one in few} <= known


def test_a_larger_one_begins_with_the_real_one_and_composes_the_rest_of_real_words() -> None:
    some = SOURCE[:300]
    many = composed_shop.products(some, 1000, seed=1)
    assert many[:300] == some
    assert len({one["item_id"] for one in many}) == len({one["title"] for one in many[300:]}) + 300 == 1000
    invented = {word for number in many[300:] for word in words_of(str(number["title"]).split()[-1])}
    assert words(many) - words(some) <= invented
    assert composed_shop.products(some, 1000, seed=1) == many
    assert composed_shop.products(some, 1000, seed=2) != many


def test_every_real_product_is_used_equally_often() -> None:
    some = SOURCE[:100]
    begins = Counter(one["brand"] for one in composed_shop.products(some, 400, seed=1))
    assert begins == Counter({brand: 4 * n for brand, n in Counter(one["brand"] for one in some).items()})


def test_lengths_and_frequencies_of_terms_stay_those_of_the_source() -> None:
    terms, some = Analyzer("english").terms, SOURCE[::7]
    source, composed = (
        composed_shop.statistics([terms(f"{one['title']} {one['description'] or ''}") for one in products])
        for products in (some, composed_shop.products(some, 4 * len(some), seed=1)[len(some) :])
    )
    assert composed["terms_a_text_mean"] == pytest.approx(source["terms_a_text_mean"], rel=0.05)
    assert composed["terms_a_text_p95"] == pytest.approx(source["terms_a_text_p95"], rel=0.1)
    assert composed["zipf_exponent"] == pytest.approx(source["zipf_exponent"], rel=0.05)
    name = "share_of_texts_with_the_100th_term"
    assert source[name] <= composed[name] <= 1.2 * source[name]


def test_statistics_by_hand() -> None:
    # the term of rank r is in 20,000 / r of 20,000 texts: exponent 1; the 100th in one of a hundred
    texts: list[list[str]] = [[] for _ in range(20_000)]
    for rank in range(1, 1201):
        for text in texts[: 20_000 // rank]:
            text.append(str(rank))
    found = composed_shop.statistics(texts)
    assert (found["texts"], found["distinct_terms"]) == (20_000, 1200)
    assert found["terms_a_text_mean"] == pytest.approx(sum(1 / rank for rank in range(1, 1201)), rel=0.01)
    assert found["share_of_texts_with_the_100th_term"] == 0.01
    assert found["zipf_exponent"] == pytest.approx(1, abs=0.01)


def test_queries_are_distinct_the_judged_ones_first_and_pieces_of_titles_after_them() -> None:
    judged, titles = ["red mug", "mug"], [str(one["title"]) for one in SOURCE]
    found = composed_shop.queries(judged, titles, 500, seed=1, misspelt_share=0)
    assert found[:2] == judged
    assert len(set(found)) == 500
    assert all(any(query in title.lower() for title in titles) for query in found[2:50])
    assert max(len(query.split()) for query in found) <= 2


def test_a_given_share_of_the_pieces_has_a_typing_error() -> None:
    title = "ceramic kitchen handles"
    right, wrong = (composed_shop.queries(["two words"], [title], 5, seed=1, misspelt_share=share) for share in (0, 1))
    assert all(query in title for query in right[1:])
    assert not any(query in title for query in wrong[1:])


def test_a_mix_has_the_frequencies_of_its_exponent() -> None:
    drawn = Counter(composed_shop.mixed([str(rank) for rank in range(1, 101)], 200_000, seed=1, exponent=1.0))
    assert drawn["1"] / drawn["10"] == pytest.approx(10, rel=0.1)
    assert drawn["2"] / drawn["20"] == pytest.approx(10, rel=0.1)
