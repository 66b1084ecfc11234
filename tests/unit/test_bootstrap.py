"""Bootstrap intervals against theory, and their promises about pairs, seeds and missing numbers."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.evaluation import bootstrap, metrics


def test_the_interval_of_a_mean_is_the_normal_one_for_many_users() -> None:
    values = np.random.default_rng(0).normal(5, 2, 2_000)
    found = bootstrap.interval(values, seed=1)
    assert found is not None
    half = 1.96 * values.std() / np.sqrt(2_000)
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.06 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.06 * half)
    assert found.n == 2_000


def test_a_difference_of_paired_systems_is_far_narrower_than_the_systems_themselves() -> None:
    generator = np.random.default_rng(0)
    one = generator.random(500)
    other = one - 0.01 + generator.normal(0, 0.001, 500)
    found = bootstrap.difference(one, other, seed=1)
    whole = bootstrap.interval(one, seed=1)
    assert found is not None
    assert whole is not None
    assert found.low > 0.0098
    assert found.high - found.low < 0.02 * (whole.high - whole.low)


def test_columns_share_their_draws() -> None:
    values = np.random.default_rng(0).random(100)
    one, other = bootstrap.intervals(np.column_stack([values, values + 1]), seed=3, draws=300)
    assert one is not None
    assert other is not None
    assert (other.low - one.low, other.high - one.high) == pytest.approx((1, 1))


def test_the_same_seed_gives_the_same_interval_and_another_one_another() -> None:
    values = np.random.default_rng(0).random(100)
    assert bootstrap.interval(values, seed=3) == bootstrap.interval(values, seed=3)
    assert bootstrap.interval(values, seed=3) != bootstrap.interval(values, seed=4)


def test_chunks_of_draws_do_not_change_how_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "CHUNK_BYTES", 8 * 100 * 7)
    weights = list(bootstrap._weights(100, seed=0, draws=45))
    assert [len(chunk) for chunk in weights] == [7, 7, 7, 7, 7, 7, 3]
    assert all((chunk.sum(axis=1) == 100).all() for chunk in weights)


def test_a_missing_number_leaves_its_user_out_of_its_column_alone() -> None:
    values = np.array([[1.0, 1.0], [3.0, np.nan], [5.0, 2.0]])
    one, other = bootstrap.intervals(values, seed=0, draws=500)
    assert (one and one.mean, one and one.n) == (3.0, 3)
    assert (other and other.mean, other and other.n) == (1.5, 2)
    assert other is not None
    assert (other.low, other.high) == (1.0, 2.0)


def test_no_number_gives_no_interval_and_one_number_an_interval_of_no_width() -> None:
    assert bootstrap.interval(np.zeros(0), seed=0) is None
    assert bootstrap.interval(np.array([np.nan, np.nan]), seed=0) is None
    assert bootstrap.interval(np.array([0.25]), seed=0) == bootstrap.Interval(0.25, 0.25, 0.25, 1)


def test_intervals_of_coverage_and_gini_hold_the_observed_value() -> None:
    codes = np.random.default_rng(0).integers(0, 300, (80, 10))
    found = bootstrap.over_lists(codes, 300, seed=0, draws=200)
    times = metrics.times_shown(codes, 300)
    for name, value in (("coverage@10", metrics.coverage(times)), ("gini@10", metrics.gini(times))):
        span = found[name]
        assert span is not None
        assert span.mean == value
        assert 0 <= span.low < value < span.high <= 1
        assert span.n == 80


def test_equal_lists_leave_no_doubt_about_coverage() -> None:
    span = bootstrap.over_lists(np.tile(np.arange(10), (30, 1)), 40, seed=0, draws=50)["coverage@10"]
    assert span == bootstrap.Interval(0.25, 0.25, 0.25, 30)


def test_json_has_the_names_of_the_contract_and_six_decimals() -> None:
    span = bootstrap.Interval(0.12345678, -0.0000000001, 1 / 3, 7)
    assert span.as_json() == {"mean": 0.123457, "ci_low": 0.0, "ci_high": 0.333333, "n": 7}
    assert span.as_difference() == {"mean_difference": 0.123457, "ci_low": 0.0, "ci_high": 0.333333, "n": 7}
