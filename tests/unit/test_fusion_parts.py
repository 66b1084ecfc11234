"""Ways of scoring that look at each different row once give what looking at every row gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import made_bundle
from pipelines.bundle import Bundle
from pipelines.contracts import Surface
from pipelines.features.state import UserHistory
from pipelines.fusion.candidates import CandidateList, gather
from pipelines.fusion.features import FEATURES, describe, item_table, joined, parts, single
from pipelines.fusion.stacking import LABELS, TREES, Ensemble, Ranker, Stacking, columns_of, quantile_knots
from pipelines.fusion.surface import SurfaceFusion
from pipelines.model_api import Context
from pipelines.neighbours import ROWS_AT_ONCE, Neighbours
from pipelines.ranking import RankRequest

N_ITEMS = 300


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.load(made_bundle.make(tmp_path_factory.mktemp("made") / "bundle", n_items=N_ITEMS, n_users=12))


@pytest.fixture(scope="module")
def stacking(bundle: Bundle) -> Stacking:
    """A ranker with drawn weights over the quantiles of real columns."""
    draw = np.random.default_rng(5)
    members = tuple(bundle.members)
    columns = np.concatenate(
        [columns_of(one, describe(bundle.features, one.context.history, one.codes), members) for one in lists(bundle)]
    )
    knots, levels = quantile_knots(columns, 16, draw)
    ensembles = {LABELS: drawn_ensemble(draw, columns.shape[1], 0), TREES: drawn_ensemble(draw, columns.shape[1], 8)}
    return Stacking(Ranker(knots, levels, ensembles), members, dict.fromkeys(members, 0.25))


def drawn_ensemble(draw: np.random.Generator, width: int, ramps: int) -> Ensemble:
    wide, size, units = (ramps + 1 if ramps else 3) * width, 2, 4
    shapes = {
        "first": (wide, size * units),
        "first_bias": (size * units,),
        "second": (size, units, units),
        "second_bias": (size, 1, units),
        "last": (size, units, 1),
        "linear": (wide, size),
    }
    return Ensemble(ramps, **{name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()})


def lists(bundle: Bundle) -> list[CandidateList]:
    known = [bundle.features.history(user) for user in range(bundle.features.n_users)]
    histories = [*known, UserHistory.empty(), bundle.history(recent_items=["i0003"])]
    return [gather(bundle.members, Context(history, "recommend"), depth=40, allowed=None) for history in histories]


def test_features_of_one_candidate_are_those_it_has_among_others(bundle: Bundle) -> None:
    for one in lists(bundle):
        history = one.context.history
        whole = describe(bundle.features, history, one.codes)
        assert whole.shape == (len(one.codes), len(FEATURES))
        assert whole.dtype == np.float32
        for row in (0, len(one.codes) // 2, len(one.codes) - 1):
            alone = describe(bundle.features, history, one.codes[row : row + 1])
            np.testing.assert_allclose(alone[0], whole[row], rtol=1e-5, atol=1e-6)


def test_an_item_never_met_has_zero_counts_and_unknown_ages(bundle: Bundle) -> None:
    history = bundle.features.history(0)
    met, strange = history.items[:1], np.setdiff1d(np.arange(N_ITEMS), history.items)[:1]
    columns = dict(zip(FEATURES, describe(bundle.features, history, np.concatenate([met, strange])).T, strict=True))
    assert columns["pair_bought"].tolist() == [history.aggregates["bought"][0], 0.0]
    assert columns["pair_last_age"][0] == history.aggregates["last_age"][0]
    assert np.isnan(columns["pair_last_age"][1])
    np.testing.assert_array_equal(columns["user_items"], len(history))


def test_stacking_scores_parts_as_it_scores_whole_columns(bundle: Bundle, stacking: Stacking) -> None:
    table = item_table(bundle.features)
    for one in lists(bundle):
        described = parts(bundle.features, one.context.history, one.codes, table)
        plain = stacking.score(one, joined(described))
        np.testing.assert_allclose(stacking.score_parts(one, described), plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ramps", [0, 8])
def test_stacking_scores_as_what_was_trained(ramps: int) -> None:
    tf = pytest.importorskip("tensorflow")
    from pipelines.learners.listwise import _Net

    tf.random.set_seed(3)  # a test before may have asked for determinism, which then refuses to draw without
    draw = np.random.default_rng(3)
    ensemble = drawn_ensemble(draw, 5, ramps)
    config = {"dropout": 0.0, "member_dropout": 0.0, "ensemble": 2, "hidden": 4}
    net = _Net(np.array([0, 1, 0, 1, -1]), config, draw, ramps)
    for name, value in ensemble.arrays.items():
        net.variables[name].assign(value)
    levels = draw.random((7, 5)).astype(np.float32)
    levels[draw.random((7, 5)) < 0.3] = np.nan
    logits = net.logits(tf.constant(levels[None]))[0].numpy().mean(axis=0)
    np.testing.assert_allclose(ensemble.score(levels), logits, rtol=1e-4, atol=1e-5)


def test_what_stacking_keeps_of_one_catalogue_is_not_used_for_another(bundle: Bundle, stacking: Stacking) -> None:
    one = lists(bundle)[0]
    table = item_table(bundle.features)
    for other in (table, table[::-1].copy(), table):
        described = parts(bundle.features, one.context.history, one.codes, other)
        plain = stacking.score(one, joined(described))
        np.testing.assert_allclose(stacking.score_parts(one, described), plain, rtol=1e-5, atol=1e-5)


def test_a_list_does_not_depend_on_who_asked_before(bundle: Bundle, stacking: Stacking, tmp_path: Path) -> None:
    stacking.save(tmp_path)
    histories = [bundle.features.history(user) for user in range(6)]

    def ranked(order: list[int]) -> dict[int, list[tuple[str, float]]]:
        fusion = {Surface.RECOMMEND: SurfaceFusion(Stacking.load(tmp_path), 40)}
        fresh = Bundle(bundle.manifest, bundle.features, bundle.members, fusion)
        return {user: [(i.id, i.score) for i in fresh.rank(RankRequest(), histories[user]).items] for user in order}

    assert ranked([0, 1, 2, 3, 4, 5]) == ranked([5, 3, 1, 4, 2, 0])


def test_half_precision_is_widened_to_the_same_numbers() -> None:
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)]
    np.testing.assert_array_equal(single(finite).view(np.int32), finite.astype(np.float32).view(np.int32))


@pytest.mark.parametrize("n_rows", [0, 1, ROWS_AT_ONCE, 3 * ROWS_AT_ONCE + 1])
def test_a_sum_of_neighbour_rows_is_the_product_with_their_matrix(n_rows: int) -> None:
    draw = np.random.default_rng(n_rows)
    matrix = np.where(draw.random((90, 90)) < 0.2, draw.normal(size=(90, 90)), 0.0).astype(np.float32)
    neighbours = Neighbours.of([(np.flatnonzero(row), row[row != 0]) for row in matrix])
    codes = draw.permutation(90)[:n_rows]
    weights = draw.random(n_rows).astype(np.float32)
    np.testing.assert_allclose(neighbours.sum(codes), matrix[codes].sum(axis=0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(neighbours.sum(codes, weights), weights @ matrix[codes], rtol=1e-5, atol=1e-5)
    assert neighbours.sum(codes).dtype == np.float32
