"""Ways to the best items that do not look at everything find what looking at everything finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.inner_product import HEAD, InnerProducts
from pipelines.model_api import best, first_allowed, leading


def plainly_best(scores: np.ndarray, n: int, allowed: np.ndarray) -> np.ndarray:
    """Sort everything."""
    order = np.lexsort((np.arange(len(scores)), -scores))
    return np.array([code for code in order if allowed[code] and not np.isnan(scores[code])][:n], np.int64)


@settings(max_examples=60, deadline=None)
@given(
    n_items=st.integers(1, 3000),
    n=st.integers(1, 40) | st.integers(1, 3000),
    distinct=st.integers(1, 50),
    unknown=st.sampled_from([0.0, 0.3, 0.99]),
    share_allowed=st.sampled_from([0.0, 0.05, 0.9, 1.0]),
    best_are_allowed=st.booleans(),
    seed=st.integers(0, 999),
)
def test_the_best_are_those_of_a_full_sort_with_ties_by_lower_code(
    *, n_items: int, n: int, distinct: int, unknown: float, share_allowed: float, best_are_allowed: bool, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    scores = draw.integers(0, distinct, n_items).astype(np.float32)
    scores[draw.random(n_items) < unknown] = np.nan
    allowed = draw.random(n_items) < share_allowed
    if not best_are_allowed:
        allowed &= ~(scores >= np.nanmax(np.append(scores, 0)))
    found = best(scores, n, allowed)
    np.testing.assert_array_equal(found.codes, plainly_best(scores, n, allowed))
    np.testing.assert_array_equal(found.scores, scores[found.codes])
    np.testing.assert_array_equal(np.sort(leading(scores, n, allowed)), np.sort(found.codes))
    with_zeros = np.nan_to_num(scores + 1)
    np.testing.assert_array_equal(np.sort(leading(with_zeros, n, allowed, silent=0)), np.sort(found.codes))
    np.testing.assert_array_equal(best(scores, n).codes, plainly_best(scores, n, np.ones(n_items, np.bool_)))


@pytest.mark.parametrize("share_allowed", [0.0, 0.01, 0.5, 1.0])
def test_the_head_of_an_order_is_what_masking_all_of_it_gives(share_allowed: float) -> None:
    draw = np.random.default_rng(3)
    order = draw.permutation(1000)
    allowed = draw.random(1000) < share_allowed
    for n in (1, 7, 300, 2000):
        np.testing.assert_array_equal(first_allowed(order, n, allowed), order[allowed[order]][:n])
        np.testing.assert_array_equal(first_allowed(order, n), order[:n])


@settings(max_examples=40, deadline=None)
@given(
    n_items=st.integers(1, 5000),
    d=st.sampled_from([1, 8, HEAD + 1, 64]),
    decay=st.sampled_from([0.5, 0.9, 1.0]),
    n=st.integers(1, 60),
    share_allowed=st.sampled_from([0.0, 0.01, 0.9, 1.0]),
    seed=st.integers(0, 999),
)
def test_inner_products_find_the_same_items_as_the_product_with_all_vectors(
    *, n_items: int, d: int, decay: float, n: int, share_allowed: float, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    turn = np.linalg.qr(draw.normal(size=(d, d)))[0]
    vectors = (draw.normal(size=(n_items, d)) * decay ** np.arange(d) @ turn).astype(np.float32)
    bias = draw.normal(size=n_items).astype(np.float32)
    user = draw.normal(size=d).astype(np.float32)
    allowed = draw.random(n_items) < share_allowed
    products = InnerProducts(vectors, bias)
    scores = vectors @ user + bias
    found = products.best(user, n, allowed)
    wanted = plainly_best(scores, n, allowed)
    assert allowed[found].all()
    assert len(set(found.tolist())) == len(found) == len(wanted)
    # places may change only between scores that differ by rounding
    np.testing.assert_allclose(scores[found], scores[wanted], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(products.score(user, found), scores[found], rtol=1e-5, atol=1e-4)


def test_equal_items_are_all_found_when_they_are_the_best() -> None:
    vectors = np.tile(np.random.default_rng(1).normal(size=(50, 64)).astype(np.float32), (40, 1))
    products = InnerProducts(vectors, np.zeros(len(vectors), np.float32))
    user = vectors[7]
    found = products.best(user, 40)
    assert sorted(found.tolist()) == list(range(7, 2000, 50))
