"""Labelled queries: how they are read and split, what finding an item is worth, and who may judge whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.contracts import JUDGMENTS, SEARCHES, Surface
from pipelines.evaluation import metrics, protocol, targets
from pipelines.fusion import learning
from pipelines.fusion.best_single import BestSingle
from pipelines.fusion.candidates import CandidateList
from pipelines.fusion.features import FEATURES
from pipelines.fusion.fuser import JUDGMENTS as JUDGED_LISTS
from pipelines.fusion.fuser import LabelledList
from pipelines.fusion.query_features import FIRST_SCORE, QUERY_FEATURES
from pipelines.fusion.shortlist import one_after_the_other, shortlist
from pipelines.fusion.surface import SurfaceFusion
from pipelines.params import FusionParams
from pipelines.search import labels
from pipelines.search.labels import LabelledQuery, drawn, fold_of, merged, read_judgments, read_searches
from tests.unit.test_evaluation_protocol import bundle as recommending
from tests.unit.test_evaluation_protocol import features

MEMBERS = ("one", "other")
QUICK = {"epochs": 4, "hidden": 8, "ensemble": 2}


def lists(n: int, seed: int, *, both: float) -> list[LabelledList]:
    """What is right needs member ``one``, and ``other`` as far as ``both`` says; the shortlist's order is ``one``."""
    draw = np.random.default_rng(seed)
    made = []
    for place in range(n):
        scores = draw.normal(size=(30, 2)).astype(np.float32)
        worth = scores[:, 0] + both * scores[:, 1]
        gains = np.where(worth >= np.sort(worth)[-3], 1.0, 0.0).astype(np.float32)
        columns = np.zeros((30, len(FEATURES) + len(QUERY_FEATURES)), np.float32)
        columns[:, FIRST_SCORE] = scores[:, 0]
        context = recommending().history(), "search"
        found = CandidateList(np.arange(30), MEMBERS, scores, protocol.Context(*context))
        made.append(LabelledList(found, columns, gains, np.ones(3, np.float32), JUDGED_LISTS, f"query {place}"))
    return made


def test_all_ways_to_type_a_query_fall_into_the_same_part() -> None:
    assert fold_of("Red  Shoes") == fold_of("red shoes") == fold_of("RED\u00a0shoes")
    assert {fold_of(f"query {n}") for n in range(200)} == set(range(labels.FOLDS))


def test_rows_of_a_query_are_merged_whatever_way_it_was_typed() -> None:
    found = merged([("Red Shoes", "a", 0.1, 3.0), ("red  shoes", "a", 1.0, 5.0), ("red shoes", "b", 0.0, None)])
    assert found == [LabelledQuery("Red Shoes", {"a": 1.0, "b": 0.0}, {"a": 3.0})]


def test_a_query_that_nothing_is_right_for_says_nothing() -> None:
    assert merged([("red shoes", "a", 0.0, None), (" ", "a", 1.0, None)]) == []


def test_judgments_and_searches_are_read_as_labelled_queries(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"query": "tea", "item_id": "a", "gain": 1.0}]
    pq.write_table(pa.Table.from_pylist(rows, schema=JUDGMENTS.schema), tmp_path / "judgments.parquet")
    assert read_judgments(tmp_path / "judgments.parquet") == [LabelledQuery("tea", {"a": 1.0}, {})]
    start = datetime(2020, 1, 1, tzinfo=UTC)
    chosen = [
        {"instant": name, "query": "tea", "item_id": "a", "gain": 0.3, "first_time": datetime(2020, 1, 3, tzinfo=UTC)}
        for name in ("window_1", "window_2")
    ]
    pq.write_table(pa.Table.from_pylist(chosen, schema=SEARCHES.schema), tmp_path / "searches.parquet")
    found = read_searches(tmp_path / "searches.parquet", "window_1", start=start.timestamp())
    assert found == [LabelledQuery("tea", {"a": 0.3}, {"a": 2.0})]


def test_a_draw_of_queries_is_the_same_at_every_run_and_grows_with_its_size() -> None:
    every = [LabelledQuery(f"query {n}", {"a": 1.0}, {}) for n in range(50)]
    few, more = drawn(every, 10), drawn(every, 20)
    assert len(few) == 10
    assert {one.query for one in few} < {one.query for one in more}
    assert drawn(every[::-1], 10)[::-1] == few


def asked(*queries: LabelledQuery) -> targets.Audience:
    return targets.queries(features(), queries)


def test_a_search_is_worth_the_gains_of_what_it_shows_over_the_best_possible() -> None:
    audience = asked(LabelledQuery("tea", {"a": 1.0, "b": 0.1, "gone": 1.0, "c": 0.0}, {}))
    codes = np.array([[1, 2, 0] + [-1] * 97])
    found = protocol.scored(codes, audience, 6)
    # b at place 1, a at place 3; the ideal is 1, 1, .1: (.1 + 1 / 2) / (1 + .6309 + .05)
    np.testing.assert_allclose(found["ndcg@10"], [0.6 / 1.68093], rtol=1e-4)
    np.testing.assert_allclose(found["recall@100"], [0.5])  # right are a and the one that is gone
    np.testing.assert_allclose(found["mrr@10"], [1 / 3])


@given(st.lists(st.integers(-1, 5), min_size=1, max_size=8, unique=True), st.permutations(range(6)))
def test_gains_are_those_of_the_items_shown(shown: list[int], worth: Sequence[int]) -> None:
    relevant = [np.arange(6), np.array([2, -1])]
    gains = [np.array(worth, np.float64), np.array([9.0, 7.0])]
    found = metrics.gain_matrix(np.array([shown, shown]), relevant, gains, 6)
    assert found[0].tolist() == [float(worth[code]) if code >= 0 else 0.0 for code in shown]
    assert found[1].tolist() == [9.0 if code == 2 else 0.0 for code in shown]


def test_a_few_labelled_queries_leave_a_search_as_it_is_without_labels() -> None:
    few = lists(learning.FEWEST_QUERIES - 1, 1, both=1.0)
    assert learning.choose_search(FusionParams(), few, MEMBERS, seed=1).method == "convex"
    assert learning.choose_by_fold(FusionParams(), few, MEMBERS, seed=1) == {}


def test_a_search_leaves_its_unlearned_fusion_only_for_a_proven_gain() -> None:
    params = FusionParams(stacking=QUICK)
    better = learning.choose_search(params, lists(90, 2, both=1.0), MEMBERS, seed=1)
    assert better.method in {"weighted", "stacking", "reciprocal_rank"}
    assert better.trials[better.method]["gain"]["ci_low"] > 0
    assert learning.choose_search(params, lists(90, 3, both=0.0), MEMBERS, seed=1).method == "convex"


def test_no_part_of_the_queries_is_judged_by_what_learned_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    known = lists(60, 4, both=1.0)
    taught: list[set[str]] = []

    def spy(params: FusionParams, some: Sequence[LabelledList], members: Sequence[str], *, seed: int) -> str:
        del params, members, seed
        taught.append({one.query for one in some})
        return "choice"

    monkeypatch.setattr(learning, "choose_search", spy)
    parts = learning.choose_by_fold(FusionParams(), known, MEMBERS, seed=1)
    assert sorted(parts) == list(range(labels.FOLDS))
    for fold, queries in enumerate(taught):
        assert queries == {one.query for one in known if fold_of(one.query) != fold}


def test_a_bundle_judges_a_query_with_the_fusion_that_was_not_taught_on_it() -> None:
    plain = recommending()
    parts = {fold: SurfaceFusion(BestSingle(f"part {fold}"), 6) for fold in range(labels.FOLDS)}
    whole = SurfaceFusion(BestSingle("whole"), 6, folds=parts)
    plain.fusion = {Surface.SEARCH: whole}
    for query in ("tea", "red shoes", "12 oz mug"):
        fuser = plain.judging(query).fusion[Surface.SEARCH].fuser
        assert isinstance(fuser, BestSingle)
        assert fuser.member == f"part {fold_of(query)}"
    assert plain.fusion[Surface.SEARCH] is whole
    plain.fusion = {Surface.SEARCH: replace(whole, folds={})}
    assert plain.judging("tea").fusion[Surface.SEARCH].fuser is whole.fuser


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60), st.integers(1, 20), st.randoms())
def test_what_is_not_shortlisted_stays_below_in_its_order(values: list[int], most: int, draw: Any) -> None:
    first = np.array(values, np.float32)
    codes = np.arange(len(first))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.fusion.shortlist.SHORTLISTED", most)
        rows = shortlist(first, codes)
    then = np.array([draw.random() for _ in rows], np.float32)
    scores = one_after_the_other(then, first, rows)
    rest = np.setdiff1d(codes, rows)
    assert len(rows) == min(most, len(first))
    np.testing.assert_array_equal(scores[rows], then)
    if len(rest):
        assert first[rest].max() <= first[rows].min()
        assert scores[rest].max() < then.min()
        np.testing.assert_array_equal(np.argsort(-scores[rest], kind="stable"), np.argsort(-first[rest], kind="stable"))
