"""Whether training is worth it, and the reason."""

from __future__ import annotations

from datetime import timedelta

import pytest

from pipelines.actions.fresh import Change, judge
from pipelines.params import TrainingParams

LIMITS = TrainingParams(min_new_events=100, max_age_days=7)
CALM = Change(export=0, erased=False, recipe=False, added=0, removed=0, age=timedelta(days=1))


def change(**values: object) -> Change:
    return Change(**{**vars(CALM), **values})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("what", "train", "words"),
    [
        (change(), False, "nothing is new"),
        (change(age=timedelta(days=400)), False, "nothing is new"),
        (change(added=99), False, "99 new events 1.0 days after the last run; wanted: 100 new events, or any after 7"),
        (change(added=100), True, "100 new events, 100 are enough"),
        (change(added=1, age=timedelta(days=7)), True, "1 new events, and the last run is 7.0 days old"),
        (change(export=2), True, "2 files of the export changed"),
        (change(erased=True), True, "somebody was erased"),
        (change(recipe=True), True, "parameters or code"),
        (change(removed=1), True, "1 events of feedback were taken out"),
    ],
)
def test_the_first_rule_that_holds_is_the_reason(what: Change, train: bool, words: str) -> None:  # noqa: FBT001
    found = judge(what, LIMITS)
    assert (found.train, words in found.reason) == (train, True), found.reason
