"""The search benchmark: its metrics by hand, and that a typing error is one."""

from __future__ import annotations

import random

import numpy as np
import pytest

from benchmarks.search_quality import misspelt, ndcg, recall


def test_ndcg_has_the_gains_the_log2_discount_and_the_ideal_of_the_query() -> None:
    gains = {"a": 1.0, "b": 1.0, "c": 0.1, "d": 0.0}
    ideal = 1 / np.log2(2) + 1 / np.log2(3) + 0.1 / np.log2(4)
    assert ndcg(["a", "b", "c"], gains) == pytest.approx(1)
    assert ndcg(["unjudged", "a", "d", "c"], gains) == pytest.approx((1 / np.log2(3) + 0.1 / np.log2(5)) / ideal)
    assert ndcg([], gains) == 0
    assert ndcg(["d"], {"d": 0.0}) == 0


def test_recall_counts_the_highest_gain_alone_among_a_hundred() -> None:
    gains = {"a": 1.0, "b": 1.0, "c": 0.1}
    assert recall(["c", "a"], gains) == 0.5
    assert recall([*map(str, range(100)), "a"], gains) == 0


def test_a_typing_error_changes_one_long_word_and_no_short_one() -> None:
    draw = random.Random(1)  # noqa: S311 - a test
    for _ in range(200):
        wrong = misspelt("red kitchen mug 12oz", draw).split()
        assert (wrong[0], wrong[2:]) == ("red", ["mug", "12oz"])
        assert abs(len(wrong[1]) - len("kitchen")) <= 1
    assert misspelt("red mug", draw) == "red mug"
