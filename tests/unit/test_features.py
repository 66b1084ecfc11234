"""Features offline and online are one definition."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipelines.errors import ArtifactError
from pipelines.features import history
from pipelines.features.definitions import USER, USER_ITEM
from pipelines.features.lookup import LiveEvent, update
from pipelines.features.state import CATALOG, FeatureState, UserHistory
from tests.conformance import worlds

ITEMS = ("a", "b", "c", "d")


def live(row: dict[str, object]) -> LiveEvent:
    return LiveEvent(str(row["item_id"]), str(row["event_type"]), row["event_time"], 1.0, 2.0)  # type: ignore[arg-type]


def same(one: UserHistory, other: UserHistory) -> None:
    np.testing.assert_array_equal(one.items, other.items)
    for aggregate in USER_ITEM:
        np.testing.assert_allclose(
            one.aggregates[aggregate.name], other.aggregates[aggregate.name], rtol=1e-5, err_msg=aggregate.name
        )
    for aggregate in USER:
        np.testing.assert_allclose(
            one.user[aggregate.name], other.user[aggregate.name], rtol=1e-5, err_msg=aggregate.name
        )


event = st.tuples(
    st.sampled_from(ITEMS),
    st.floats(0.01, 400, allow_nan=False),
    st.sampled_from(sorted(worlds.STRENGTHS)),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(event, min_size=1, max_size=12, unique_by=lambda e: (e[0], e[1])), st.integers(0, 12))
@example([("a", 0.99999, worlds.PURCHASE)], 0)
def test_state_plus_later_events_equals_state_of_all_events(
    tmp_path: Path, events: list[tuple[str, float, str]], split: int
) -> None:
    rows = [worlds.row("u", item, age, kind=kind) for item, age, kind in events]
    rows.sort(key=lambda r: r["event_time"])  # type: ignore[arg-type, return-value]
    products = [worlds.product(item) for item in ITEMS]
    whole = worlds.state(worlds.write(tmp_path / "whole", rows, products))
    part = worlds.state(worlds.write(tmp_path / "part", rows[:split], products))
    carried = update(part, part.history(part.user_ids.code("u")), [live(row) for row in rows[split:]])
    same(carried, whole.history(whole.user_ids.code("u")))


def test_interactions_of_a_log_with_milliseconds_have_whole_seconds(tmp_path: Path) -> None:
    second = 1 / 86_400
    rows = [worlds.row("u", item, age) for item, age in (("a", 10 - 0.864 * second), ("b", 10 - 0.3 * second))]
    features = worlds.state(worlds.write(tmp_path, rows, [worlds.product(item) for item in ITEMS]))
    ten_days_ago = int((worlds.NOW - timedelta(days=10)).timestamp())
    assert history.interactions(features)["time"].tolist() == [ten_days_ago, ten_days_ago]
    assert features.history(0).aggregates["last_age"].tolist() == [10.0, 10.0]


def test_an_event_after_the_instant_has_age_zero_and_comes_first(tmp_path: Path) -> None:
    features = worlds.state(
        worlds.write(tmp_path, [worlds.row("u", "a", 3.0)], [worlds.product(item) for item in ITEMS])
    )
    later = LiveEvent("b", worlds.PURCHASE, worlds.NOW + timedelta(days=30))
    carried = update(features, features.history(0), [later])
    assert features.item_ids.ids(carried.items) == ["b", "a"]
    assert carried.aggregates["last_age"].tolist() == [0.0, 3.0]
    assert carried.aggregates["bought_decay30"][0] == 1.0


def test_the_last_of_several_live_events_comes_first(tmp_path: Path) -> None:
    features = worlds.state(
        worlds.write(tmp_path, [worlds.row("u", "a", 3.0)], [worlds.product(item) for item in ITEMS])
    )
    events = [LiveEvent(item, worlds.PURCHASE, worlds.NOW) for item in ("d", "b", "c", "b")]
    assert features.item_ids.ids(update(features, features.history(0), events).items) == ["b", "c", "d", "a"]


def test_events_of_unknown_items_and_neutral_types_leave_no_trace(tmp_path: Path) -> None:
    features = worlds.state(worlds.write(tmp_path, [worlds.row("u", "a", 3.0)], [worlds.product("a")]))
    before = features.history(0)
    events = [LiveEvent("nowhere", worlds.PURCHASE, worlds.NOW), LiveEvent("a", "search", worlds.NOW)]
    assert update(features, before, events) is before


def test_nothing_at_or_after_the_instant_is_read(tmp_path: Path) -> None:
    rows = [worlds.row("u", "a", 10.0), worlds.row("u", "b", 5.0), worlds.row("u", "c", 1.0)]
    tables = worlds.write(tmp_path, rows, [worlds.product(item) for item in ITEMS])
    features = worlds.state(tables, worlds.NOW - timedelta(days=5))
    assert features.item_ids.ids(features.history(0).items) == ["a"]
    assert len(history.interactions(features)["item"]) == 1


def test_rows_without_a_history_count_for_items_only(tmp_path: Path) -> None:
    rows = [worlds.row(None, "a", 1.0), worlds.row("u", "a", 2.0)]
    features = worlds.state(worlds.write(tmp_path, rows, [worlds.product("a")]))
    assert features.n_users == 1
    assert features.items["bought"].tolist() == [2.0]
    assert features.items["buyers"].tolist() == [1.0]
    assert features.items["known_bought_last28"].tolist() == [1.0]


def test_the_catalogue_is_the_one_of_the_instant(tmp_path: Path) -> None:
    day = timedelta(days=1)
    products = [
        worlds.product("a", title="old", updated_at=worlds.NOW - 10 * day),
        worlds.product("a", title="new", updated_at=worlds.NOW - 2 * day),
        worlds.product("future", updated_at=worlds.NOW + day),
        worlds.product("sold", title="known by its sale", updated_at=worlds.NOW + day),
        worlds.product("timeless", updated_at=None),
    ]
    tables = worlds.write(tmp_path, [worlds.row("u", "sold", 8.0)], products)
    now = worlds.state(tables)
    before = worlds.state(tables, worlds.NOW - 5 * day)
    assert now.item_ids.ids() == ["a", "sold", "timeless"]
    assert now.catalog["title"].to_pylist() == ["new", "known by its sale", "title timeless"]
    assert before.catalog["title"].to_pylist()[0] == "old"


def test_a_saved_and_loaded_state_is_the_same(tmp_path: Path) -> None:
    features = worlds.two_tastes(tmp_path / "tables")
    (tmp_path / "saved").mkdir()
    features.save(tmp_path / "saved")
    copy = FeatureState.load(tmp_path / "saved")
    assert copy.item_ids.ids() == features.item_ids.ids()
    assert copy.attribute_values == {"country": ["Chile", "Norway"]}
    same(copy.history(7), features.history(7))
    for name, values in features.items.items():
        np.testing.assert_array_equal(copy.items[name], values)
    assert copy.catalog.equals(features.catalog, check_metadata=False)


def test_a_catalogue_that_was_read_lies_in_its_file_and_not_in_memory(tmp_path: Path) -> None:
    features = worlds.two_tastes(tmp_path / "tables")
    (tmp_path / "saved").mkdir()
    features.save(tmp_path / "saved")
    before = pa.total_allocated_bytes()
    copy = FeatureState.load(tmp_path / "saved")
    assert pa.total_allocated_bytes() - before < copy.catalog.nbytes


def test_a_catalogue_of_an_earlier_version_is_read_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    features = worlds.two_tastes(tmp_path / "tables")
    saved = tmp_path / "saved"
    saved.mkdir()
    features.save(saved)
    (saved / CATALOG).write_bytes((saved / CATALOG).read_bytes()[:100])
    with pytest.raises(ArtifactError, match=r"catalog\.arrow is damaged"):
        FeatureState.load(saved)
    (saved / CATALOG).unlink()
    with pytest.raises(ArtifactError, match=r"catalog\.arrow does not exist"):
        FeatureState.load(saved)
    pq.write_table(features.catalog, saved / "catalog.parquet", compression="zstd")
    assert FeatureState.load(saved).catalog.equals(features.catalog)


def test_a_search_is_counted_by_people_and_by_none_before_five_made_it(tmp_path: Path) -> None:
    rows = [worlds.row(f"u{n}", "a", 1 + n, query=("Red  Mug", "red mug")[n % 2]) for n in range(6)]
    rows += [worlds.row("u0", "b", 20 + n, query="my own address 7") for n in range(30)]
    rows += [worlds.row(f"u{n}", "a", 50 + n, query="four people") for n in range(4)]
    rows += [worlds.row(None, "a", 60 + n, f"e{n}", query="nobody") for n in range(9)]
    tables = worlds.write(tmp_path / "tables", rows, [worlds.product(item) for item in ITEMS])
    about = {"target": worlds.PURCHASE, "strengths": worlds.STRENGTHS, "text": None}
    state = history.build(tables, worlds.NOW, **about, suggesting=True)  # type: ignore[arg-type]
    assert state.searched == {"red mug": 6}
    (tmp_path / "state").mkdir()
    state.save(tmp_path / "state")
    assert FeatureState.load(tmp_path / "state").searched == state.searched
    assert worlds.state(tables).searched == {}
