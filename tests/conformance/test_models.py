"""Every kind of base model keeps the promises of ``pipelines.model_api``; a new kind is covered by being there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipelines import model_registry
from pipelines.errors import ParamsError
from pipelines.features.state import FeatureState, UserHistory
from pipelines.model_api import Context, FittedModel, Kind, TrainingData
from pipelines.params import ModelEntry
from pipelines.search.query import Query
from tests.conformance import encoders, worlds

USERS = 40
LEARNS_TASTE = {"item_knn", "ease", "two_tower"}
"""Kinds that must put the missing item of one's own taste before the other taste."""


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> FeatureState:
    world = worlds.with_text(worlds.two_tastes(tmp_path_factory.mktemp("world"), users=USERS))
    return encoders.with_encoders(world, tmp_path_factory.mktemp("encoders"), width=worlds.TEXT_DIM)


@pytest.fixture(scope="module", params=model_registry.kind_names())
def kind_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def kind(kind_name: str) -> Kind:
    return model_registry.kind(kind_name)


@pytest.fixture(scope="module")
def fitted(kind: Kind, features: FeatureState) -> FittedModel:
    return kind.fit(kind.config(), TrainingData(features), seed=3)


def contexts(features: FeatureState) -> list[Context]:
    known = [features.history(features.user_ids.code(f"u{user:02d}")) for user in range(0, USERS, 7)]
    queries = [Query(one, tuple(one.split()), np.eye(worlds.TEXT_DIM, dtype=np.float32)[0]) for one in ("titl b3", "z")]
    recommended = [
        Context(h, surface) for h in [*known, UserHistory.empty()] for surface in ("recommend", "recommend_new")
    ]
    return [*recommended, *(Context(h, "search", query) for h in known[:2] for query in queries)]


def test_scores_are_float32_one_an_item_and_finite_or_nan(fitted: FittedModel, features: FeatureState) -> None:
    for context in contexts(features):
        scores = fitted.score_all(context)
        assert scores.shape == (features.n_items,)
        assert scores.dtype == np.float32
        assert not np.isinf(scores).any()


def test_scoring_some_items_equals_scoring_all(fitted: FittedModel, features: FeatureState) -> None:
    codes = np.array([5, 0, 9])
    for context in contexts(features):
        np.testing.assert_array_equal(fitted.score(context, codes), fitted.score_all(context)[codes])


def test_candidates_are_the_best_scores_without_repeats(fitted: FittedModel, features: FeatureState) -> None:
    for context in contexts(features):
        scores = fitted.score_all(context)
        found = fitted.candidates(context, 4)
        assert len(set(found.codes.tolist())) == len(found.codes) == min(4, int((~np.isnan(scores)).sum()))
        expected = np.sort(scores[~np.isnan(scores)])[::-1][: len(found.codes)]
        np.testing.assert_allclose(found.scores, expected, rtol=1e-6)


@pytest.mark.parametrize("n", [1, 4, 100])
def test_a_proposal_is_what_scoring_everything_gives(fitted: FittedModel, features: FeatureState, n: int) -> None:
    every = np.arange(features.n_items)
    for allowed in (None, every % 2 == 0, np.zeros(features.n_items, np.bool_)):
        for context in contexts(features):
            proposal = fitted.propose(context, n, allowed)
            plain = FittedModel.propose(fitted, context, n, allowed)
            np.testing.assert_array_equal(np.sort(proposal.codes), np.sort(plain.codes))
            assert proposal.score(every).dtype == np.float32
            np.testing.assert_allclose(proposal.score(every), plain.score(every), rtol=1e-5)


def test_items_that_are_not_allowed_never_appear(fitted: FittedModel, features: FeatureState) -> None:
    allowed = np.arange(features.n_items) % 2 == 0
    for context in contexts(features):
        assert allowed[fitted.candidates(context, 100, allowed).codes].all()


def test_a_saved_and_loaded_model_scores_the_same(
    kind: Kind, fitted: FittedModel, features: FeatureState, tmp_path: Path
) -> None:
    fitted.save(tmp_path)
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} <= {".npy", ".json", ".onnx"}
    copy = kind.fitted.load(tmp_path)
    for context in contexts(features):
        np.testing.assert_array_equal(copy.score_all(context), fitted.score_all(context))


def test_the_same_seed_gives_the_same_scores(kind: Kind, fitted: FittedModel, features: FeatureState) -> None:
    again = kind.fit(kind.config(), TrainingData(features), seed=3)
    for context in contexts(features):
        np.testing.assert_array_equal(again.score_all(context), fitted.score_all(context))


FIT_AND_HASH = """
import hashlib, json, pathlib, sys
from pipelines import model_registry
from pipelines.model_api import TrainingData
from tests.conformance import worlds
folder, found = pathlib.Path(sys.argv[1]), {}
features = worlds.with_text(worlds.two_tastes(folder / "world", users=20))
for name in model_registry.kind_names():
    kind = model_registry.kind(name)
    if kind.warm_start or kind.not_applicable(features):
        continue
    (folder / name).mkdir()
    kind.fit(kind.config(), TrainingData(features), seed=3).save(folder / name)
    files = [path for path in (folder / name).rglob("*") if path.is_file()]
    found |= {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
print(json.dumps(found))
"""


def test_another_process_writes_the_same_bytes_whatever_the_order_of_its_sets(tmp_path: Path) -> None:
    """Of the kinds that go without TensorFlow, whose own tests say the same."""

    def hashed(seed: str) -> dict[str, str]:
        (tmp_path / seed).mkdir()
        command = [sys.executable, "-c", FIT_AND_HASH, str(tmp_path / seed)]
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        return dict(json.loads(subprocess.run(command, env=environment, capture_output=True, check=True).stdout))

    one, other = hashed("1"), hashed("2")
    assert {name.split("/")[0] for name in one} >= {"bm25", "ease", "item_knn", "popularity", "repeat", "text"}
    assert {name for name in one if one[name] != other[name]} == set()


def test_scoring_changes_neither_history_nor_model(fitted: FittedModel, features: FeatureState) -> None:
    context = contexts(features)[0]
    before = {name: values.copy() for name, values in context.history.aggregates.items()}
    first = fitted.score_all(context).copy()
    fitted.candidates(context, 3)
    np.testing.assert_array_equal(fitted.score_all(context), first)
    for name, values in before.items():
        np.testing.assert_array_equal(context.history.aggregates[name], values)


def test_a_taste_is_learned(kind_name: str, fitted: FittedModel, features: FeatureState) -> None:
    if kind_name not in LEARNS_TASTE:
        pytest.skip("this kind knows no taste")
    right = 0
    for user in range(USERS):
        context = Context(features.history(features.user_ids.code(f"u{user:02d}")), "recommend_new")
        scores = fitted.score_all(context)
        other = [features.item_ids.code(f"{'ba'[user % 2]}{k}") for k in range(6)]
        right += scores[features.item_ids.code(worlds.missing_item(user))] > np.nanmax(scores[other])
    assert right >= 0.9 * USERS


def test_similar_items_leave_out_the_item_itself(fitted: FittedModel, features: FeatureState) -> None:
    code = features.item_ids.code("a1")
    found = fitted.similar(code, 3)
    if found is None:
        pytest.skip("this kind has no notion of similar items")
    assert code not in found.codes
    assert 0 < len(found.codes) <= 3


def test_an_unknown_field_is_named_together_with_those_there_are(kind_name: str) -> None:
    entry = ModelEntry.model_validate({"kind": kind_name, "colour": "blue"})
    with pytest.raises(ParamsError, match=r"models\.mine\.colour"):
        model_registry.config("mine", entry)


def test_an_unknown_kind_is_named_together_with_those_there_are() -> None:
    with pytest.raises(ParamsError, match=r"'magic'.*popularity"):
        model_registry.kind("magic")
