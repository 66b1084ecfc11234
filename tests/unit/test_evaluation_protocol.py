"""The protocol in a world of six items and five users whose answers can be worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.bundle import Bundle
from pipelines.contracts import ARROW, CATALOG, FUSED, Surface
from pipelines.errors import ArtifactError
from pipelines.evaluation import comparisons, evaluator, ledger, protocol, slices, stability, tables, targets
from pipelines.evaluation.kept_lists import KeptLists
from pipelines.evaluation.protocol import Lister, SurfaceEvaluation
from pipelines.evaluation.targets import Audience, Targets
from pipelines.features.definitions import ITEM, USER, USER_ITEM
from pipelines.features.state import FeatureState, UserItems
from pipelines.fusion.best_single import BestSingle
from pipelines.fusion.surface import SurfaceFusion
from pipelines.ids import IdIndex
from pipelines.model_api import Context, FittedModel
from pipelines.params import parse
from pipelines.splitting import Instant, Instants

T2 = datetime(2024, 3, 1, tzinfo=UTC)
JUDGED = Instant("judged", T2, T2 + timedelta(days=10))
NAN = float("nan")
HOW = {"seed": 7, "draws": 200}


class Fixed(FittedModel):
    """The same scores for everybody."""

    def __init__(self, *scores: float) -> None:
        super().__init__(len(scores))
        self.scores = np.array(scores, np.float32)

    def score_all(self, context: Context) -> np.ndarray:
        return self.scores

    def save(self, folder: Path) -> None:
        raise NotImplementedError

    @classmethod
    def load(cls, folder: Path) -> Self:
        raise NotImplementedError


def features(ids: str = "abcdef", *, time: datetime = T2) -> FeatureState:
    """ann bought a and b, bob a, cat c; dan only looked at d. Item f cannot be bought any more."""
    item_ids, user_ids = IdIndex.of(ids), IdIndex.of(["ann", "bob", "cat", "dan"])
    n = len(item_ids)
    owned = [item_ids.code(item) for item in ("a", "b", "a", "c", "d")]
    bought = np.array([1, 1, 1, 1, 0], np.float32)
    pairs = {a.name: np.zeros(5, np.float32) for a in USER_ITEM} | {"bought": bought}
    items = {a.name: np.zeros(n, np.float32) for a in ITEM}
    items |= {"buyers": np.bincount(owned, bought, n).astype(np.float32), "price": np.ones(n, np.float32)}
    items["bought"] = items["buyers"]
    items["bought_decay30"] = np.arange(n, dtype=np.float32)  # by popularity the last item comes first
    items["first_age"] = np.array([90, 90, 5, 90, 90, 90, 90][:n], np.float32)
    users = {a.name: np.zeros(4, np.float32) for a in USER}
    users |= {"bought": np.array([2, 1, 1, 0], np.float32), "events_last28": np.array([1, 0, 0, 0], np.float32)}
    vectors = np.eye(n, 8, dtype=np.float16)
    catalog = {name: pa.nulls(n, ARROW[CATALOG.column(name).type]) for name in CATALOG.names}
    catalog |= {"item_id": pa.array(list(ids)), "available": pa.array([item != "f" for item in ids])}
    return FeatureState(
        time=time,
        item_ids=item_ids,
        user_ids=user_ids,
        catalog=pa.table(catalog),
        items=items,
        users=users,
        user_items=UserItems(np.array([0, 2, 3, 4, 5]), np.array(owned, np.int32), pairs),
        attribute_values={},
        user_attributes={},
        text=vectors,
        target="purchase-complete",
        strengths={"purchase-complete": 1.0},
    )


def bundle(state: FeatureState | None = None) -> Bundle:
    """``good`` likes a best and f least, ``poor`` the other way round, ``short`` knows a alone."""
    state = state or features()
    ranks = [float(place) for place in range(state.n_items)]
    members = {
        "good": Fixed(*reversed(ranks)),
        "poor": Fixed(*ranks),
        "short": Fixed(1.0, *[NAN] * (state.n_items - 1)),
    }
    described: dict[str, Any] = {name: {"kind": "repeat", "applicable": True, "reason": None} for name in members}
    described["absent"] = {"kind": "repeat", "applicable": False, "reason": "the data have no text vectors"}
    fusion = {s: SurfaceFusion(BestSingle("good"), 6) for s in (Surface.RECOMMEND, Surface.RECOMMEND_NEW)}
    manifest = {"id": "0" * 16, "members": described, "surfaces": {str(s): {"fuser": "best_single"} for s in fusion}}
    return Bundle(manifest, state, members, fusion)


HOLDOUT = Targets(
    users=("ann", "bob", "dan", "eve"),
    items=(("a", "c", "z"), ("b",), ("d",), ("a",)),
    days=tuple(T2.timestamp() / 86_400 + np.array(days) for days in ([0.0, 7.5, 1.0], [6.9], [2.0], [2.0])),
)
"""ann buys a again, c, and z which did not exist; bob b; dan and eve had bought nothing before."""


def judged(surface: Surface = Surface.RECOMMEND) -> SurfaceEvaluation:
    """The world's holdout on one surface."""
    group = targets.audience(features(), HOLDOUT, surface, max_users=10, seed=0)
    return protocol.evaluate_surface(bundle(), group)


@pytest.mark.parametrize("surface", [Surface.RECOMMEND, Surface.RECOMMEND_NEW])
def test_an_evaluation_with_kept_lists_equals_one_without(surface: Surface, tmp_path: Path) -> None:
    asked: list[str] = []

    def counting(rows: Sequence[str], description: str) -> Sequence[str]:
        asked.extend(rows)
        return rows

    def evaluated(users: int, kept: KeptLists | None) -> SurfaceEvaluation:
        some = Targets(HOLDOUT.users[:users], HOLDOUT.items[:users], HOLDOUT.days[:users])
        group = targets.audience(features(), some, surface, max_users=10, seed=0)
        whole = bundle()
        whole.manifest["files"] = {"features/users.json": "1"}
        return protocol.evaluate_surface(whole, group, lister=Lister(counting, kept))

    evaluated(1, KeptLists(tmp_path, code="c"))
    asked.clear()
    found, wanted = evaluated(4, KeptLists(tmp_path, code="c")), judged(surface)
    assert set(asked) == {"bob"}
    for system, lists in wanted.lists.items():
        np.testing.assert_array_equal(found.lists[system].codes, lists.codes)
        np.testing.assert_array_equal(found.lists[system].scores, lists.scores)
        assert found.lists[system].fallbacks == lists.fallbacks
        for metric, values in wanted.per_user[system].items():
            np.testing.assert_array_equal(found.per_user[system][metric], values)


def test_a_bundle_without_a_member_shares_no_kept_list_with_the_whole_one() -> None:
    whole = bundle()
    assert whole.content is None
    whole.manifest["files"] = {"features/users.json": "1", "source.tar.gz": "1"}
    less, older = whole.without("poor"), bundle()
    older.manifest["files"] = {"features/users.json": "1", "source.tar.gz": "2"}
    assert len({whole.content, less.content}) == 2
    assert whole.content == older.content
    older.manifest["files"] = {"features/users.json": "2"}
    assert whole.content != older.content


def test_only_users_with_the_target_before_and_after_the_instant_are_judged() -> None:
    assert judged().audience.users == ("ann", "bob")


def test_items_that_no_list_can_show_still_count_in_the_ideal() -> None:
    result = judged()
    assert result.audience.relevant[0].tolist() == [0, 2, -1]
    assert result.audience.n_relevant.tolist() == [3, 1]
    # ann is shown a b c d e and buys a, c, z: (1 + 1/2) / (1 + 0.630930 + 1/2)
    assert result.per_user[FUSED]["ndcg@10"] == pytest.approx([1.5 / 2.130930, 0.630930], abs=1e-6)
    assert result.per_user[FUSED]["recall@20"].tolist() == [pytest.approx(2 / 3), 1.0]


def test_on_recommend_new_bought_items_are_neither_shown_nor_counted() -> None:
    result = judged(Surface.RECOMMEND_NEW)
    assert result.lists[FUSED].codes[:, :5].tolist() == [[2, 3, 4, -1, -1], [1, 2, 3, 4, -1]]
    assert result.audience.n_relevant.tolist() == [2, 1]
    assert result.per_user[FUSED]["ndcg@10"] == pytest.approx([1 / 1.630930, 1.0], abs=1e-6)


def test_users_whose_window_holds_nothing_new_are_left_out_of_recommend_new() -> None:
    again = Targets(("ann", "bob"), (("a",), ("b",)), (np.zeros(1), np.zeros(1)))
    group = targets.audience(features(), again, Surface.RECOMMEND_NEW, max_users=10, seed=0)
    assert group.users == ("bob",)


def test_the_fused_list_is_what_the_bundle_answers() -> None:
    result = judged()
    ranking = bundle().rank(protocol.requests_of(result.audience)[0], bundle().history(user_id="ann"))
    assert [item.code for item in ranking.items] == result.lists[FUSED].codes[0, : len(ranking.items)].tolist()


def test_a_member_is_judged_by_its_own_list_which_may_be_short_and_never_shows_what_cannot_be_bought() -> None:
    result = judged()
    assert result.lists["poor"].codes[0, :6].tolist() == [4, 3, 2, 1, 0, -1]
    assert result.lists["short"].codes[0, :2].tolist() == [0, -1]
    assert np.isnan(result.lists["short"].scores[0, 1])


def test_systems_without_a_list_say_why() -> None:
    assert judged().not_applicable == {"absent": "the data have no text vectors"}
    reasons = judged(Surface.RECOMMEND_NEW).not_applicable
    assert reasons["short"] == "has no candidate for anybody on recommend_new"


def test_the_summary_has_the_contracts_shape() -> None:
    summary = protocol.summarise(judged(), **HOW)
    assert set(summary) == {FUSED, "good", "poor", "short", "absent"}
    assert set(summary["absent"]) == {"not_applicable"}
    assert set(summary[FUSED]) == {
        "ndcg@10", "recall@20", "mrr@10", "hit_rate@10", "map@10", "precision@10",
        "coverage@10", "diversity@10", "novelty@10", "gini@10",
    }  # fmt: skip
    assert set(summary[FUSED]["ndcg@10"]) == {"mean", "ci_low", "ci_high", "n"}
    assert summary[FUSED]["coverage@10"]["mean"] == pytest.approx(5 / 6, abs=1e-6)
    assert summary["short"]["diversity@10"] == {"not_applicable": "no list has two items with text"}


def test_a_surface_without_users_says_so() -> None:
    nobody = targets.audience(features(), Targets((), (), ()), Surface.RECOMMEND, max_users=1, seed=0)
    found = protocol.summarise(protocol.evaluate_surface(bundle(), nobody), **HOW)
    assert found == {"not_applicable": "nobody known before the holdout has a target in it"}


def test_a_sample_of_users_is_the_same_for_the_same_seed_and_keeps_their_order() -> None:
    names = [f"u{place}" for place in range(100)]
    one = targets.sample(names, 10, seed=1)
    assert one == targets.sample(names, 10, seed=1)
    assert one == sorted(one)
    assert one != targets.sample(names, 10, seed=2)
    assert targets.sample(["b", "a"], 5, seed=1) == [0, 1]


def test_a_user_more_changes_a_sample_by_one_at_most() -> None:
    names = [f"u{place}" for place in range(100)]
    before = {names[row] for row in targets.sample(names, 10, seed=1)}
    more = ["new", *names]
    assert len(before & {more[row] for row in targets.sample(more, 10, seed=1)}) >= 9


def test_the_best_single_member_is_named_per_metric_and_compared_user_by_user() -> None:
    found = comparisons.compare(judged(), **HOW)
    assert found["best_single"] == "good"
    assert found["ndcg@10"] == {"best_single": "good", "mean_difference": 0.0, "ci_low": 0.0, "ci_high": 0.0, "n": 2}
    assert found["members"]["poor"]["ndcg@10"]["mean_difference"] > 0


def test_slices_of_users_keep_all_that_is_relevant_and_slices_of_items_only_their_own() -> None:
    found = {(part.slicing, part.name): part for part in slices.slices(judged(), features())}
    assert found["history_length", "1"].users == ("bob",)
    assert found["history_length", "2-5"].users == ("ann",)
    assert found["recent_activity", "last 28 days"].users == ("ann",)
    new = found["item_age", "new in 28 days"]
    assert new.users == ("ann",)
    # only c is new; it stands third of a b c d e: 1 / log2(4)
    assert new.per_user[FUSED][0, 0] == pytest.approx(0.5)
    assert ("history_length", "21+") not in found


def test_head_mid_and_tail_are_thirds_of_all_purchases() -> None:
    state = features()
    state = replace(state, items=state.items | {"bought": np.array([40, 20, 10, 20, 10, 0], np.float32)})
    thirds = {name: np.flatnonzero(items).tolist() for slicing, name, items in slices.item_slices(state)}
    assert (thirds["head"], thirds["mid"], thirds["tail"]) == ([0], [1, 3], [2, 4, 5])


def test_the_summary_of_a_slice_has_an_interval_per_system() -> None:
    summary = slices.summarise(list(slices.slices(judged(), features())), **HOW)
    part = summary["history_length"]["1"]
    assert part["users"] == 1
    assert set(part["systems"]) == {FUSED, "good", "poor", "short"}
    assert part["systems"]["good"]["hit_rate@10"] == {"mean": 1.0, "ci_low": 1.0, "ci_high": 1.0, "n": 1}


def test_the_ledger_says_what_is_lost_without_a_member() -> None:
    found = ledger.ledger(bundle(), judged(), **HOW)
    assert found["poor"]["ndcg@10"]["mean_difference"] == 0.0
    assert found["poor"]["changed"] == 0.0
    # without good the list is what sells now, e d c b a: ann gets (1/log2(4) + 1/log2(6)) / 2.130930 instead of
    # 1.5 / 2.130930, bob 1/log2(5) instead of 1/log2(3): a mean loss of (0.287737 + 0.200253) / 2
    assert found["good"]["ndcg@10"]["mean_difference"] == pytest.approx(0.243995, abs=1e-6)
    assert found["good"]["changed"] == 0.0  # the same five items in another order


def test_costs_are_medians_of_a_clock() -> None:
    ticks = iter(np.arange(0, 1000, 0.002).tolist())
    found = ledger.costs(bundle(), [judged().audience], clock=lambda: next(ticks))
    assert found["members"]["good"] == {"milliseconds": 2.0}
    assert found["surfaces"] == {"recommend": {"p50_milliseconds": 2.0, "p95_milliseconds": 2.0}}


def test_overlap_ignores_order_and_rank_biased_overlap_does_not() -> None:
    one, other = np.array([[0, 1], [0, 1], [0, -1]]), np.array([[1, 0], [0, 1], [0, -1]])
    assert ledger.overlap(one, other).tolist() == [1.0, 1.0, 1.0]
    # first places differ, both places agree: 1 * 0.81 + 0.1/0.9 * (0 * 0.9 + 1 * 0.81)
    assert stability.rank_biased_overlap(one, other) == pytest.approx([0.9, 1.0, 1.0])
    assert ledger.overlap(np.array([[0, 1, 2]]), np.array([[3, 0, 4]])) == pytest.approx([1 / 3])


def test_weeks_count_the_targets_of_that_week_alone() -> None:
    result = judged()
    weeks = list(stability.weekly(result.audience, result.lists[FUSED], JUDGED, n_items=6))
    assert [(week["start"], week["days"]) for week in weeks] == [("2024-03-01", 7.0), ("2024-03-08", 3.0)]
    # week 1: ann bought a and z, bob b; week 2: ann bought c, shown third
    assert weeks[0]["ndcg@10"]["n"] == 2
    assert weeks[1]["ndcg@10"] == {"mean": 0.5, "sd": None, "n": 1}


def test_stability_compares_neighbouring_instants_by_item_and_not_by_code() -> None:
    window = Instant("window_1", T2 - timedelta(days=28), T2)
    served = Instant("served", JUDGED.until, JUDGED.until)
    bundles = {
        "window_1": bundle(features("bcdef".replace("b", "ab"))),
        "judged": bundle(),
        "served": bundle(features("Aabcdef", time=JUDGED.until)),  # one more item shifts every code
    }
    found = stability.stability(
        Instants((window,), JUDGED, served), bundles.__getitem__, {"recommend": judged()}, {"window_1": HOLDOUT}, seed=0
    )
    first, second = found["steps"]
    assert (first["from"], first["to"], first["days"]) == ("window_1", "judged", 28)
    assert first["overlap@10"] == {"mean": 1.0, "sd": 0.0, "n": 3}
    # judged shows a b c d e, served A a b c d e: five of six
    assert (second["days"], second["overlap@10"]["mean"]) == (10, pytest.approx(5 / 6, abs=1e-6))
    assert {week["instant"] for week in found["weeks"]} == {"window_1", "judged"}


def test_targets_are_read_per_instant_and_user(tmp_path: Path) -> None:
    rows = [
        {"instant": "window_1", "history_id": "u", "item_id": "b", "first_time": T2},
        {"instant": "window_1", "history_id": "u", "item_id": "a", "first_time": T2 + timedelta(days=1)},
        {"instant": "window_1", "history_id": "t", "item_id": "a", "first_time": T2},
        {"instant": "judged", "history_id": "u", "item_id": "c", "first_time": T2},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "targets.parquet")
    found = targets.read(tmp_path / "targets.parquet")
    assert found["window_1"].users == ("t", "u")
    assert found["window_1"].items == (("a",), ("a", "b"))
    assert (found["window_1"].days[1] - T2.timestamp() / 86_400).tolist() == [1.0, 0.0]
    assert found["judged"].n_pairs == 1


def test_targets_that_are_missing_or_lack_a_column_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"holdout\.parquet does not exist"):
        targets.read(tmp_path / "holdout.parquet")
    pq.write_table(pa.table({"instant": ["x"]}), tmp_path / "holdout.parquet")
    with pytest.raises(ArtifactError, match="lacks the column history_id"):
        targets.read(tmp_path / "holdout.parquet")


def test_an_audience_cut_to_some_users_keeps_what_belongs_to_them() -> None:
    whole: Audience = judged().audience
    assert whole.at([1]).relevant[0].tolist() == whole.relevant[1].tolist()
    assert whole.at([]).users == ()


def measured() -> evaluator.Evaluation:
    """The world's whole evaluation, without what needs artifacts of several instants."""
    about = {"seed": 7, "data": {"adapter": "shop", "path": "x"}, "models": {}, "evaluation": {"bootstrap_draws": 100}}
    audiences = {surface: judged(surface).audience for surface in (Surface.RECOMMEND, Surface.RECOMMEND_NEW)}
    results, reasons = evaluator.surfaces(bundle(), audiences)
    found = evaluator.measure(bundle(), results, parse(about))
    documents = {name: evaluator.reasoned(values, reasons) for name, values in found.items()}
    documents |= {"costs": {}, "stability": {"steps": [], "weeks": []}, "summary": {}}
    return evaluator.Evaluation(documents, tables.per_user(results), tables.rankings(results, features().item_ids))


def test_every_surface_of_the_contract_is_there_or_says_why_not() -> None:
    metrics = measured().documents["metrics"]
    assert list(metrics) == ["recommend", "recommend_new", "search"]
    assert metrics["search"] == {"not_applicable": "no search members"}
    assert metrics["recommend_new"]["short"] == {"not_applicable": "has no candidate for anybody on recommend_new"}


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    for run in ("one", "two"):
        evaluator.save(measured(), tmp_path / run)
    names = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert {str(name) for name in names} >= {"metrics.json", "report.html", "per_user.parquet", "rankings.parquet"}
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in names)


def test_tables_hold_a_row_per_user_and_per_place() -> None:
    evaluation = measured()
    rows = evaluation.per_user.to_pylist()
    assert len(rows) == 2 * 4 + 2 * 3  # two users on both surfaces; short has no list on recommend_new
    assert rows[0]["history_id"] == "ann"
    assert (rows[0]["n_relevant"], rows[0]["history_length"]) == (3, 2)
    places = [row for row in evaluation.rankings.to_pylist() if (row["system"], row["history_id"]) == ("poor", "ann")]
    assert [(row["rank"], row["item_id"]) for row in places[:5]] == list(enumerate("edcba", 1))


def test_without_a_holdout_every_surface_says_so_and_every_file_is_written(tmp_path: Path) -> None:
    evaluator.save(evaluator.nothing(dict.fromkeys(Surface, evaluator.NO_HOLDOUT)), tmp_path / "evaluation")
    written = {path.name for path in (tmp_path / "evaluation").iterdir()}
    assert written == {
        "metrics.json", "comparisons.json", "slices.json", "ledger.json", "stability.json", "costs.json",
        "summary.json", "per_user.parquet", "rankings.parquet", "report.html", "plots",
    }  # fmt: skip
    assert pq.read_table(tmp_path / "evaluation" / "rankings.parquet").num_rows == 0
