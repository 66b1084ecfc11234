"""Fusers on lists with a known answer."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pipelines.contracts import Surface
from pipelines.features.state import UserHistory
from pipelines.fusion import fuser as fusers
from pipelines.fusion.best_single import BestSingle
from pipelines.fusion.candidates import CandidateList, ranks, standardised
from pipelines.fusion.features import FEATURES
from pipelines.fusion.fuser import FittedFuser, LabelledList
from pipelines.fusion.learning import choose, spared
from pipelines.fusion.quality import mean_ndcg, per_list_ndcg
from pipelines.fusion.stacking import encode, quantile_knots, quantiles
from pipelines.model_api import Context
from pipelines.params import FusionParams
from pipelines.storage import read_json, write_json

MEMBERS = ("noise", "one", "other")
NAN = np.nan
QUICK = {"epochs": 6, "hidden": 8, "ensemble": 2, "trees": 0}
WITH_TREES = QUICK | {"trees": 20, "fewest_lists": 40}


def candidates(scores: Sequence[Sequence[float]], members: tuple[str, ...] = MEMBERS) -> CandidateList:
    array = np.array(scores, np.float32)
    return CandidateList(np.arange(len(array)), members, array, Context(UserHistory.empty(), "recommend"))


def bought(found: CandidateList, features: np.ndarray, relevant: np.ndarray, n: int, window: str) -> LabelledList:
    """A list of which some items were bought, ``n`` in all, found or not."""
    return LabelledList(found, features, relevant.astype(np.float32), np.ones(n, np.float32), window)


def world(n: int, seed: int, windows: Sequence[str] = ("window_1", "window_2")) -> list[LabelledList]:
    """What is bought needs both ``one`` and ``other`` high; ``noise`` says nothing."""
    draw = np.random.default_rng(seed)
    lists = []
    for place in range(n):
        scores = draw.normal(size=(30, 3)).astype(np.float32)
        truth = scores[:, 1] + scores[:, 2] + 0.3 * draw.normal(size=30)
        relevant = truth >= np.sort(truth)[-3]
        features = np.zeros((30, len(FEATURES)), np.float32)
        lists.append(bought(candidates(scores), features, relevant, 3, windows[place % len(windows)]))
    return lists


def fit(name: str, lists: Sequence[LabelledList], **config: object) -> FittedFuser:
    method = fusers.method(name)
    return method.fit(fusers.config(name, config), lists, MEMBERS, seed=5)


def test_ranks_share_the_better_place_and_leave_out_who_has_no_opinion() -> None:
    found = ranks(np.array([[1.0], [3.0], [NAN], [3.0], [2.0]], np.float32))
    np.testing.assert_array_equal(found[:, 0], [4, 1, NAN, 1, 3])


def test_standardised_scores_have_mean_zero_and_no_opinion_counts_as_average() -> None:
    found = standardised(np.array([[1.0, 5.0], [3.0, NAN], [NAN, NAN]], np.float32))
    np.testing.assert_allclose(found, [[-1, 0], [1, 0], [0, 0]], atol=1e-6)


def test_reciprocal_rank_adds_one_over_sixty_plus_place() -> None:
    fuser = fit("reciprocal_rank", [])
    scores = fuser.score(candidates([[9, 1, NAN], [8, 2, NAN]]), None)
    np.testing.assert_allclose(scores, [1 / 61 + 1 / 62, 1 / 62 + 1 / 61], rtol=1e-6)


def test_the_best_single_member_is_the_one_with_the_highest_quality() -> None:
    lists = world(60, seed=1)
    best = fit("best_single", lists)
    assert isinstance(best, BestSingle)
    assert best.member in {"one", "other"}


def test_learned_weights_ignore_noise_and_beat_every_single_member() -> None:
    weighted = fit("weighted", world(200, seed=1))
    shares = weighted.weights(MEMBERS)
    assert shares["noise"] < 0.05
    assert shares["one"] == pytest.approx(shares["other"], abs=0.1)
    test = world(100, seed=2)
    assert mean_ndcg(weighted, test) > max(mean_ndcg(BestSingle(name), test) for name in MEMBERS) + 0.05


def test_stacking_learns_the_answer_and_survives_a_missing_member() -> None:
    stacking = fit("stacking", world(200, seed=1), **QUICK)
    test = world(100, seed=2)
    assert mean_ndcg(stacking, test) > max(mean_ndcg(BestSingle(name), test) for name in MEMBERS) + 0.05
    one = test[0].candidates
    without = CandidateList(one.codes, ("noise", "one"), one.scores[:, :2], one.context)
    assert np.isfinite(stacking.score(without, test[0].features)).all()


def test_what_stacking_learns_from_trees_is_as_good_as_what_it_learns_from_labels(tmp_path: Path) -> None:
    test = world(100, seed=2)
    plain = mean_ndcg(fit("stacking", world(200, seed=1), **QUICK), test)
    both = fit("stacking", world(200, seed=1), **WITH_TREES)
    assert mean_ndcg(both, test) > plain - 0.02
    both.save(tmp_path)
    (tmp_path / "labels" / "linear.npy").unlink()
    about = read_json(tmp_path / "stacking.json")
    write_json(tmp_path / "stacking.json", about | {"ensembles": {"trees": about["ensembles"]["trees"]}})
    assert mean_ndcg(fusers.method("stacking").fitted.load(tmp_path), test) > plain - 0.02


def test_few_lists_teach_no_trees(tmp_path: Path) -> None:
    fit("stacking", world(39, seed=1), **WITH_TREES).save(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["labels"]


def test_both_ensembles_of_stacking_count_alike(tmp_path: Path) -> None:
    lists = world(60, seed=1)
    both = fit("stacking", lists, **WITH_TREES)
    both.save(tmp_path)
    spreads = {}
    for name, ramps in read_json(tmp_path / "stacking.json")["ensembles"].items():
        alone = tmp_path / f"only_{name}"
        shutil.copytree(tmp_path, alone, ignore=shutil.ignore_patterns("only_*"))
        write_json(alone / "stacking.json", read_json(alone / "stacking.json") | {"ensembles": {name: ramps}})
        fuser = fusers.method("stacking").fitted.load(alone)
        spreads[name] = np.sqrt(np.mean([fuser.score(one.candidates, one.features).var() for one in lists]))
    assert spreads == pytest.approx({"labels": 1.0, "trees": 1.0}, rel=0.02)


def test_a_quantile_enters_as_ramps_between_equal_steps() -> None:
    found = encode(np.array([[0.0], [0.125], [0.5], [0.75], [1.0], [NAN]], np.float32), ramps=2)
    wanted = [[-1, -1, 0], [-0.5, -1, 0], [1, -1, 0], [1, 0, 0], [1, 1, 0], [0, 0, 1]]
    np.testing.assert_allclose(found, wanted)


@pytest.mark.parametrize("config", [QUICK, WITH_TREES], ids=["labels", "trees"])
def test_stacking_gives_the_same_bytes_for_the_same_seed(config: dict[str, object], tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        fit("stacking", world(40, seed=1), **config).save(tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) > 8
    for path in files:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes(), path


@pytest.mark.parametrize("name", fusers.METHODS)
def test_a_saved_and_loaded_fuser_scores_the_same(name: str, tmp_path: Path) -> None:
    lists = world(40, seed=1)
    fitted = fit(name, lists, **(WITH_TREES if name == "stacking" else {}))
    fitted.save(tmp_path)
    copy = fusers.method(name).fitted.load(tmp_path)
    one = lists[0]
    np.testing.assert_array_equal(copy.score(one.candidates, one.features), fitted.score(one.candidates, one.features))
    assert copy.weights(MEMBERS) == fitted.weights(MEMBERS)


def test_stacking_of_a_bundle_of_before_scores_the_same(tmp_path: Path) -> None:
    lists = world(40, seed=1)
    fitted = fit("stacking", lists, **QUICK)
    fitted.save(tmp_path)
    for path in (tmp_path / "labels").iterdir():
        path.rename(tmp_path / path.name)
    about = read_json(tmp_path / "stacking.json")
    write_json(tmp_path / "stacking.json", {name: about[name] for name in ("members", "importance", "features")})
    one = lists[0]
    found = fusers.method("stacking").fitted.load(tmp_path).score(one.candidates, one.features)
    np.testing.assert_array_equal(found, fitted.score(one.candidates, one.features))


@pytest.mark.parametrize("name", fusers.METHODS)
def test_weights_add_up_to_one(name: str) -> None:
    fitted = fit(name, world(40, seed=1), **(QUICK if name == "stacking" else {}))
    assert sum(fitted.weights(MEMBERS).values()) == pytest.approx(1.0, abs=1e-5)


def test_auto_leaves_the_best_single_member_only_for_a_proven_gain() -> None:
    params = FusionParams(stacking=QUICK)
    windows = ["window_1", "window_2"]
    gain = choose(params, world(200, seed=3), MEMBERS, surface=Surface.RECOMMEND, windows=windows, seed=1)
    assert gain.method in {"weighted", "stacking"}
    assert gain.trials[gain.method]["gain"]["ci_low"] > 0
    alone = [
        bought(
            candidates(one.candidates.scores[:, [0, 1, 0]]),
            one.features,
            _top(one.candidates.scores[:, 1]),
            3,
            one.window,
        )
        for one in world(60, seed=4)
    ]
    perfect = choose(params, alone, MEMBERS, surface=Surface.RECOMMEND, windows=windows, seed=1)
    assert perfect.method == "best_single"
    assert perfect.fuser.weights(MEMBERS)["one"] == 1.0


def test_stacking_without_what_it_can_do_without_is_stacking_fitted_without_it(tmp_path: Path) -> None:
    lists = world(60, seed=3)
    whole, plain = fit("stacking", lists, **WITH_TREES), fit("stacking", lists, **QUICK)
    assert fusers.config("stacking", WITH_TREES).plain() == fusers.config("stacking", WITH_TREES | {"trees": 0})
    assert plain.plain() is plain
    for one in lists[:5]:
        found = whole.plain().score(one.candidates, one.features)
        np.testing.assert_array_equal(found, plain.score(one.candidates, one.features))
        assert (found != whole.score(one.candidates, one.features)).any()
    whole.plain().save(tmp_path)
    assert not (tmp_path / "trees").exists()


@pytest.mark.parametrize(("errors", "stays"), [(4.0, True), (1.6, True), (1.0, False), (0.0, False), (-1.6, False)])
def test_what_a_fuser_can_do_without_stays_where_it_helps_with_nine_tenths_confidence(
    errors: float, *, stays: bool
) -> None:
    draw = np.random.default_rng(2)
    plain, noise = draw.random(400), draw.normal(0.0, 0.1, 400)
    full = plain + noise - noise.mean() + errors * noise.std() / 400**0.5
    without, gain = spared(full, plain, seed=1)
    assert without != stays
    assert gain["mean_difference"] == pytest.approx((full - plain).mean(), abs=1e-6)


def test_nothing_is_left_out_where_nothing_can_be() -> None:
    same = np.random.default_rng(2).random(400)
    assert spared(same, same, seed=1) == (False, {})


def test_a_choice_has_the_parts_that_its_trial_says(tmp_path: Path) -> None:
    params = FusionParams(method="stacking", stacking=WITH_TREES)
    windows = ["window_1", "window_2", "window_3"]
    found = choose(params, world(180, 6, windows), MEMBERS, surface=Surface.RECOMMEND, windows=windows, seed=1)
    trial = found.plain_trial
    assert found.plain == (trial["mean_difference"] <= (trial["ci_high"] - trial["ci_low"]) / 3)
    assert found.plain_trial["n"] == 120  # lists of the two windows that had one before
    found.fuser.save(tmp_path)
    assert (tmp_path / "trees").exists() != found.plain
    without = choose(
        FusionParams(method="stacking", stacking=QUICK),
        world(60, 6, windows),
        MEMBERS,
        surface=Surface.RECOMMEND,
        windows=windows,
        seed=1,
    )
    assert (without.plain, without.plain_trial) == (False, {})


def test_without_windows_fusion_needs_no_labels() -> None:
    assert (
        choose(FusionParams(), [], MEMBERS, surface=Surface.RECOMMEND, windows=[], seed=1).method == "reciprocal_rank"
    )


def test_items_bought_but_not_found_count_in_the_ideal() -> None:
    one = bought(candidates([[3, 0, 0], [2, 0, 0]]), np.zeros((2, len(FEATURES))), np.array([True, False]), 2, "w")
    # found at place 1 of 2 wanted: 1 / (1 + 1 / log2(3)) = 0.6131
    np.testing.assert_allclose(per_list_ndcg(BestSingle("noise"), [one]), [0.6131], atol=1e-4)


def test_equal_values_share_the_middle_of_their_quantiles() -> None:
    columns = np.array([[0.0], [0.0], [0.0], [10.0]], np.float32)
    knots, levels = quantile_knots(columns, 4, np.random.default_rng(0))
    at_zero, at_ten, unknown = quantiles(np.array([[0.0], [10.0], [NAN]], np.float32), knots, levels)[:, 0]
    assert 0 < at_zero < at_ten == 1.0
    assert np.isnan(unknown)


def _top(values: np.ndarray) -> np.ndarray:
    return values >= np.sort(values)[-3]
