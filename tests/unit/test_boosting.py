"""Trees that teach a ranker learn from lists with gains of any size, and read unknown numbers."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.fusion.stacking import StackingConfig
from pipelines.learners.boosting import boosted_scores
from pipelines.learners.listwise import TrainingLists

CONFIG = StackingConfig(trees=20, tree_l2=1.0).model_dump()
GAINS = np.array([1.0, 0.1, 0.01, *[0.0] * 17], np.float32)


def graded(n: int) -> TrainingLists:
    """Lists of 20: the first column tells what a row is worth, except where it is unknown; the second says nothing."""
    draw = np.random.default_rng(1)
    parts = []
    for _ in range(n):
        telling = np.argsort(-GAINS, kind="stable").astype(np.float32) + draw.normal(size=20) * 0.1
        telling[draw.random(20) < 0.1] = np.nan
        parts.append((np.stack([telling, draw.normal(size=20)], axis=1).astype(np.float32), GAINS, 1.0))
    return TrainingLists.of(parts)


def test_what_is_worth_more_gets_a_higher_score() -> None:
    data = graded(60)
    found = boosted_scores(data, config=CONFIG, seed=1).reshape(60, 20)
    told = ~np.isnan(data.columns[:, 0].reshape(60, 20))
    means = [found[:, place][told[:, place]].mean() for place in range(4)]
    assert means == sorted(means, reverse=True)
    assert found.dtype == np.float32


def test_the_same_seed_gives_the_same_scores() -> None:
    one, same, other = (boosted_scores(graded(40), config=CONFIG, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("weight", [0.5, 1.0])
def test_a_list_without_weight_teaches_nothing(weight: float) -> None:
    known = graded(40)
    draw = np.random.default_rng(2)
    noise = [(draw.normal(size=(20, 2)).astype(np.float32), draw.permutation(GAINS), 0.0) for _ in range(40)]
    cut = [(known.columns[20 * i : 20 * i + 20], GAINS, weight) for i in range(40)]
    found = boosted_scores(TrainingLists.of([*cut, *noise]), config=CONFIG, seed=1)[: 40 * 20].reshape(40, 20)
    assert np.nanmean(found[:, 0]) > np.nanmean(found[:, 3:]) + 0.5
