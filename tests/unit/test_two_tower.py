"""The two towers: what they are taught, the loss, both forwards, and what they learn."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # before the first import of TensorFlow in the process

from dataclasses import replace

from pipelines import contracts
from pipelines.features import history
from pipelines.features.state import FeatureState, UserHistory
from pipelines.learners.two_tower_examples import Bags, examples
from pipelines.model_api import Context, TrainingData
from pipelines.models.two_tower import FittedTwoTower, TwoTowerConfig, fit

NOW = datetime(2020, 3, 1, tzinfo=UTC)
DAY = 86_400
SMALL = TwoTowerConfig(
    dimension=8, text_dimensions=4, batch_size=64, epochs=20, learning_rate=0.03, validation_days=0, history_dropout=0.0
)
GROUP = 10  # items per group of the known world; item 20 is sold to nobody and reads like the first group


def known_world(folder: Path) -> FeatureState:
    """Forty users, each buying from one of two groups of ten items on three days; group = hundreds of the id."""
    rng = np.random.default_rng(3)
    rows = [
        (f"u{user:02}", f"i{user % 2}{item}", f"e{user}.{days}", NOW - timedelta(days=days))
        for user in range(40)
        for days in (40, 20, 10)
        for item in rng.permutation(GROUP)[:3]
    ]
    events = [
        {
            "history_id": user,
            "item_id": item,
            "event_id": event,
            "event_type": "purchase-complete",
            "event_time": time,
            "strength": 1.0,
            "target": 1.0,
            "event_share": 1 / 3,
            "quantity": 1.0,
            "spend": 1.0,
        }
        for user, item, event, time in rows
    ]
    ids = [f"i{group}{item}" for group in range(2) for item in range(GROUP)] + ["i2"]
    empty = dict.fromkeys(contracts.CATALOG.names)
    catalog = [empty | {"item_id": item, "title": item, "price": 2.0 if item[1] == "0" else None} for item in ids]
    users = [{"user_id": f"u{u:02}", "attributes": json.dumps({"country": "AB"[u % 3 == 0]})} for u in range(40)]
    pq.write_table(pa.Table.from_pylist(events, contracts.INTERACTIONS.schema), folder / "interactions.parquet")
    pq.write_table(pa.Table.from_pylist(catalog, contracts.CATALOG.schema), folder / "catalog.parquet")
    pq.write_table(pa.Table.from_pylist(users, contracts.USERS.schema), folder / "users.parquet")
    state = history.build(folder, NOW, target="purchase-complete", strengths={"purchase-complete": 1.0}, text=None)
    text = rng.normal(0, 0.2, (len(ids), 6))
    text[:, 0] += [1.0 if item[1] in "02" else -1.0 for item in ids]
    return replace(state, text=(text / np.linalg.norm(text, axis=1, keepdims=True)).astype(np.float16))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> FeatureState:
    """The known world."""
    return known_world(tmp_path_factory.mktemp("known_world"))


@pytest.fixture(scope="module")
def fitted(world: FeatureState) -> FittedTwoTower:
    """Fitted on the known world with seed 1."""
    return fit(SMALL, TrainingData(world), seed=1)


def context(world: FeatureState, user: int) -> Context:
    """What a request of this user is scored by."""
    return Context(world.history(user), "recommend_new")


def log_rows(*rows: tuple[int, int, int, float]) -> dict[str, np.ndarray]:
    """Rows (user, item, day, target) as ``history.interactions`` gives them."""
    user, item, day, target = (np.array(column) for column in zip(*rows, strict=True))
    return {"user": user, "item": item, "time": day * DAY, "strength": np.ones(len(rows)), "target": target}


def test_a_bag_holds_what_lies_strictly_before_its_moment_with_decayed_weights() -> None:
    rows = log_rows((0, 5, 0, 1), (0, 6, 10, 1), (0, 5, 20, 1), (0, 7, 30, 1), (0, 6, 30, 1), (1, 9, 5, 1))
    cut = examples(rows, 40 * DAY, history_items=10, history_days=90, example_days=1000)
    last = cut.bags.take(np.array([2]))  # the moment of day 30
    assert cut.age.tolist() == [30, 20, 10]
    assert dict(zip(last.items.tolist(), last.weights.tolist(), strict=True)) == pytest.approx(
        {6: np.exp(-20 / 90), 5: np.exp(-30 / 90) + np.exp(-10 / 90)}, rel=1e-6
    )


def test_a_bag_keeps_the_most_recent_distinct_items() -> None:
    rows = log_rows((0, 1, 0, 1), (0, 2, 1, 1), (0, 3, 2, 1), (0, 1, 3, 1), (0, 4, 4, 1))
    cut = examples(rows, 5 * DAY, history_items=2, history_days=90, example_days=1000)
    assert sorted(cut.bags.take(np.array([3])).items.tolist()) == [1, 3]


def test_an_example_knows_whether_the_item_is_new_to_the_user_and_only_targets_teach() -> None:
    rows = log_rows((0, 1, 0, 1), (0, 2, 1, 0), (0, 1, 2, 1), (0, 2, 2, 1), (0, 2, 3, 1))
    cut = examples(rows, 5 * DAY, history_items=9, history_days=90, example_days=1000)
    taught = {(int(cut.age[c]), int(i)): bool(n) for c, i, n in zip(cut.context, cut.item, cut.new, strict=True)}
    assert taught == {(3, 1): False, (3, 2): True, (2, 2): False}


def test_an_item_that_a_basket_lists_twice_is_one_example_and_examples_lie_by_context_and_item() -> None:
    rows = log_rows((0, 1, 0, 1), (0, 9, 2, 1), (0, 3, 2, 1), (0, 9, 2, 1), (1, 2, 0, 1), (1, 0, 3, 1), (1, 0, 3, 1))
    cut = examples(rows, 5 * DAY, history_items=9, history_days=90, example_days=1000)
    assert list(zip(cut.user[cut.context].tolist(), cut.item.tolist(), strict=True)) == [(0, 3), (0, 9), (1, 0)]


def test_examples_equal_a_plain_loop_over_a_random_log() -> None:
    rng = np.random.default_rng(0)
    n = 400
    rows = log_rows(*zip(rng.integers(0, 6, n), rng.integers(0, 12, n), rng.integers(0, 60, n), rng.integers(0, 2, n),
                         strict=True))  # fmt: skip
    cut = examples(rows, 60 * DAY, history_items=12, history_days=30, example_days=1000)
    for row in range(0, len(cut.user), 7):
        moment = 60 * DAY - cut.age[row] * DAY
        expected: dict[int, float] = {}
        for user, item, time in zip(rows["user"], rows["item"], rows["time"], strict=True):
            if user == cut.user[row] and time < moment:
                expected[int(item)] = expected.get(int(item), 0.0) + np.exp(-(moment - time) / DAY / 30)
        bag = cut.bags.take(np.array([row]))
        assert dict(zip(bag.items.tolist(), bag.weights.tolist(), strict=True)) == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_a_tiny_batch_is_the_one_computed_by_hand() -> None:
    from pipelines.learners.two_tower_tfrs import DistinctRetrieval

    # Positives A, A, B; scores u·A = 1, 2, 0 and u·B = 0, 1, 3; Q(A) = 1/2, Q(B) = 1/4, so that the
    # corrected logits are s + log 2 for A and s + log 4 for B. The other copy of A is an accidental hit for
    # the first two examples, and a second negative for the third:
    #   1: log(2e + 4) - log(2e)          2: log(2e² + 4e) - log(2e²)      3: log(2·2·e⁰ + 4e³) - log(4e³)
    query = np.array([[1, 0], [2, 1], [0, 3]], np.float32)
    loss = DistinctRetrieval()(
        query,
        np.eye(2, dtype=np.float32),
        np.array([0, 1, 2]),
        np.array([0, 0, 1]),
        np.log([2, 1]).astype(np.float32),
        np.log([1 / 2, 1 / 4]).astype(np.float32),
    )
    e = np.e
    expected = np.log(1 + 2 / e) + np.log(1 + 2 / e) + np.log(1 + e**-3)
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_the_loss_over_distinct_contexts_and_candidates_equals_that_of_tfrs_over_all_copies() -> None:
    import tensorflow_recommenders as tfrs

    from pipelines.learners.two_tower_tfrs import DistinctRetrieval

    rng = np.random.default_rng(0)
    items = rng.normal(size=(6, 5)).astype(np.float32)
    probability = rng.dirichlet(np.ones(6)).astype(np.float32)
    drawn = rng.integers(0, 6, 40)
    query = rng.normal(size=(9, 5)).astype(np.float32)
    context = rng.integers(0, 9, 40)
    expected = tfrs.tasks.Retrieval(remove_accidental_hits=True)(
        query[context],
        items[drawn],
        candidate_sampling_probability=probability[drawn],
        candidate_ids=drawn,
        compute_metrics=False,
    )
    distinct, positive, count = np.unique(drawn, return_inverse=True, return_counts=True)
    loss = DistinctRetrieval()(
        query, items[distinct], context, positive, np.log(count).astype(np.float32), np.log(probability[distinct])
    )
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_an_example_is_drawn_in_proportion_to_its_weight() -> None:
    from pipelines.learners.two_tower_batches import baskets_of

    weight = np.array([1.0, 0.25, 0.5, 0.5, 2.0])
    baskets = baskets_of(np.array([3, 3, 5, 5, 8]), weight)
    contexts, row, chosen = baskets.draw(40_000, np.random.default_rng(0))
    assert len(chosen) == pytest.approx(40_000, rel=0.02)
    np.testing.assert_allclose(np.bincount(chosen) / len(chosen), weight / weight.sum(), atol=0.01)
    assert (contexts[row] == np.array([3, 3, 5, 5, 8])[chosen]).all()


def test_the_numpy_forward_equals_the_tensorflow_forward(world: FeatureState, fitted: FittedTwoTower) -> None:
    import tensorflow as tf

    from pipelines.learners import two_tower_batches, two_tower_fit, two_tower_tfrs

    users = [0, 7, 12]
    histories = [world.history(user) for user in users]
    pointer = np.cumsum([0] + [len(h) for h in histories])
    bags = Bags(
        pointer,
        np.concatenate([h.items for h in histories]),
        np.concatenate([h.aggregates["strength_decay90"] for h in histories]),
    )
    country = np.array([[h.attributes["country"] + 1] for h in histories])
    positives = np.array([3, 11, 3])
    batch = two_tower_batches.make_batch(
        bags,
        country,
        np.arange(3),
        positives,
        log_probability=np.zeros(world.n_items, np.float32),
        dropout=0.0,
        rng=np.random.default_rng(0),
    )
    frozen = two_tower_fit.frozen_inputs(SMALL, world, None)
    learned = ("ids", "bias", "inputs", "user", "user_bias", "attribute_country")
    model = two_tower_tfrs.TwoTower({name: fitted.arrays[name] for name in learned}, frozen.text, frozen.price)
    tensors = {name: tf.constant(value) for name, value in vars(batch).items()}
    vectors, candidates, bias = model.towers(tensors, model.rows(tensors["ids"]))
    scores = (vectors @ tf.transpose(candidates) + bias).numpy()
    for row, user in enumerate(users):
        np.testing.assert_allclose(scores[row], fitted.score(context(world, user), np.array([3, 11])), atol=1e-5)


def test_users_of_a_group_are_offered_their_group(world: FeatureState, fitted: FittedTwoTower) -> None:
    for user in range(40):
        top = fitted.candidates(context(world, user), GROUP - 1).codes
        group = "02" if user % 2 == 0 else "1"
        assert np.mean([world.item_ids[int(code)][1] in group for code in top]) > 0.85


def test_an_item_that_nobody_bought_is_placed_by_its_text(world: FeatureState, fitted: FittedTwoTower) -> None:
    unsold = world.item_ids.code("i2")
    assert not fitted.arrays["ids"][unsold].any()
    first, second = (fitted.score_all(context(world, user)) for user in (0, 1))
    group_1 = [world.item_ids.code(f"i1{item}") for item in range(GROUP)]
    assert first[unsold] > first[group_1].max()
    assert second[unsold] < second[group_1].min()


def test_items_of_a_group_are_similar_and_an_item_is_not_similar_to_itself(
    world: FeatureState, fitted: FittedTwoTower
) -> None:
    similar = fitted.similar(0, 5).codes
    assert 0 not in similar
    assert all(world.item_ids[int(code)][1] in "02" for code in similar)


def test_without_history_there_is_no_opinion(fitted: FittedTwoTower) -> None:
    nobody = Context(UserHistory.empty(), "recommend")
    assert np.isnan(fitted.score_all(nobody)).all()
    assert len(fitted.candidates(nobody, 5).codes) == 0


def test_an_unknown_attribute_is_no_obstacle(world: FeatureState, fitted: FittedTwoTower) -> None:
    known = world.history(0)
    scores = fitted.score_all(Context(replace(known, attributes={}), "recommend"))
    assert np.isfinite(scores).all()


def test_scoring_few_items_equals_scoring_all(world: FeatureState, fitted: FittedTwoTower) -> None:
    codes = np.array([4, 0, 17])
    np.testing.assert_array_equal(fitted.score(context(world, 5), codes), fitted.score_all(context(world, 5))[codes])


def test_a_saved_and_loaded_model_scores_the_same_to_the_bit(
    world: FeatureState, fitted: FittedTwoTower, tmp_path: Path
) -> None:
    fitted.save(tmp_path)
    copy = FittedTwoTower.load(tmp_path)
    for user in (0, 9):
        np.testing.assert_array_equal(copy.score_all(context(world, user)), fitted.score_all(context(world, user)))


def test_a_seed_gives_the_same_bytes_and_another_seed_others(world: FeatureState, fitted: FittedTwoTower) -> None:
    again, other = (fit(SMALL, TrainingData(world), seed=seed) for seed in (1, 2))
    assert {k: v.tobytes() for k, v in again.arrays.items()} == {k: v.tobytes() for k, v in fitted.arrays.items()}
    assert other.arrays["vectors"].tobytes() != fitted.arrays["vectors"].tobytes()


def test_a_child_starts_from_its_parent_by_id_and_not_by_code(world: FeatureState, fitted: FittedTwoTower) -> None:
    from pipelines.ids import IdIndex
    from pipelines.learners.two_tower_fit import _from_parent

    start = {name: np.zeros_like(value) for name, value in fitted.arrays.items()}
    earlier = replace(world, item_ids=IdIndex.of(["i11", "i00"]))
    parent = {**fitted.arrays, "ids": np.array([[1.0] * 8, [2.0] * 8]), "bias": np.array([3.0, 4.0])}
    warm = _from_parent(start, parent, world, earlier)
    assert warm["bias"][world.item_ids.code("i00")] == 3
    assert (warm["ids"][world.item_ids.code("i11")] == 2).all()
    assert not warm["ids"][world.item_ids.code("i05")].any()


def test_a_warm_start_learns_on(world: FeatureState, fitted: FittedTwoTower) -> None:
    child = fit(SMALL, TrainingData(world, parent=fitted, parent_features=world), seed=1)
    assert np.abs(child.arrays["user"] - fitted.arrays["user"]).mean() < np.abs(fitted.arrays["user"]).mean()
    assert child.arrays["text_basis"].tobytes() == fitted.arrays["text_basis"].tobytes()


def test_the_newest_days_find_the_number_of_epochs(world: FeatureState) -> None:
    stopped = fit(SMALL.model_copy(update={"validation_days": 15.0}), TrainingData(world), seed=1)
    assert np.isfinite(stopped.arrays["vectors"]).all()
