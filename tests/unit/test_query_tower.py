"""The query tower: what it is taught, both forwards, and what it learns from choices, judgments and histories."""

from __future__ import annotations

import os
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # before the first import of TensorFlow in the process

from pipelines.adapters import onnx_export
from pipelines.contracts import JUDGMENTS
from pipelines.features import history
from pipelines.features.state import FeatureState, UserHistory
from pipelines.learners.query_tower_examples import MOST_OF_ONE, HardNegatives, searches
from pipelines.learners.two_tower_examples import Bags
from pipelines.model_api import Context, TrainingData
from pipelines.models.query_tower import KIND, QueryTower, QueryTowerConfig, fit
from pipelines.search.encoding import ENCODER, NetworkEncoder
from pipelines.search.labels import fold_of
from pipelines.search.query import Query
from tests.conformance import encoders, worlds

VIEW = "detail-page-view"
WIDTH = 16
SLANG = {"brollies": "umbrella", "trainers": "shoe", "tea set": "pot"}
"""What people type, and the word of the items that they then choose: no letter says so."""
COLOURS = ("red", "blue")
SMALL = QueryTowerConfig(
    dimension=16,
    text_dimensions=16,
    batch_size=128,
    epochs=10,
    learning_rate=0.02,
    history_dropout=0.0,
    least_judged=10,
    judged_steps=100,
    judged_rate=0.1,
)


def products() -> list[dict[str, object]]:
    titles = [f"{colour} {thing} {n}" for thing in SLANG.values() for colour in COLOURS for n in range(4)]
    return [worlds.product(f"i{place:02d}", title=title) for place, title in enumerate(titles)]


def thing(product: dict[str, object]) -> str:
    return str(product["title"]).split()[1]


def shop(folder: Path, rows: Sequence[dict[str, object]]) -> FeatureState:
    """The world with a text encoder that knows the words of the titles, and no slang."""
    state = worlds.state(worlds.write(folder / "tables", rows, products()))
    words = [*COLOURS, *SLANG.values(), *(str(n) for n in range(4)), *"abcdefgh", "brollies", "trainers", "tea", "set"]
    source = encoders.tiny_bert(folder / "source", words, width=WIDTH)
    encoder = onnx_export.write_exact(source, folder / ENCODER, max_tokens=encoders.LENGTH)
    titles = [str(one["title"]) for one in products()]
    text = np.stack([NetworkEncoder(encoder).encode(title) for title in titles]).astype(np.float16)
    return replace(state, text=text, encoder=encoder)


def choices(*, people: int = 60) -> list[dict[str, object]]:
    """People search in slang and choose what it means, each in the own colour, of which they bought before."""
    rng, every = np.random.default_rng(1), products()
    rows = []
    for person in range(people):
        colour = COLOURS[person % 2]
        own = [one for one in every if str(one["title"]).startswith(colour)]
        bought = [str(one["item_id"]) for one in rng.permutation(own)[:3]]
        rows += [worlds.row(f"u{person:02d}", item, 30.0 + n) for n, item in enumerate(bought)]
        for n, (typed, meant) in enumerate(SLANG.items()):
            wanted = rng.choice([str(one["item_id"]) for one in own if thing(one) == meant])
            rows.append(worlds.row(f"u{person:02d}", str(wanted), 1.0 + n, kind=VIEW, query=typed))
    return rows


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> FeatureState:
    return shop(tmp_path_factory.mktemp("slang"), choices())


@pytest.fixture(scope="module")
def fitted(world: FeatureState) -> QueryTower:
    return fit(SMALL, TrainingData(world), seed=1)


def asked(features: FeatureState, text: str, who: UserHistory | None = None) -> Context:
    assert features.encoder is not None
    vector = NetworkEncoder(features.encoder).encode(text)
    return Context(UserHistory.empty() if who is None else who, "search", Query(text, tuple(text.split()), vector))


def first(model: QueryTower, context: Context, n: int) -> list[str]:
    titles = [str(one["title"]) for one in products()]
    return [titles[code] for code in model.candidates(context, n).codes.tolist()]


def test_a_word_of_no_title_finds_what_people_chose_after_it(world: FeatureState, fitted: QueryTower) -> None:
    for typed, meant in SLANG.items():
        assert {title.split()[1] for title in first(fitted, asked(world, typed), 8)} == {meant}


def test_a_known_persons_results_are_their_own(world: FeatureState, fitted: QueryTower) -> None:
    own = []
    for person in range(20):
        who = world.history(world.user_ids.code(f"u{person:02d}"))
        titles = first(fitted, asked(world, "trainers", who), 4)
        own += [title.split()[0] == COLOURS[person % 2] for title in titles]
    assert np.mean(own) > 0.8


def test_without_a_query_there_is_no_opinion_and_without_a_history_there_is(
    world: FeatureState, fitted: QueryTower
) -> None:
    assert np.isnan(fitted.score_all(Context(world.history(0), "recommend"))).all()
    assert np.isfinite(fitted.score_all(asked(world, "trainers"))).all()


def test_the_numpy_forward_equals_the_tensorflow_forward(world: FeatureState, fitted: QueryTower) -> None:
    import tensorflow as tf

    from pipelines.learners import query_tower_tfrs, two_tower_fit
    from pipelines.learners.two_tower_batches import make_batch

    who = world.history(0)
    weights = who.aggregates["strength_decay90"]
    bags = Bags(np.array([0, len(who)]), who.items, weights)
    wanted = np.array([2, 9])
    batch = make_batch(
        bags, np.zeros((1, 0), np.int64), np.zeros(2, np.int64), wanted,
        log_probability=np.zeros(world.n_items, np.float32), dropout=0.0, rng=np.random.default_rng(0),
    )  # fmt: skip
    names = ("ids", "bias", "inputs", "user", "user_bias", "query", "query_bias", "personal", "popularity")
    start = {name: fitted.arrays[name] for name in names}
    for name in ("query", "query_bias"):
        start[name] = start[name] / query_tower_tfrs.SHARPNESS
    frozen = two_tower_fit.frozen_inputs(SMALL, world, None)
    model = query_tower_tfrs.QueryTower(start, frozen.text, frozen.price)
    context = asked(world, "tea set", who)
    assert context.query is not None
    tensors = {name: tf.constant(value) for name, value in vars(batch).items()}
    tensors["queries"] = tf.constant(np.asarray(context.query.vector)[None])
    vectors, items, bias = model.search_towers(tensors, model.rows(tensors["ids"]))
    scores = (vectors @ tf.transpose(items) + bias).numpy()[0]
    np.testing.assert_allclose(scores, fitted.score(context, wanted), atol=1e-4)


def test_one_person_counts_once_for_a_query_and_an_item_and_no_more_than_so_much_in_all(tmp_path: Path) -> None:
    rows = [worlds.row("spammer", "i00", 1.0, f"s{n}", VIEW, query="trainers") for n in range(300)]
    rows += [worlds.row("spammer", "i01", 1.0 + n / 1000, f"t{n}", query=f"trainers {n}") for n in range(100)]
    rows += [worlds.row("u1", "i02", 1.0, kind=VIEW, query=" TRAINERS ")]
    found = searches(SMALL, shop(tmp_path, rows))
    of = {name: found.weight[found.query[found.pair] == place] for place, name in enumerate(found.queries)}
    assert len(found.item) == 102
    assert len(of["trainers"]) == 2
    assert found.weight.sum() == pytest.approx(MOST_OF_ONE + np.sqrt(0.1) * np.exp(-1 / 90), rel=1e-3)


def test_a_search_knows_what_its_history_held_before_it_and_a_stranger_has_none(tmp_path: Path) -> None:
    rows = [
        worlds.row("u1", "i00", 9.0),
        worlds.row("u1", "i05", 3.0, kind=VIEW, query="trainers"),
        worlds.row("u1", "i06", 1.0),
        worlds.row(None, "i07", 2.0, "stranger", VIEW, query="brollies"),
    ]
    found = searches(SMALL, shop(tmp_path, rows))
    bag = {found.queries[found.query[pair]]: found.bags.take(np.array([pair])) for pair in range(2)}
    assert bag["trainers"].items.tolist() == [0]
    assert bag["trainers"].weights[0] == pytest.approx(np.exp(-6 / 90), rel=1e-5)
    assert bag["brollies"].items.tolist() == []


def test_of_too_many_queries_the_rarest_go(tmp_path: Path) -> None:
    rows = [worlds.row(f"u{n}", "i00", 1.0, kind=VIEW, query="trainers") for n in range(3)]
    rows.append(worlds.row("u9", "i01", 1.0, kind=VIEW, query="brollies"))
    found = searches(SMALL.model_copy(update={"max_queries": 1}), shop(tmp_path, rows))
    assert found.queries == ["trainers"]
    assert len(found.item) == 3


def test_hard_negatives_are_drawn_as_often_as_is_expected_of_them() -> None:
    negatives = HardNegatives(np.array([0, 2, 2, 5]), np.array([1, 2, 2, 3, 4]))
    weight = np.array([1.0, 2.0, 1.0])
    rng = np.random.default_rng(0)
    query = rng.choice(3, 40_000, p=weight / weight.sum())
    drawn = np.bincount(negatives.draw(query, 2, rng), minlength=6) / len(query)
    np.testing.assert_allclose(drawn, negatives.expected(weight, 2, 6), atol=0.02)


def judged(folder: Path, gains: dict[tuple[str, str], float]) -> Path:
    rows = [{"query": query, "item_id": item, "gain": gain} for (query, item), gain in gains.items()]
    pq.write_table(pa.Table.from_pylist(rows, schema=JUDGMENTS.schema), folder / "judgments.parquet")
    return folder / "judgments.parquet"


LETTERS = "abcdefgh"
MEANT = {letter: ("umbrella", "shoe", "pot")[place % 3] for place, letter in enumerate(LETTERS)}


def by_letters() -> dict[tuple[str, str], float]:
    """Letters that nobody searched for stand for things, alone and in pairs: what one query teaches, others need."""
    queries = {f"{one} {other}": MEANT[one] for one in LETTERS for other in LETTERS if MEANT[one] == MEANT[other]}
    every = [(str(one["item_id"]), thing(one)) for one in products()]
    return {(query, item): 1.0 for query, meant in queries.items() for item, what in every if what == meant}


def test_judgments_teach_and_a_judged_query_is_judged_without_its_own(
    world: FeatureState, fitted: QueryTower, tmp_path: Path
) -> None:
    labels = judged(tmp_path, by_letters())
    taught, untaught = fit(SMALL, TrainingData(replace(world, judgments=labels)), seed=1), fitted
    np.testing.assert_array_equal(taught.arrays["vectors"], untaught.arrays["vectors"])
    assert taught.arrays["judged"].tolist() == [1.0]
    right = {"taught": 0, "untaught": 0}
    for query in sorted({query for query, _ in by_letters()}):
        context = asked(world, query)
        models = {"taught": taught.judging(fold_of(query)), "untaught": untaught}
        for name, model in models.items():
            found = model.candidates(context, 8).codes.tolist()
            right[name] += sum(thing(products()[code]) == MEANT[query[0]] for code in found)
    assert right["taught"] > right["untaught"]
    assert not np.array_equal(taught.judging(0).score_all(context), taught.judging(1).score_all(context))


def test_judgments_that_teach_nothing_about_other_queries_are_left_out(
    world: FeatureState, fitted: QueryTower, tmp_path: Path
) -> None:
    rng = np.random.default_rng(5)
    ids = [str(one["item_id"]) for one in products()]
    at_random = {(f"{one} {other}", str(rng.choice(ids))): 1.0 for one in LETTERS for other in LETTERS}
    model = fit(SMALL, TrainingData(replace(world, judgments=judged(tmp_path, at_random))), seed=1)
    assert model.arrays["judged"].tolist() == [0.0]
    assert model.judging(0) is model
    np.testing.assert_array_equal(model.arrays["query"], fitted.arrays["query"])


def test_a_child_does_with_judgments_as_its_parent_did(world: FeatureState, fitted: QueryTower, tmp_path: Path) -> None:
    known = replace(world, judgments=judged(tmp_path, by_letters()))
    for kept in (0.0, 1.0):
        parent = copy(fitted)
        parent.arrays = fitted.arrays | {"judged": np.array([kept], np.float32)}
        child = fit(SMALL, TrainingData(known, parent=parent, parent_features=world), seed=1)
        assert child.arrays["judged"].tolist() == [kept]


def test_a_child_starts_from_its_parent(world: FeatureState, fitted: QueryTower) -> None:
    child = fit(SMALL, TrainingData(world, parent=fitted, parent_features=world), seed=1)
    far = np.abs(child.arrays["query"] - fitted.arrays["query"]).mean()
    assert far < 0.5 * np.abs(fitted.arrays["query"]).mean()


def test_a_shop_whose_searchers_are_all_strangers_has_a_tower_too(tmp_path: Path) -> None:
    rows = [worlds.row(None, f"i{8 + n % 8:02d}", 1.0 + n / 100, f"e{n}", VIEW, query="trainers") for n in range(40)]
    world = shop(tmp_path, rows)
    model = fit(SMALL, TrainingData(world), seed=1)
    assert {title.split()[1] for title in first(model, asked(world, "trainers"), 8)} == {"shoe"}


def test_it_is_refused_without_vectors_of_queries_and_with_few_choices(world: FeatureState) -> None:
    assert KIND.not_applicable(replace(world, encoder=None)) == "queries have no vectors"
    assert KIND.not_applicable(world) == "180 choices after a search, fewer than 1000 teach no tower"
    assert KIND.not_applicable(replace(world, n_searches=1000)) is None


def test_interactions_with_queries_are_those_without_and_what_strangers_chose(world: FeatureState) -> None:
    rows, typed = history.interactions_with_queries(world)
    plain = history.interactions(world)
    assert sorted(typed) == sorted(SLANG)
    assert len(rows["item"]) == len(plain["item"])
    assert np.bincount(rows["query"] + 1).tolist() == [len(plain["item"]) - 180, 60, 60, 60]


def test_searches_of_years_ago_teach_nothing_and_a_query_is_near_the_items_of_its_meaning(tmp_path: Path) -> None:
    rows = [worlds.row(f"u{n}", f"i{n % 24:02d}", 1000.0 + n, kind=VIEW, query="trainers") for n in range(9)]
    world = shop(tmp_path, rows)
    model = fit(SMALL, TrainingData(world), seed=1)
    assert first(model, asked(world, "red shoe 1"), 1) == ["red shoe 1"]
