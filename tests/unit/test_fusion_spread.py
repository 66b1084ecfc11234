"""Lists lean away from what sells anyway, as far as that costs nothing that can be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from pipelines.contracts import Surface
from pipelines.features.state import UserHistory
from pipelines.fusion import spread as spreads
from pipelines.fusion.candidates import CandidateList
from pipelines.fusion.features import FEATURES
from pipelines.fusion.fuser import LabelledList
from pipelines.fusion.learning import choose
from pipelines.fusion.spread import FEWEST_LISTS, FREE, WEIGHTS, chosen, demand, spread
from pipelines.model_api import Context
from pipelines.params import FusionParams

ITEMS = 40
WINDOWS = ("window_1", "window_2")


def world(n: int, *, bought_by: str, sold_weight: float = 0.3, seed: int = 1) -> list[LabelledList]:
    """One member says taste plus what sells, another taste; bought are the three best of the taste or score."""
    draw = np.random.default_rng(seed)
    sold = np.floor(np.exp(draw.normal(2, 1, size=ITEMS))).astype(np.float32)
    lists = []
    for place in range(n):
        taste = draw.normal(size=ITEMS).astype(np.float32)
        scores = taste + sold_weight * demand(sold)
        truth = taste if bought_by == "taste" else scores
        features = np.full((ITEMS, len(FEATURES)), np.nan, np.float32)
        features[:, FEATURES.index("item_last28")] = sold
        context = Context(UserHistory.empty(), Surface.RECOMMEND)
        candidates = CandidateList(np.arange(ITEMS), ("one", "taste"), np.stack([scores, taste], axis=1), context)
        gains = (truth >= np.sort(truth)[-3]).astype(np.float32)
        lists.append(LabelledList(candidates, features, gains, np.ones(3, np.float32), WINDOWS[place % 2]))
    return lists


def shown(lists: Sequence[LabelledList], weight: float) -> int:
    """How many different items are among the first five of some list."""
    firsts = []
    for one in lists:
        sales = demand(one.features[:, FEATURES.index("item_last28")])
        firsts.append(np.argsort(-spread(one.candidates.scores[:, 0], sales, weight))[:5])
    return len(np.unique(firsts))


def tried(
    lists: Sequence[LabelledList], *, rival: Sequence[np.ndarray] | None = None, most_lost: float = 0.02
) -> tuple[float, dict[str, dict[str, float]]]:
    scores = [one.candidates.scores[:, 0] for one in lists]
    return chosen(scores, lists, rival=rival, least_covered=0.9, most_lost=most_lost, seed=1)


def test_of_two_items_with_the_same_score_the_one_that_sells_less_comes_first() -> None:
    wider = spread(np.array([2.0, 1.0, 1.0], np.float32), demand(np.array([5, 100, 2])), 0.1)
    assert wider[2] > wider[1]


def test_one_deviation_of_sales_moves_an_item_by_the_weight_in_deviations_of_the_scores() -> None:
    scores, sales = np.array([0.0, 4.0], np.float32), np.array([1.0, 3.0], np.float32)
    np.testing.assert_allclose(spread(scores, sales, 0.25), [0.0 + 0.25 * 2, 4.0 - 0.25 * 2])


def test_the_scale_of_scores_does_not_matter() -> None:
    draw = np.random.default_rng(0)
    scores, sales = draw.normal(size=30).astype(np.float32), draw.normal(size=30).astype(np.float32)
    order = np.argsort(spread(scores, sales, 0.2))
    np.testing.assert_array_equal(order, np.argsort(spread(1000 * scores + 5, sales, 0.2)))


@pytest.mark.parametrize(("sales", "weight"), [([1.0, 2.0, 3.0], 0.0), ([2.0, 2.0, 2.0], 0.2)])
def test_without_weight_or_where_all_sell_alike_nothing_changes(sales: list[float], weight: float) -> None:
    scores = np.array([3.0, 1.0, 2.0], np.float32)
    np.testing.assert_array_equal(spread(scores, np.array(sales, np.float32), weight), scores)


def test_what_was_left_out_stays_left_out() -> None:
    wider = spread(np.array([1.0, -np.inf, 0.0], np.float32), np.array([1.0, 0.0, 2.0], np.float32), 0.2)
    assert wider[1] == -np.inf
    assert np.isfinite(wider[[0, 2]]).all()
    nothing = np.full(3, -np.inf, np.float32)
    np.testing.assert_array_equal(spread(nothing, np.ones(3, np.float32), 0.2), nothing)


def test_an_item_never_sold_or_unknown_has_no_demand() -> None:
    np.testing.assert_array_equal(demand(np.array([0.0, np.nan])), [0, 0])


def test_lists_are_widened_where_people_buy_by_taste() -> None:
    lists = world(200, bought_by="taste")
    weight, trials = tried(lists)
    assert weight == WEIGHTS[-1]
    assert trials[str(weight)]["ci_low"] > 0
    assert shown(lists[:8], weight) > shown(lists[:8], 0)


def test_the_first_weight_that_may_cost_something_ends_the_search() -> None:
    lists = world(200, bought_by="score")  # so that nDCG@10 is 1, and every exchange costs
    weight, trials = tried(lists)
    weights = [float(name) for name in trials]
    assert weights == list(WEIGHTS[: len(weights)])
    assert weight == max([0.0, *weights[:-1]]) < WEIGHTS[-1]
    assert trials[str(weights[-1])]["ci_low"] <= -FREE
    assert all(trials[str(held)]["ci_low"] > -FREE for held in weights[:-1])


def test_what_costs_something_is_paid_for_coverage_alone_and_only_so_much() -> None:
    lists = world(60, bought_by="score", sold_weight=3.0)
    free, _ = tried(lists)
    by_taste = [one.candidates.scores[:, 1] for one in lists]
    weight, trials = tried(lists, rival=by_taste, most_lost=0.5)
    assert weight > free
    assert trials[str(weight)]["coverage"] > trials[str(WEIGHTS[0])]["coverage"]
    assert trials[str(weight)]["mean_difference"] >= -0.5
    dear, _ = tried(lists, rival=by_taste, most_lost=0.0)
    assert dear == free
    own = [one.candidates.scores[:, 0] for one in lists]
    assert tried(lists, rival=own, most_lost=0.5)[0] == free


def test_too_few_lists_prove_nothing_and_are_not_widened() -> None:
    assert tried(world(FEWEST_LISTS - 1, bought_by="taste")) == (0.0, {})
    assert tried([]) == (0.0, {})


@pytest.mark.parametrize("method", ["auto", "best_single"])
def test_the_choice_of_a_surface_carries_its_spread(method: str) -> None:
    params = FusionParams.model_validate({"method": method})
    found = choose(params, world(200, bought_by="taste"), ("one",), surface=Surface.RECOMMEND, windows=WINDOWS, seed=1)
    assert (found.method, found.spread) == ("best_single", WEIGHTS[-1])


def test_a_single_labelled_list_compares_nothing() -> None:
    found = choose(
        FusionParams(), world(1, bought_by="taste"), ("one",), surface=Surface.RECOMMEND, windows=WINDOWS, seed=1
    )
    assert (found.spread, found.trials) == (0.0, {})


def test_no_list_is_counted_twice_where_the_newest_window_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = []
    monkeypatch.setattr(spreads, "chosen", lambda _, lists, **__: counted.extend(map(id, lists)) or (0.0, {}))
    lists = world(200, bought_by="taste")
    windows = (*WINDOWS, "window_3", "window_4")
    choose(FusionParams(), lists, ("one",), surface=Surface.RECOMMEND, windows=windows, seed=1)
    assert len(counted) == len(set(counted)) == len(lists) // 2


def test_the_newest_windows_are_each_judged_by_what_was_learned_before(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = []
    monkeypatch.setattr(spreads, "chosen", lambda _, lists, **__: counted.extend(lists) or (0.0, {}))
    windows = [f"window_{place}" for place in range(1, 6)]
    lists = [replace(one, window=windows[place % 5]) for place, one in enumerate(world(50, bought_by="taste"))]
    choose(FusionParams(), lists, ("one",), surface=Surface.RECOMMEND, windows=windows, seed=1)
    assert {one.window for one in counted} == set(windows[-3:])
    assert len(counted) == 30
