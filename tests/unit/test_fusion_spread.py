"""Below their first places lists lean away from what sells anyway, as far as that is free or coverage asks for it."""

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
from pipelines.fusion.spread import FEWEST_LISTS, FREE, HEAD, WEIGHTS, chosen, demand, spread
from pipelines.model_api import Context
from pipelines.params import FusionParams

ITEMS = 40
WINDOWS = ("window_1", "window_2")


def world(n: int, *, bought_by: str, sold_weight: float = 0.3, seed: int = 1) -> list[LabelledList]:
    """One member says taste plus what sells, another taste; bought are the five best of the taste or score."""
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
        gains = (truth >= np.sort(truth)[-5]).astype(np.float32)
        lists.append(LabelledList(candidates, features, gains, np.ones(5, np.float32), WINDOWS[place % 2]))
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


def below_the_head(*rest: float) -> np.ndarray:
    """A list of scores, float32: those of the first places, far above, then these."""
    return np.array([*np.arange(HEAD, 0, -1) + 10.0, *rest], np.float32)


def test_of_two_items_with_the_same_score_the_one_that_sells_less_comes_first() -> None:
    wider = spread(below_the_head(2, 1, 1), demand(np.array([1, 1, 1, 5, 100, 2])), 0.1)
    assert wider[-1] > wider[-2]


def test_one_deviation_of_sales_moves_an_item_by_the_weight_in_deviations_of_the_scores() -> None:
    scores, sales = below_the_head(0, 4), np.array([1, 2, 1, 1, 3], np.float32)
    unit = 0.25 * scores.std() / sales.std()
    np.testing.assert_allclose(spread(scores, sales, 0.25)[HEAD:], [0.0 + unit * 0.6, 4.0 - unit * 1.4], rtol=1e-6)


def test_the_first_places_keep_their_items_and_scores_however_well_they_sell() -> None:
    draw = np.random.default_rng(2)
    for weight in (0.1, 1.0, 5.0):
        scores = draw.normal(size=30).astype(np.float32)
        wider = spread(scores, draw.normal(size=30).astype(np.float32), weight)
        first = np.argsort(-scores)[:HEAD]
        np.testing.assert_array_equal(np.argsort(-wider)[:HEAD], first)
        np.testing.assert_array_equal(wider[first], scores[first])
        assert np.delete(wider, first).max() < wider[first].min()


def test_where_scores_are_equal_the_first_rows_are_the_first_places() -> None:
    scores, sales = np.ones(HEAD + 2, np.float32), np.arange(HEAD + 2, dtype=np.float32)
    scores[-1] = 0
    wider = spread(scores, sales, 0.3)
    np.testing.assert_array_equal(np.argsort(-wider, kind="stable")[:HEAD], np.arange(HEAD))
    assert (wider[HEAD:] < 1).all()


def test_the_scale_of_scores_does_not_matter() -> None:
    draw = np.random.default_rng(0)
    scores, sales = draw.normal(size=30).astype(np.float32), draw.normal(size=30).astype(np.float32)
    order = np.argsort(spread(scores, sales, 0.2))
    np.testing.assert_array_equal(order, np.argsort(spread(1000 * scores + 5, sales, 0.2)))


@pytest.mark.parametrize(("sales", "weight"), [([1, 2, 3, 4, 5], 0.0), ([2, 2, 2, 2, 2], 0.2)])
def test_without_weight_or_where_all_sell_alike_nothing_changes(sales: list[float], weight: float) -> None:
    scores = np.array([3, 1, 2, 0, 4], np.float32)
    np.testing.assert_array_equal(spread(scores, np.array(sales, np.float32), weight), scores)


def test_what_was_left_out_stays_left_out() -> None:
    scores = below_the_head(1, -np.inf, 0)
    wider = spread(scores, np.arange(len(scores), dtype=np.float32), 0.2)
    np.testing.assert_array_equal(np.isinf(wider), np.isinf(scores))
    nothing = np.full(5, -np.inf, np.float32)
    np.testing.assert_array_equal(spread(nothing, np.ones(5, np.float32), 0.2), nothing)


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
    covered = {float(name): one["coverage"] for name, one in trials.items()}
    assert all(share < 0.9 for less, share in covered.items() if free < less < weight)
    assert covered[weight] > covered[WEIGHTS[0]]
    assert trials[str(weight)]["mean_difference"] >= -0.5
    assert tried(lists, rival=by_taste, most_lost=0.0)[0] == free
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
