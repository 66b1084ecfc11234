"""Shortcuts of a search give what the plain way gives, to the bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import made_bundle
from pipelines.bundle import Bundle
from pipelines.catalogue import Catalogue
from pipelines.contracts import MULTI_CATEGORY, Surface
from pipelines.features.state import FeatureState, UserHistory
from pipelines.fusion.candidates import CandidateList, scaled
from pipelines.fusion.quality import ordered
from pipelines.fusion.query_features import FEEDBACK_ITEMS, FEEDBACK_SHARE, blended, feedback_similarity
from pipelines.model_api import Context
from pipelines.ranking import RankRequest

SEARCHER = Context(UserHistory.empty(), Surface.SEARCH)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.load(made_bundle.make(tmp_path_factory.mktemp("made") / "bundle"))


@pytest.fixture(scope="module")
def features(bundle: Bundle) -> FeatureState:
    return bundle.features


@settings(max_examples=60, deadline=None)
@given(
    m=st.integers(FEEDBACK_SHARE, 300),
    without_text=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    orthogonal=st.booleans(),
    seed=st.integers(0, 999),
)
def test_feedback_is_unknown_where_there_is_no_text_and_nowhere_else(
    features: FeatureState, *, m: int, without_text: float, orthogonal: bool, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    text = np.eye(6)[draw.integers(0, 6, m)] if orthogonal else draw.normal(size=(m, 6))  # orthogonal: zero similarity
    text[draw.random(m) < without_text] = 0
    state = replace(features, text=text.astype(np.float16))
    one = CandidateList(np.arange(m), ("bm25",), draw.integers(0, 9, (m, 1)).astype(np.float32), SEARCHER)
    found = feedback_similarity(state, one)
    texts = state.text.astype(np.float32)  # type: ignore[union-attr]
    centre = texts[ordered(blended(one), one.codes)[: min(FEEDBACK_ITEMS, m // FEEDBACK_SHARE)]].mean(axis=0)
    plain = texts @ (centre / max(np.linalg.norm(centre), 1e-9)).astype(np.float32)
    plain[~texts.any(axis=1)] = np.nan
    # centre and texts are rounded: of six coordinates each is off by at most 1/254 of the largest
    np.testing.assert_allclose(found, plain if centre.any() else np.full(m, np.nan), atol=0.02 * np.abs(texts).max())


@given(m=st.integers(1, 30), bounded=st.sets(st.sampled_from("abc")), seed=st.integers(0, 999))
def test_what_a_list_keeps_scaled_is_all_that_is_not_bounded(m: int, bounded: set[str], seed: int) -> None:
    draw = np.random.default_rng(seed)
    scores = np.where(draw.random((m, 3)) < 0.2, np.nan, draw.normal(size=(m, 3))).astype(np.float32)
    one = CandidateList(np.arange(m), ("a", "b", "c"), scores, SEARCHER, frozenset(bounded))
    kept = [place for place, name in enumerate("abc") if name not in bounded]
    np.testing.assert_array_equal(one.scaled, scaled(scores[:, kept]))
    rows = np.arange(0, m, 2)
    np.testing.assert_array_equal(one.keep(rows).scaled, scaled(scores[np.ix_(rows, kept)]))


@pytest.mark.parametrize("explore", [False, True])
def test_every_item_of_a_page_has_the_score_that_it_has_in_the_whole_list(bundle: Bundle, *, explore: bool) -> None:
    asked = RankRequest(surface=Surface.SEARCH, query="thing i0001", n=100)
    score_of = {item.id: item.score for item in bundle.rank(asked, bundle.history()).items}
    assert len(score_of) > 30
    for seed in range(20):
        page = replace(asked, n=7, offset=7 * (seed % 3), explore=explore, seed=seed)
        items = bundle.rank(page, bundle.history()).items
        assert len(items) == 7
        assert all(item.score == score_of[item.id] for item in items)


@given(seed=st.integers(0, 999), share=st.sampled_from([0.0, 0.1, 1.0]))
def test_categories_are_counted_as_item_by_item(features: FeatureState, seed: int, share: float) -> None:
    codes = np.flatnonzero(np.random.default_rng(seed).random(features.n_items) < share)
    assert any(MULTI_CATEGORY in (path or "") for path in features.catalog["category"].to_pylist())
    counts: dict[str, int] = {}
    for row in features.catalog.take(codes).to_pylist():
        own = set()
        for path in (row["category"] or "").split(MULTI_CATEGORY):
            parts = path.split(" > ")
            own |= {" > ".join(parts[:depth]) for depth in range(1, len(parts) + 1)} - {""}
        counts |= {name: counts.get(name, 0) + 1 for name in own}
    plain = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    assert Catalogue(features).facets(codes, ["category"])["category"] == plain
