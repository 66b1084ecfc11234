"""The search benchmark: a typing error is one, and no judgment reaches the zero-shot track."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from benchmarks import plain_search
from benchmarks.search_quality import unlearned
from pipelines.contracts import Surface
from pipelines.evaluation.targets import queries
from pipelines.fusion.best_single import BestSingle
from pipelines.fusion.surface import SurfaceFusion
from pipelines.search.labels import LabelledQuery
from pipelines.search.slips import misspelt
from tests.conformance import worlds
from tests.unit.test_evaluation_protocol import bundle


def test_a_typing_error_changes_one_long_word_and_no_short_one() -> None:
    draw = random.Random(1)  # noqa: S311 - a test
    for _ in range(200):
        wrong = misspelt("red kitchen mug 12oz", draw).split()
        assert (wrong[0], wrong[2:]) == ("red", ["mug", "12oz"])
        assert abs(len(wrong[1]) - len("kitchen")) <= 1
    assert misspelt("red mug", draw) == "red mug"


def test_the_zero_shot_track_is_answered_by_what_no_judgment_has_touched() -> None:
    learned, plain = BestSingle("good"), BestSingle("poor")
    taught = bundle()
    taught.fusion = {Surface.SEARCH: SurfaceFusion(learned, 6, plain, {0: SurfaceFusion(learned, 6, plain)})}
    for query in ("tea", "red shoes", "12 oz mug"):
        assert unlearned(taught).judging(query).fusion[Surface.SEARCH].fuser is plain
    taught.fusion = {Surface.SEARCH: SurfaceFusion(plain, 6)}
    assert unlearned(taught).fusion[Surface.SEARCH].fuser is plain
    assert np.all(unlearned(taught).features.items["price"] == taught.features.items["price"])


def test_plain_rows_find_what_is_called_so(tmp_path: Path) -> None:
    products = [worlds.product(item, title=title) for item, title in (("a", "Tea cup"), ("b", "Red shoes"))]
    features = worlds.state(worlds.write(tmp_path, [], products))
    audience = queries(features, [LabelledQuery("the shoe", {"b": 1.0}, {}), LabelledQuery("TEA cups", {"a": 1.0}, {})])
    found = plain_search.measured(features, audience)
    assert set(found) == {*plain_search.ROWS, plain_search.MEANING}
    assert all(one["ndcg@10"].tolist() == [1.0, 1.0] for one in found.values())
