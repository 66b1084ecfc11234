"""Instants in time."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import InputError
from pipelines.params import SplitParams
from pipelines.splitting import Instants, instants, midnight_after

DAY = timedelta(days=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_the_shipped_year_gives_the_published_holdout_and_six_windows() -> None:
    placed = instants(SplitParams(), first=at("2009-12-01T07:45"), as_of=at("2010-12-01"))
    assert placed.judged is not None
    assert placed.judged.time == at("2010-11-03")
    assert placed.judged.until == at("2010-12-01")
    assert [window.time for window in placed.windows] == [at("2010-11-03") - 28 * k * DAY for k in range(6, 0, -1)]


def test_a_daily_run_moves_t3_and_leaves_t2_until_the_week_is_over() -> None:
    first = at("2009-12-01")
    judged = []
    for days in range(8):
        placed = instants(SplitParams(), first=first, as_of=at("2010-12-01") + days * DAY)
        assert placed.judged is not None
        judged.append(placed.judged.time)
    assert judged == [at("2010-11-03")] * 7 + [at("2010-11-10")]


def test_a_log_of_less_than_two_days_has_no_holdout() -> None:
    placed = instants(SplitParams(), first=at("2020-01-01T10:00"), as_of=at("2020-01-02"))
    assert placed.judged is None
    assert placed.windows == ()


def test_without_events_what_is_judged_knows_all_that_serves() -> None:
    placed = instants(SplitParams(), first=None, as_of=at("2020-01-02"))
    assert placed.judged is None
    assert [(one.name, one.time) for one in placed.before_holdout] == [("judged", at("2020-01-02"))]


def test_four_weeks_shrink_holdout_and_window_in_proportion() -> None:
    placed = instants(SplitParams(), first=at("2020-01-01"), as_of=at("2020-01-29"))
    assert placed.judged is not None
    assert placed.judged.time == at("2020-01-15")
    assert [(w.time, w.until) for w in placed.windows] == [(at("2020-01-08"), at("2020-01-15"))]


def test_as_of_before_all_events_is_an_error_that_names_both() -> None:
    with pytest.raises(InputError, match=r"2020-01-01.*2020-02-01") as caught:
        instants(SplitParams(), first=at("2020-02-01"), as_of=at("2020-01-01"))
    assert "params.yaml" in str(caught.value)


@given(st.integers(1, 2000), st.integers(0, 12), st.integers(1, 60), st.integers(1, 60))
def test_windows_follow_each_other_and_leave_history_before_the_first(
    days: int, windows: int, window_days: int, holdout_days: int
) -> None:
    params = SplitParams(windows=windows, window_days=window_days, holdout_days=holdout_days)
    first = at("2020-01-01T13:00")
    try:
        placed = instants(params, first=first, as_of=first + days * DAY)
    except InputError:
        return
    chain = placed.before_holdout
    assert all(one.until == other.time for one, other in itertools.pairwise(chain))
    assert len(placed.windows) <= windows
    if placed.windows:
        window = placed.windows[0]
        assert window.time - first >= (window.until - window.time) * 0.999
    if placed.judged:
        assert first < placed.judged.time < placed.judged.until
    assert Instants.from_json(placed.as_json()) == placed


def test_midnight_after_a_midnight_is_the_next_one() -> None:
    assert midnight_after(at("2020-01-01")) == at("2020-01-02")
    assert midnight_after(at("2020-01-01T23:59:59")) == at("2020-01-02")
