"""The encoder of queries is tuned on labels that its queries do not judge, and kept only where it is better."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.adapters import tuner
from pipelines.adapters.tuner import Version, Work
from pipelines.features.state import FeatureState
from pipelines.meaning import ItemTexts
from pipelines.model_api import Context
from pipelines.models import tuned_text
from pipelines.search.encoding import NetworkEncoder
from pipelines.search.labels import FOLDS, fold_of
from pipelines.search.query import Query
from pipelines.stages import tune as stage
from pipelines.storage import read_json
from pipelines.tuning import saved
from pipelines.tuning.examples import candidates, padded, pool, wordings
from pipelines.workspace import JUDGED, SERVED, Workspace
from tests.conformance import encoders
from tests.stages import pipeline, shops

WIDTH = 16
KINDS, SORTS = 6, 8
ASKED = [f"ask{k}" for k in "abcdefghijkl"[:KINDS]]
MADE = [f"thing{k}" for k in "abcdefghijkl"[:KINDS]]
SORT = [f"sort{k}" for k in "abcdefghijkl"[:SORTS]]
UNTIL_FEATURES = ("snapshot", "ingest", "split", "encode", "encode_queries", "features", "features --served")


def contrary_shop(root: Path) -> None:
    """Products are called `thingX sortY`; who asks `askX sortY` wants every thing of the next kind, whatever the sort.

    Words lead astray: a query shares its sort with products, never the kind. Nothing in a drawn network knows what an
    ask means; it is the same for every sort, so that other queries tell it.
    """
    rows = [{"item_id": f"{k}{s}", "title": f"{MADE[k]} {SORT[s]}"} for k in range(KINDS) for s in range(SORTS)]
    wanted = [
        {"query": f"{ASKED[k]} {SORT[s]}", "item_id": f"{(k + 1) % KINDS}{other}", "gain": 1.0}
        for k in range(KINDS)
        for s in range(SORTS)
        for other in range(SORTS)
    ]
    shops.write_csv(root / "shop" / "catalog" / "all.csv", rows)
    shops.write_csv(root / "shop" / "judgments" / "all.csv", wanted)


def settings(root: Path, **tuning: Any) -> Path:
    source = encoders.tiny_bert(root / "bert", [*ASKED, *MADE, *SORT], width=WIDTH)
    known = {"enabled": True, "rank": 4, "learning_rate": 0.03, "epochs": 30, "steps": 5, "batch_size": 16}
    text = {"encoder": str(source), "max_tokens": encoders.LENGTH, "tuning": known | tuning}
    models = {name: {"kind": name} for name in ("bm25", "text", "tuned_text")}
    return pipeline.write_params(root, text=text, models=models)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shop up to its features."""
    root = tmp_path_factory.mktemp("shop")
    contrary_shop(root)
    settings(root)
    with pytest.MonkeyPatch.context() as patch:
        pipeline.run(root, patch, stages=UNTIL_FEATURES)
    return root


def tuned(root: Path, patch: pytest.MonkeyPatch, *, stages: tuple[str, ...] = ("tune",)) -> Workspace:
    return Workspace(pipeline.run(root, patch, stages=stages))


def pretending(learned: Callable[[Work], dict[str, np.ndarray]], seen: list[Work]) -> Callable[[Work, Path], Any]:
    """Instead of a child process: every version has these additions, and the vectors that the graph gives with them."""

    def fake(work: Work, scratch: Path) -> dict[str, Version]:
        from pipelines.adapters import onnx_export

        seen.append(work)
        additions = learned(work)
        folder = onnx_export.write_exact(
            work.source, scratch / str(len(seen)), max_tokens=work.max_tokens, additions=additions
        )
        encoder = NetworkEncoder(folder, additions)
        vectors = np.stack([encoder.encode(text) for text in work.asked])
        return dict.fromkeys(work.names(), Version(additions["down"], additions["up"], vectors))

    return fake


def nothing(work: Work) -> dict[str, np.ndarray]:
    return {name: 0 * values for name, values in encoders.drawn_additions(WIDTH, seed=0).items()}


def drawn(work: Work) -> dict[str, np.ndarray]:
    return encoders.drawn_additions(WIDTH, seed=1)


@pytest.mark.slow
def test_labels_that_contradict_the_network_are_learned_and_hold_for_queries_that_nobody_labelled(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tuned(prepared, monkeypatch, stages=("tune", "tune --served", "train"))
    report = read_json(work.root / "tuned" / "report.json")
    assert report["reason"] is None
    assert report["ndcg@10"]["untuned"] < 0.3
    assert report["ndcg@10"]["alone"] > 0.5
    assert report["ndcg@10"]["beside"] > report["ndcg@10"]["words and untuned"] + 0.1
    assert read_json(work.member_status("tuned_text"))["applicable"]
    assert not (prepared / "var" / "tuning").exists()
    assert sorted(saved.read(work.tuned(JUDGED))) == ["0", "1", "2", "3", "4", "all"]
    assert sorted(saved.read(work.tuned(SERVED))) == ["all"]


def test_no_version_learns_a_label_of_the_queries_that_it_judges(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Work] = []
    monkeypatch.setattr(tuner, "tune", pretending(drawn, seen))
    tuned(prepared, monkeypatch)
    lessons = {one.name: {query.text for query in one.queries} for one in seen[0].lessons}
    every = {f"{asked} {sort}" for asked in ASKED for sort in SORT}
    assert lessons[f"{JUDGED}-all"] == every
    for fold in range(FOLDS):
        assert lessons[f"{JUDGED}-{fold}"] == {query for query in every if fold_of(query) != fold}


def test_what_is_not_better_is_not_applicable_and_says_how_much_it_lacks(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuner, "tune", pretending(nothing, []))
    work = tuned(prepared, monkeypatch, stages=("tune", "tune --served"))
    for instant in (JUDGED, SERVED):
        reason = saved.reason(work.tuned(instant))
        assert reason is not None
        assert reason.startswith("not better beside words and untuned text on 48 labelled queries: ")
        assert [path.name for path in work.tuned(instant).iterdir()] == ["about.json"]
    assert tuned_text.KIND.not_applicable(FeatureState.load(work.features(JUDGED), tuned=work.tuned(JUDGED))) == reason


def test_a_killed_stage_leaves_what_was_there_before(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuner, "tune", pretending(nothing, []))
    work = tuned(prepared, monkeypatch)
    before = {path: path.read_bytes() for path in (work.root / "tuned").rglob("*") if path.is_file()}

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tuner, "tune", killed)
    with pytest.raises(KeyboardInterrupt):
        tuned(prepared, monkeypatch)
    assert {path: path.read_bytes() for path in (work.root / "tuned").rglob("*") if path.is_file()} == before
    assert not list(work.root.glob(".tuned*"))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"enabled": False}, "text.tuning.enabled is false"),
        ({"min_queries": 49}, "48 labelled queries, fewer than 49 prove nothing"),
    ],
)
def test_what_cannot_be_tuned_says_why_and_costs_nothing(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], reason: str
) -> None:
    before = (prepared / "params.yaml").read_text()
    settings(prepared, **changes)
    monkeypatch.setattr(tuner, "tune", lambda *_: pytest.fail("something was tuned"))
    work = tuned(prepared, monkeypatch, stages=("tune", "tune --served"))
    assert saved.reason(work.tuned(JUDGED)) == saved.reason(work.tuned(SERVED)) == reason
    (prepared / "params.yaml").write_text(before)


def clicks_file(folder: Path, rows: list[tuple[str, str, str]]) -> None:
    """``split/searches.parquet`` of (instant, query, item)."""
    from datetime import UTC, datetime

    import pyarrow as pa
    import pyarrow.parquet as pq

    from pipelines.contracts import SEARCHES

    time = datetime(2021, 1, 1, tzinfo=UTC)
    found = [{"instant": a, "query": q, "item_id": i, "gain": 0.3, "first_time": time} for a, q, i in rows]
    pq.write_table(pa.Table.from_pylist(found, schema=SEARCHES.schema), folder)


def test_an_instant_knows_the_choices_before_it_and_none_after(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pipelines.contracts import JUDGMENTS
    from pipelines.tuning.labels import every_label, labels_before

    work = Workspace(tmp_path)
    work.history.mkdir(parents=True)
    names = ["w1", "w2", JUDGED]
    times = {name: f"2021-0{month}-01T00:00:00+00:00" for month, name in enumerate(names, 1)}
    (work.history / "about.json").write_text(json.dumps({"instants": times}))
    clicks_file(work.split / "searches.parquet", [("w1", "lamp", "a"), ("w2", "lamp", "b"), ("w2", "mug", "c")])
    clicks_file(work.split / "searches_holdout.parquet", [(JUDGED, "vase", "d")])
    judged = [{"query": "mug", "item_id": "e", "gain": 1.0}]
    pq.write_table(pa.Table.from_pylist(judged, schema=JUDGMENTS.schema), work.split / "judgments.parquet")
    before = labels_before(work, names)
    known = {name: {one.query: dict(one.gains) for one in found} for name, found in before.items()}
    assert known == {
        "w1": {},
        "w2": {"lamp": {"a": 0.3}},
        JUDGED: {"mug": {"e": 1.0}, "lamp": {"a": 0.3, "b": 0.3}},
    }
    assert {one.query for one in every_label(work, before_holdout=False)} == {"mug", "lamp", "vase"}


@pytest.mark.slow
def test_a_killed_tuning_carries_on_with_the_versions_that_are_made(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Work] = []
    monkeypatch.setattr(stage.tuner, "tune", pretending(nothing, seen))
    tuned(prepared, monkeypatch)
    monkeypatch.undo()
    work = Work(**{**vars(seen[0]), "lessons": seen[0].lessons[:2]})
    whole = tuner.tune(work, tmp_path)
    (folder,) = tmp_path.iterdir()
    files = {name: folder / f"{name}.version.npz" for name in work.names()}
    last = work.names()[-1]
    files[last].unlink()
    untouched = {name: file.stat().st_mtime_ns for name, file in files.items() if name != last}
    again = tuner.tune(work, tmp_path)
    assert untouched == {name: file.stat().st_mtime_ns for name, file in files.items() if name != last}
    np.testing.assert_allclose(again[last].vectors, whole[last].vectors, atol=1e-5)
    np.testing.assert_array_equal(whole[tuner.UNTUNED].up, 0)


def test_a_part_of_the_queries_is_answered_by_its_own_version(tmp_path: Path) -> None:
    from tests.conformance import worlds

    world = worlds.with_text(worlds.two_tastes(tmp_path / "world"))
    features = encoders.with_encoders(world, tmp_path / "tuned", width=worlds.TEXT_DIM)
    assert features.text is not None
    versions = saved.read(tmp_path / "tuned" / "tuned")
    folder = tmp_path / "tuned" / "tuned" / "encoder"
    texts = ItemTexts.of(np.asarray(features.text))
    fitted = tuned_text.TunedText(texts, folder, versions, tuned_text.TunedTextConfig())
    context = Context(features.history(-1), "search", Query("titl b3", ("titl", "b3")))
    for fold, name in ((0, "0"), (1, saved.ALL)):
        wanted = texts.vectors.products(NetworkEncoder(folder, versions[name]).encode("titl b3"))
        np.testing.assert_array_equal(fitted.judging(fold).score_all(context), wanted)


def test_queries_of_a_title_are_some_of_its_words_in_their_order() -> None:
    titles = ["one two three four five six", "short", None]
    found = wordings(titles, np.arange(3), seed=1)
    assert found.items.tolist() == [0, 0]
    for text in found.texts:
        places = [titles[0].split().index(word) for word in text.split()]  # type: ignore[union-attr]
        assert places == sorted(places)
        assert 2 <= len(places) <= 5


def test_what_nobody_labelled_is_a_negative_and_shares_add_up_to_one() -> None:
    one = candidates("q", {7: 1.0, 2: 0.0, 4: 3.0}, [np.array([9, 7]), np.array([2, 1])])
    assert one.codes.tolist() == [2, 4, 7, 1, 9]
    other = candidates("r", {1: 2.0}, [np.array([1])])
    places, shares = padded([one, other], np.arange(10) * 2)
    assert places.tolist() == [[4, 8, 14, 2, 18], [2, -1, -1, -1, -1]]
    assert shares.tolist() == [[0, 0.75, 0.25, 0, 0], [1, 0, 0, 0, 0]]


def test_of_a_long_catalogue_all_candidates_and_a_draw_of_the_rest_are_learned_with() -> None:
    query = candidates("q", {70: 1.0}, [np.array([90])])
    kept = pool(100, [query], most=10, seed=1)
    assert len(set(kept.tolist())) == 10
    assert {70, 90} <= set(kept.tolist())
    assert pool(5, [query], most=10, seed=1).tolist() == [0, 1, 2, 3, 4]


def test_a_shop_that_nobody_judged_learns_from_its_searches_each_instant_from_those_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shops.write_csv(tmp_path / "shop" / "catalog" / "all.csv", shops.catalogue(60))
    log = [row | {"search_query": f"what is {int(row['item_id'])}"} for row in shops.events(60)]
    shops.write_csv(tmp_path / "shop" / "events" / "all.csv", log)
    settings(tmp_path)
    seen: list[Work] = []
    monkeypatch.setattr(tuner, "tune", pretending(drawn, seen))
    monkeypatch.setattr(stage.Tuning, "compared", lambda *_: {"reason": None})
    work = tuned(tmp_path, monkeypatch, stages=(*UNTIL_FEATURES, "tune", "tune --served", "train", "refresh"))
    times = read_json(work.history / "about.json")["instants"]
    instants = sorted(times, key=times.__getitem__)
    asked = {one.name: {query.text for query in one.queries} for one in seen[0].lessons}
    assert f"{instants[0]}-all" not in asked  # no choice came before the first window
    known = [asked[f"{name}-all"] for name in instants[1:]]
    assert all(earlier <= later for earlier, later in pairwise(known))
    assert known[-1] < {query.text for query in seen[1].lessons[0].queries} or len(known[-1]) == 60
    for name in instants:
        folds = [str(fold) for fold in range(FOLDS)] if name == JUDGED else []
        assert sorted(saved.read(work.tuned(name))) == sorted([*folds, "all"])
        assert work.member("tuned_text", name).exists()
    assert work.member("tuned_text", SERVED).exists()
