"""What people chose after a search comes up for it, and what is like it; nobody alone decides what does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.bundle import Bundle
from pipelines.chosen import ChosenConfig
from pipelines.contracts import Surface
from pipelines.features.state import FeatureState, UserHistory
from pipelines.fusion.candidates import CandidateList, gather
from pipelines.fusion.convex import Convex
from pipelines.fusion.query_features import query_part
from pipelines.fusion.surface import SurfaceFusion
from pipelines.model_api import Context, FittedModel, Need, TrainingData, available
from pipelines.models import bm25, category_prior, click_graph, demand_prior
from pipelines.models.category_prior import CategoryPrior
from pipelines.models.click_graph import ClickGraph, ClickGraphConfig
from pipelines.models.demand_prior import DemandPrior, DemandPriorConfig
from pipelines.search.analysis import Analyzer
from pipelines.search.query import Query
from tests.conformance import worlds

VIEW = "detail-page-view"
ITEMS = ("cup", "mug", "pot")
CATEGORY = {"cup": "Kitchen > Drinking | Gifts", "mug": "Kitchen > Drinking", "pot": None}
PRIOR = 5.0
NOW = 1e-6
"""Days ago: before the instant by a tenth of a second."""


def state(folder: Path, rows: Sequence[dict[str, object]]) -> FeatureState:
    products = [worlds.product(item, title=f"tea {item}", category=CATEGORY[item]) for item in ITEMS]
    return worlds.state(worlds.write(folder, rows, products))


def prior(features: FeatureState) -> CategoryPrior:
    return category_prior.fit(ChosenConfig(prior=PRIOR, likeness=0.6), TrainingData(features), seed=0)


def graph(features: FeatureState) -> ClickGraph:
    return click_graph.fit(ClickGraphConfig(prior=PRIOR), TrainingData(features), seed=0)


def demand(features: FeatureState) -> DemandPrior:
    return demand_prior.fit(DemandPriorConfig(prior=PRIOR, likeness=0.6), TrainingData(features), seed=0)


def scores(model: FittedModel, text: str) -> dict[str, float]:
    query = Query(text, tuple(dict.fromkeys(Analyzer("english").terms(text))))
    found = model.score_all(Context(UserHistory.empty(), "search", query))
    return {item: float(found[place]) for place, item in enumerate(ITEMS)}


def test_the_score_is_the_share_of_people_who_chose_it_with_a_prior(tmp_path: Path) -> None:
    rows = [worlds.row(f"u{n}", "mug", NOW, query="Tea Cups") for n in range(3)]
    rows.append(worlds.row("u9", "pot", NOW, query="tea cup"))
    found = scores(graph(state(tmp_path, rows)), "tea cup")
    assert found["mug"] == pytest.approx(3 / (PRIOR + 4), rel=1e-4)
    assert found["pot"] == pytest.approx(1 / (PRIOR + 4), rel=1e-4)
    assert np.isnan(found["cup"])


def test_a_look_says_less_than_a_purchase_and_an_old_choice_less_than_a_new_one(tmp_path: Path) -> None:
    rows = [
        worlds.row("u1", "cup", NOW, query="tea"),
        worlds.row("u2", "mug", NOW, kind=VIEW, query="tea"),
        worlds.row("u3", "pot", 90.0, query="tea"),
    ]
    found = scores(graph(state(tmp_path, rows)), "tea")
    assert found["mug"] / found["cup"] == pytest.approx(0.1**0.5, rel=1e-4)
    assert found["pot"] / found["cup"] == pytest.approx(np.exp(-1), rel=1e-4)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    others=st.lists(st.tuples(st.integers(0, 5), st.sampled_from(ITEMS)), max_size=12),
    spam=st.lists(
        st.tuples(
            st.sampled_from(("tea cup", "Tea cups", "tea cup blue", "blue tea cup", "tea")), st.sampled_from(ITEMS)
        ),
        min_size=1,
        max_size=20,
    ),
)
def test_no_visitor_moves_any_item_by_more_than_the_bound(
    others: list[tuple[int, str]], spam: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    honest = [worlds.row(f"u{user}", item, n / 9, f"o{n}", query="tea cup") for n, (user, item) in enumerate(others)]
    spammed = [worlds.row("spammer", item, NOW, f"s{n}", query=query) for n, (query, item) in enumerate(spam)]
    folder = tmp_path_factory.mktemp("graph")
    without, moved = state(folder / "without", honest), state(folder / "with", [*honest, *spammed])
    for fit, bound in ((graph, 1 / (PRIOR + 1)), (prior, 1 / (PRIOR + 1)), (demand, 2 / (PRIOR + 1))):
        before, after = scores(fit(without), "tea cup"), scores(fit(moved), "tea cup")
        for item in ITEMS:
            assert np.nan_to_num(after[item]) - np.nan_to_num(before[item]) <= bound + 1e-6


def test_a_query_of_nearly_the_same_words_is_helped_too_and_another_is_not(tmp_path: Path) -> None:
    model = graph(state(tmp_path, [worlds.row(f"u{n}", "mug", NOW, query="big blue tea cup") for n in range(9)]))
    assert 0 < scores(model, "blue tea cup")["mug"] < scores(model, "big blue tea cup")["mug"]
    assert np.isnan(scores(model, "tea")["mug"])
    assert np.isnan(scores(model, "running shoes")["mug"])


def test_what_was_chosen_speaks_for_its_category_also_for_items_that_nobody_chose(tmp_path: Path) -> None:
    rows = [worlds.row(f"u{n}", "mug", NOW, query="tea") for n in range(2)]
    rows.append(worlds.row("u0", "cup", NOW, "again", query="teas"))  # the same person in the same category
    found = scores(prior(state(tmp_path, rows)), "tea")
    assert found["mug"] == found["cup"] == pytest.approx(2 / (PRIOR + 2), rel=1e-4)
    assert np.isnan(found["pot"])


def test_what_sells_comes_up_in_the_category_and_at_the_price_that_people_chose_after_a_query(tmp_path: Path) -> None:
    price = {"cheap": 1.0, "sold": 21.0, "dear": 21.0, "cup": 21.0}
    lamps = [
        worlds.product(item, title=item, category="Lamps", price=price[item]) for item in ("cheap", "sold", "dear")
    ]
    products = [*lamps, worlds.product("cup", title="cup", category="Cups", price=21.0)]
    rows = [worlds.row(f"u{n}", "dear", NOW, query="lamp") for n in range(3)]
    rows += [worlds.row(f"v{n}", item, 1.0, f"{item}{n}") for n in range(9) for item in ("sold", "cup", "cheap")]
    features = worlds.state(worlds.write(tmp_path, rows, products))
    model = demand(features)
    found = model.score_all(Context(UserHistory.empty(), "search", Query("lamp", ("lamp",))))
    by_item = dict(zip(features.item_ids.ids(), found.tolist(), strict=True))
    share = 3 / (PRIOR + 3)
    assert by_item["sold"] == pytest.approx(share, rel=1e-3)
    assert by_item["dear"] == pytest.approx(share * (3 + PRIOR) / (9 + PRIOR), rel=1e-3)
    assert np.isnan([by_item["cheap"], by_item["cup"]]).all()


def test_nothing_after_the_instant_is_read(tmp_path: Path) -> None:
    model = graph(
        state(tmp_path, [worlds.row("u1", "mug", -1.0, query="tea"), worlds.row("u2", "cup", 1.0, query="tea")])
    )
    found = scores(model, "tea")
    assert found["cup"] > 0
    assert np.isnan(found["mug"])


def test_a_shop_where_nobody_searched_has_no_graph_and_says_why(tmp_path: Path) -> None:
    features = state(tmp_path, [worlds.row("u1", "mug", 1.0)])
    assert click_graph.KIND.not_applicable(features) == "the data have no choices after a search"
    assert Need.SEARCHES not in available(features)


def test_choices_lift_an_item_over_equal_ones_and_more_people_lift_it_more(tmp_path: Path) -> None:
    def fused(people: int) -> list[float]:
        rows = [worlds.row(f"u{n}", "pot", NOW, query="tea") for n in range(people)] or [worlds.row("u", "cup", 1.0)]
        features = state(tmp_path / str(people), rows)
        members = {"bm25": bm25.fit(bm25.Bm25Config(), TrainingData(features), seed=0), "clicks": graph(features)}
        found = gather(members, Context(UserHistory.empty(), "search", Query("tea", ("tea",))), depth=9, allowed=None)
        return Convex({"bm25": 1.0}, 0.0).score_parts(found, (query_part(features, found),)).tolist()

    nobody, one, many = fused(0), fused(1), fused(20)
    assert one[2] - nobody[2] == pytest.approx(1 / (PRIOR + 1), abs=1e-4)
    assert many[2] - nobody[2] == pytest.approx(20 / (PRIOR + 20), abs=1e-4)
    assert one[:2] == pytest.approx(nobody[:2])


def test_given_items_are_scored_with_the_same_shares(tmp_path: Path) -> None:
    def score(people: int) -> float:
        rows = [worlds.row(f"u{n}", "pot", NOW, query="tea") for n in range(people)] or [worlds.row("u", "cup", 1.0)]
        features = state(tmp_path / str(people), rows)
        members = {"bm25": bm25.fit(bm25.Bm25Config(), TrainingData(features), seed=0), "clicks": graph(features)}
        kinds = {"bm25": {"kind": "bm25"}, "clicks": {"kind": "click_graph"}}
        fusion = {Surface.SEARCH: SurfaceFusion(Convex({"bm25": 1.0}, 0.0), 9)}
        bundle = Bundle({"members": kinds}, features, members, fusion)
        found = bundle.score_items(ITEMS, bundle.history(), Surface.SEARCH, query="tea")[2]
        assert found is not None
        return found

    assert score(1) - score(0) == pytest.approx(1 / (PRIOR + 1), abs=1e-4)


def test_a_share_is_added_as_it_is_and_says_nothing_of_what_the_first_results_are_like() -> None:
    scores_of = np.array([[3.0, 0.2], [1.0, np.nan]], np.float32)
    context = Context(UserHistory.empty(), "search", None)
    found = CandidateList(np.arange(2), ("bm25", "clicks"), scores_of, context, frozenset({"clicks"}))
    fuser = Convex({"bm25": 0.5, "clicks": 0.5}, 0.5, shares=2.0)
    np.testing.assert_allclose(fuser.score(found, np.full((2, 1), np.nan, np.float32)), [1.4, 0.0], atol=1e-6)


def test_the_weight_of_a_share_is_what_it_is_multiplied_by_beside_the_others_together() -> None:
    fuser = Convex({"bm25": 0.5, "text": 0.5, "clicks": 0.5}, 0.5, shares=2.0)
    weights = fuser.weights(("bm25", "text", "clicks"), frozenset({"clicks"}))
    assert weights == pytest.approx({"bm25": 0.5 / 3, "text": 0.5 / 3, "clicks": 2 / 3})
    assert fuser.weights(("bm25", "text")) == pytest.approx({"bm25": 0.5, "text": 0.5})
