"""A member is brought from one instant to the next, and never from a later one to an earlier one."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import fitting, model_registry
from pipelines.errors import ArtifactError
from pipelines.features.state import UserHistory
from pipelines.model_api import Context, Kind, TrainingData
from pipelines.models import popularity
from pipelines.params import ModelEntry
from pipelines.search.analysis import Analyzer
from pipelines.search.query import Query
from pipelines.workspace import Workspace
from tests.conformance import worlds

TIMES = {
    "window_2": worlds.NOW - timedelta(days=40),
    "window_10": worlds.NOW - timedelta(days=20),
    "judged": worlds.NOW - timedelta(days=10),
    "window_1": worlds.NOW - timedelta(days=60),
}
"""Neither in the order of time nor of names."""


@pytest.fixture
def work(tmp_path: Path) -> Workspace:
    """Features of each instant, and the tables that they come from."""
    made = Workspace(tmp_path / "artifacts")
    worlds.two_tastes(made.history)
    (made.history / "about.json").write_text(json.dumps({"instants": {n: t.isoformat() for n, t in TIMES.items()}}))
    for name, time in TIMES.items():
        made.features(name).mkdir(parents=True)
        worlds.state(made.history, time).save(made.features(name))
    return made


@pytest.fixture
def parents(monkeypatch: pytest.MonkeyPatch) -> dict[datetime, datetime | None]:
    """What each fit was started from, by the times of both."""
    seen: dict[datetime, datetime | None] = {}

    def fit(config: Any, data: TrainingData, *, seed: int) -> popularity.Popularity:
        seen[data.features.time] = data.parent_features.time if data.parent_features else None
        return popularity.fit(config, data, seed=seed)

    warm = Kind(config=popularity.PopularityConfig, fitted=popularity.Popularity, fit=fit, warm_start=True)
    monkeypatch.setattr(model_registry, "kind", lambda _: warm)
    return seen


def fitted(work: Workspace, names: list[str], **options: Any) -> None:
    into = work.root / "out"
    into.mkdir()
    entry = ModelEntry(kind="popularity")
    fitting.fit_member("popular", entry, work, names, into=into, tables=work.history, seed=1, **options)


def test_each_fit_starts_from_the_one_before_it_in_time_whatever_the_names_and_their_order(
    work: Workspace, parents: dict[datetime, datetime | None]
) -> None:
    fitted(work, sorted(TIMES))
    in_time = sorted(TIMES.values())
    assert parents == dict(zip(in_time, [None, *in_time[:-1]], strict=True))


def test_a_parent_that_is_later_than_the_instant_is_refused(
    work: Workspace, parents: dict[datetime, datetime | None]
) -> None:
    (work.root / "members" / "popular").mkdir(parents=True)
    fitted(work, ["judged"])
    (work.root / "out").rename(work.root / "members" / "popular" / "done")
    (work.root / "members" / "popular" / "done" / "judged").rename(work.root / "members" / "popular" / "judged")
    with pytest.raises(ArtifactError, match="knows what comes after window_1"):
        fitted(work, ["window_1"], parent="judged")


def test_a_member_is_fitted_from_the_instant_on_that_it_applies_to_and_has_no_opinion_before(work: Workspace) -> None:
    rows = [worlds.row("u1", "a1", 30.0), worlds.row("u2", "a2", 15.0, query="title a2")]
    worlds.write(work.history, rows, [worlds.product("a1"), worlds.product("a2")])
    for name, time in TIMES.items():
        worlds.state(work.history, time).save(work.features(name))
    folder = work.root / "members" / "clicks"
    folder.mkdir(parents=True)
    entry = ModelEntry(kind="click_graph")
    reason = fitting.fit_member("clicks", entry, work, list(TIMES), into=folder, tables=work.history, seed=1)
    assert reason is None
    assert sorted(path.name for path in folder.iterdir()) == ["judged"]
    asked = Context(UserHistory.empty(), "search", Query("title a2", tuple(Analyzer("english").terms("title a2"))))
    for name, opinion in (("window_10", False), ("judged", True)):
        model = model_registry.fitted("click_graph", work.member("clicks", name), n_items=2)
        assert np.isfinite(model.score_all(asked)).any() == opinion
        assert model.BOUNDED


def test_a_member_that_does_not_apply_to_the_newest_instant_does_not_apply(work: Workspace) -> None:
    (work.root / "out").mkdir()
    entry = ModelEntry(kind="click_graph")
    worlds.write(work.history, [worlds.row("u1", "a1", 30.0)], [worlds.product("a1")])
    for name, time in TIMES.items():
        worlds.state(work.history, time).save(work.features(name))
    into = work.root / "out"
    assert fitting.fit_member("clicks", entry, work, list(TIMES), into=into, tables=work.history, seed=1) == (
        "the data have no choices after a search"
    )
