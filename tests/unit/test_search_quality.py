"""The search benchmark: a typing error is one, and no judgment reaches the zero-shot track."""

from __future__ import annotations

import random

import numpy as np

from benchmarks.search_quality import unlearned
from pipelines.contracts import Surface
from pipelines.fusion.best_single import BestSingle
from pipelines.fusion.surface import SurfaceFusion
from pipelines.search.slips import misspelt
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
