"""Metrics against hand computation, another implementation, and what must hold for any lists."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.evaluation import metrics


def hits_of(*places: int, k: int = 20) -> np.ndarray:
    """One user's hits at these places, counted from 1."""
    found = np.zeros((1, k), bool)
    found[0, [place - 1 for place in places]] = True
    return found


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        # hits at places 2 and 5, four relevant items; log2(3) = 1.584963, log2(6) = 2.584963
        # DCG = 1/1.584963 + 1/2.584963 = 0.630930 + 0.386853 = 1.017783
        # ideal = 1 + 0.630930 + 1/2 + 1/log2(5) = 1 + 0.630930 + 0.5 + 0.430677 = 2.561606
        ("ndcg@10", 1.017783 / 2.561606),
        ("recall@20", 2 / 4),
        ("mrr@10", 1 / 2),
        ("hit_rate@10", 1.0),
        ("map@10", (1 / 2 + 2 / 5) / 4),
        ("precision@10", 2 / 10),
    ],
)
def test_a_list_with_two_hits_gets_the_numbers_computed_by_hand(metric: str, expected: float) -> None:
    assert metrics.per_user(hits_of(2, 5), np.array([4]))[metric][0] == pytest.approx(expected, abs=1e-6)


def test_the_ideal_list_and_map_are_cut_at_k_when_more_items_are_relevant_than_places() -> None:
    perfect = metrics.per_user(np.ones((1, 20), bool), np.array([30]))
    assert perfect["ndcg@10"][0] == pytest.approx(1.0)
    assert perfect["map@10"][0] == pytest.approx(1.0)
    assert perfect["recall@20"][0] == pytest.approx(20 / 30)


def test_a_hit_at_place_eleven_counts_for_recall_at_twenty_only() -> None:
    found = metrics.per_user(hits_of(11), np.array([1]))
    assert found.pop("recall@20")[0] == 1.0
    assert {name: values[0] for name, values in found.items()} == dict.fromkeys(found, 0.0)


def test_a_user_without_anything_relevant_has_no_number() -> None:
    found = metrics.per_user(hits_of(), np.array([0]))
    assert all(np.isnan(values[0]) for values in found.values())


def test_graded_ndcg_is_the_published_one() -> None:
    # gains 3, 2, 3, 0, 1, 2 (the worked example of Wikipedia's article on DCG): DCG@6 = 6.861127
    # ideal 3, 3, 3, 2, 2, 2, 1, 0 cut at 6: 8.740262; nDCG = 0.785
    gains, ideal = np.array([[3.0, 2, 3, 0, 1, 2]]), np.array([[3.0, 3, 3, 2, 2, 2, 1, 0]])
    assert metrics.ndcg(gains, ideal, 6)[0] == pytest.approx(6.861127 / 8.740262, abs=1e-6)


def test_binary_ndcg_is_the_graded_one_with_gain_one() -> None:
    ideal = np.array([[1.0] * 4 + [0.0] * 16])
    graded = metrics.ndcg(hits_of(2, 5), ideal, 10)
    assert metrics.binary_ndcg(hits_of(2, 5), np.array([4]), 10) == pytest.approx(graded)


def test_ndcg_and_map_agree_with_another_implementation() -> None:
    golden = json.loads((Path(__file__).parents[1] / "golden" / "ranking_metrics.json").read_text())["rankings"]
    hits = np.array([[place == "1" for place in row["hits"]] for row in golden])
    found = metrics.per_user(hits, hits.sum(axis=1))
    for name in ("ndcg@10", "map@10"):
        assert found[name] == pytest.approx([row[name] for row in golden], abs=1e-8)


def test_hits_are_found_per_user_and_empty_places_and_unknown_items_never_hit() -> None:
    codes = np.array([[0, 1, -1], [1, 2, 0]])
    relevant = [np.array([1, -1]), np.array([0])]
    assert metrics.hit_matrix(codes, relevant, 3).tolist() == [[False, True, False], [False, False, True]]


def test_diversity_is_the_mean_distance_over_pairs() -> None:
    # cos(0,1) = 0, cos(0,2) = cos(1,2) = 1/sqrt(2): mean of 1 - cos = 1 - (0 + 0.707107 + 0.707107) / 3
    vectors = np.array([[1, 0], [0, 1], [0.5**0.5, 0.5**0.5], [0, 0]])
    codes = np.array([[0, 1, 2], [0, 0, -1], [0, -1, -1], [0, 3, 1]])
    found = metrics.diversity(codes, vectors)
    assert found[:2] == pytest.approx([1 - 2 * 0.707107 / 3, 0.0], abs=1e-6)
    assert np.isnan(found[2])
    assert found[3] == pytest.approx(1.0)  # the item without text is left out


def test_novelty_is_the_mean_information_in_bits_and_nobody_counts_as_half_a_user() -> None:
    information = metrics.self_information(np.array([8, 2, 0]), 8)
    assert information.tolist() == [0.0, 2.0, 4.0]  # -log2(8/8), -log2(2/8), -log2(0.5/8)
    found = metrics.novelty(np.array([[0, 1, -1], [2, 2, 1], [-1, -1, -1]]), information)
    assert found[:2].tolist() == [1.0, 10 / 3]
    assert np.isnan(found[2])


def test_coverage_and_gini_look_at_the_whole_catalogue() -> None:
    times = metrics.times_shown(np.array([[0, 1], [0, -1]]), 4)
    assert times.tolist() == [2, 1, 0, 0]
    assert metrics.coverage(times) == 0.5
    # ascending 0 0 1 2; 2i - n - 1 = -3 -1 1 3; sum = 1 + 6 = 7; over n * total = 12
    assert metrics.gini(times) == pytest.approx(7 / 12)
    assert metrics.gini(np.array([5.0, 5, 5])) == pytest.approx(0.0)
    assert metrics.gini(np.array([0.0, 0, 9])) == pytest.approx(1 - 1 / 3)
    assert metrics.gini(np.zeros(3)) == 0.0


def test_gini_agrees_with_the_mean_absolute_difference() -> None:
    times = np.random.default_rng(1).integers(0, 9, 40).astype(float)
    pairs = np.abs(times[:, None] - times[None, :]).mean() / (2 * times.mean())
    assert metrics.gini(times) == pytest.approx(pairs)


lists = st.lists(st.lists(st.booleans(), min_size=20, max_size=20), min_size=1, max_size=8)


@settings(deadline=None)
@given(lists, st.integers(0, 40))
def test_every_metric_lies_between_zero_and_one(rows: list[list[bool]], more: int) -> None:
    hits = np.array(rows, bool)
    relevant = hits.sum(axis=1) + more
    for values in metrics.per_user(hits, relevant).values():
        known = values[~np.isnan(values)]
        assert len(known) == (relevant > 0).sum()
        assert ((known >= 0) & (known <= 1 + 1e-12)).all()


@settings(deadline=None)
@given(lists, st.randoms())
def test_the_order_of_users_does_not_matter(rows: list[list[bool]], random: object) -> None:
    hits = np.array(rows, bool)
    relevant = hits.sum(axis=1) + 1
    order = np.arange(len(hits))
    random.shuffle(order)  # type: ignore[attr-defined]
    straight, shuffled = metrics.per_user(hits, relevant), metrics.per_user(hits[order], relevant[order])
    for name in metrics.PER_USER:
        np.testing.assert_allclose(straight[name][order], shuffled[name], rtol=1e-12)


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=20, max_size=20), st.integers(1, 19))
def test_moving_a_hit_up_by_one_place_never_makes_a_list_worse(row: list[bool], place: int) -> None:
    hits = np.array([row], bool)
    better = hits.copy()
    if better[0, place] and not better[0, place - 1]:
        better[0, [place - 1, place]] = better[0, [place, place - 1]]
    relevant = hits.sum(axis=1) + 1
    before, after = metrics.per_user(hits, relevant), metrics.per_user(better, relevant)
    assert all(after[name][0] >= before[name][0] - 1e-12 for name in metrics.PER_USER)


@settings(deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=30))
def test_gini_is_a_share_and_does_not_depend_on_order_or_scale(times: list[int]) -> None:
    shown = np.array(times, float)
    found = metrics.gini(shown)
    assert -1e-12 <= found < 1
    assert metrics.gini(shown[::-1] * 3) == pytest.approx(found)
