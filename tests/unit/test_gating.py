"""Known-answer worlds for the gate: per-user numbers are drawn so that the right verdict is known beforehand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipelines.gating.comparison import Finding, paired, spent
from pipelines.gating.evidence import Candidate, Champion, Evidence, Expected, Mode, Slice, Span, SurfaceEvidence
from pipelines.gating.reading import rival_of_slices
from pipelines.gating.verdict import Decision, Verdict, decide
from pipelines.params import GateParams

LIMITS = GateParams()
CANDIDATE = Candidate("c" * 16, "j" * 16, "recipe-new", "0" * 64, "1" * 64)
CHAMPION = Champion(3, "a" * 16, "b" * 16, "recipe-old")
SURFACES = ("recommend", "recommend_new")


def users(mean: float, n: int = 1200, seed: int = 0) -> np.ndarray:
    """Scores in [0, 1] as nDCG has them: many zeros, some high."""
    generator = np.random.default_rng(seed)
    return np.where(generator.random(n) < 2 * mean, generator.random(n), 0.0)


def shifted(scores: np.ndarray, gain: float, seed: int = 1) -> np.ndarray:
    """Another system on the same users: most lists alike, some better or worse, ``gain`` on average."""
    generator = np.random.default_rng(seed)
    return scores + np.where(generator.random(len(scores)) < 0.3, generator.normal(gain / 0.3, 0.1, len(scores)), 0.0)


def world(mode: Mode, gain: float, n: int = 1200, **fields: object) -> Evidence:
    """Both surfaces, the candidate ``gain`` above its reference on average."""
    surfaces = {}
    for place, name in enumerate(SURFACES):
        reference = users(0.3 - 0.15 * place, n, seed=place)
        surfaces[name] = SurfaceEvidence(candidate=shifted(reference, gain, seed=10 + place), reference=reference)
    return Evidence(mode, CANDIDATE, CHAMPION, surfaces=surfaces, **fields)  # type: ignore[arg-type]


def first(fused: np.ndarray, **members: np.ndarray) -> Evidence:
    surface = SurfaceEvidence(
        candidate=fused,
        members=members,
        baselines=tuple(name for name in ("popularity", "repeat") if name in members),
        popularity="popularity" if "popularity" in members else None,
    )
    return Evidence(Mode.FIRST, CANDIDATE, surfaces={"recommend": surface})


def verdict(evidence: Evidence, limits: GateParams = LIMITS) -> Verdict:
    return decide(evidence, limits, seed=7, draws=2000)


def findings(found: Verdict) -> dict[str, Finding]:
    return {reason.check: reason.finding for reason in found.reasons}


def test_a_recipe_that_is_truly_better_is_promoted() -> None:
    assert verdict(world(Mode.RECIPE, gain=0.02)).decision is Decision.PROMOTE


def test_a_recipe_that_is_truly_worse_is_rejected() -> None:
    assert verdict(world(Mode.RECIPE, gain=-0.05)).decision is Decision.REJECT


def test_a_recipe_that_is_equal_is_not_promoted_and_the_detectable_difference_is_said() -> None:
    found = verdict(world(Mode.RECIPE, gain=0.0))
    assert found.decision is Decision.NOT_ENOUGH_EVIDENCE
    superior = next(reason for reason in found.reasons if reason.check == "superior_to_refit")
    assert superior.finding is Finding.UNDECIDED
    assert "could have been seen" in str(superior.observed)


def test_equal_recipes_are_promoted_no_more_often_than_the_size_of_the_test() -> None:
    promoted = 0
    for trial in range(60):
        reference = users(0.3, seed=trial)
        surfaces = {
            "recommend": SurfaceEvidence(candidate=shifted(reference, 0.0, seed=1000 + trial), reference=reference)
        }
        found = decide(Evidence(Mode.RECIPE, CANDIDATE, CHAMPION, surfaces=surfaces), LIMITS, seed=trial, draws=400)
        promoted += found.decision is Decision.PROMOTE
    assert promoted <= 5  # expected 1.5 (one side of 5 %), standard deviation 1.2


def test_a_recipe_better_on_one_surface_and_worse_on_the_other_is_rejected() -> None:
    better, worse = world(Mode.RECIPE, gain=0.03), world(Mode.RECIPE, gain=-0.06)
    surfaces = {"recommend": better.surfaces["recommend"], "recommend_new": worse.surfaces["recommend_new"]}
    found = verdict(replace(better, surfaces=surfaces))
    assert findings(found)["superior_to_refit"] is Finding.PASSED
    assert found.decision is Decision.REJECT


def test_noise_added_to_the_scores_is_rejected() -> None:
    reference = users(0.3)
    noisy = np.random.default_rng(3).permutation(reference) * 0.5
    surfaces = {"recommend": SurfaceEvidence(candidate=noisy, reference=reference)}
    assert verdict(Evidence(Mode.RECIPE, CANDIDATE, CHAMPION, surfaces=surfaces)).decision is Decision.REJECT


@pytest.mark.parametrize("gain", [0.0, 0.01])
def test_a_refresh_that_is_equal_or_better_is_promoted(gain: float) -> None:
    reference = users(0.3)
    surfaces = {"recommend": SurfaceEvidence(candidate=shifted(reference, gain), reference=reference)}
    limits = LIMITS.model_copy(update={"margin": 0.04})
    assert verdict(Evidence(Mode.REFRESH, CANDIDATE, CHAMPION, surfaces=surfaces), limits).decision is Decision.PROMOTE


def test_a_refresh_with_the_very_same_judged_lists_is_promoted_with_no_margin_at_all() -> None:
    reference = users(0.3)
    surfaces = {"recommend": SurfaceEvidence(candidate=reference, reference=reference)}
    limits = LIMITS.model_copy(update={"margin": 0.0})
    assert verdict(Evidence(Mode.REFRESH, CANDIDATE, CHAMPION, surfaces=surfaces), limits).decision is Decision.PROMOTE


def test_a_refresh_that_is_worse_is_rejected() -> None:
    assert verdict(world(Mode.REFRESH, gain=-0.06)).decision is Decision.REJECT


def test_too_few_users_are_not_enough_evidence_however_good_they_look() -> None:
    reference = users(0.3, n=20)
    surfaces = {"recommend": SurfaceEvidence(candidate=reference + 0.2, reference=reference)}
    for mode in (Mode.REFRESH, Mode.RECIPE):
        found = verdict(Evidence(mode, CANDIDATE, CHAMPION, surfaces=surfaces))
        assert found.decision is Decision.NOT_ENOUGH_EVIDENCE


def test_a_reference_that_saw_the_holdout_is_never_compared_with() -> None:
    found = verdict(world(Mode.REFRESH, gain=0.05, not_comparable="it has seen a part of the holdout"))
    assert found.decision is Decision.NOT_ENOUGH_EVIDENCE
    assert findings(found)["comparable"] is Finding.UNDECIDED


def test_a_first_model_better_than_its_baselines_is_promoted() -> None:
    repeat = users(0.3)
    found = verdict(first(shifted(repeat, 0.02), popularity=users(0.1, seed=4), repeat=repeat, ease=repeat))
    assert found.decision is Decision.PROMOTE
    assert found.as_json()["champion"] is None


def test_a_first_model_worse_than_the_best_baseline_by_more_than_the_margin_is_rejected() -> None:
    repeat = users(0.3)
    found = verdict(first(shifted(repeat, -0.03), popularity=users(0.1, seed=4), repeat=repeat))
    assert findings(found)["not_worse_than_baseline.recommend"] is Finding.FAILED
    assert found.decision is Decision.REJECT


def test_a_first_model_no_better_than_popularity_is_not_promoted() -> None:
    popularity = users(0.1)
    found = verdict(first(shifted(popularity, 0.0), popularity=popularity, ease=popularity))
    assert found.decision is not Decision.PROMOTE


def test_a_first_model_that_is_popularity_for_want_of_anything_else_is_promoted() -> None:
    popularity = users(0.1)
    assert verdict(first(popularity, popularity=popularity)).decision is Decision.PROMOTE


def test_with_nothing_to_judge_by_a_first_model_is_promoted_and_that_is_recorded() -> None:
    found = verdict(Evidence(Mode.FIRST, CANDIDATE))
    assert found.decision is Decision.PROMOTE
    assert findings(found)["no_evidence"] is Finding.PASSED


def test_with_nothing_to_judge_by_another_recipe_is_not_promoted() -> None:
    assert verdict(Evidence(Mode.RECIPE, CANDIDATE, CHAMPION)).decision is Decision.NOT_ENOUGH_EVIDENCE


def test_a_damaged_newest_week_is_rejected_and_a_usual_one_is_not() -> None:
    usual = (0.31, 0.28, 0.33, 0.30)
    good = world(Mode.RECIPE, gain=0.02, newest_week=(Expected("recommend", 0.27, 400, usual),))
    damaged = replace(good, newest_week=(Expected("recommend", 0.04, 400, usual),))
    assert verdict(good).decision is Decision.PROMOTE
    assert verdict(damaged).decision is Decision.REJECT
    assert findings(verdict(damaged))["newest_week.recommend"] is Finding.FAILED


def test_served_lists_that_move_further_than_usual_are_rejected() -> None:
    usual = (0.30, 0.35, 0.32)
    good = world(Mode.RECIPE, gain=0.02, served_change=(Expected("recommend", 0.36, 500, usual),))
    moved = replace(good, served_change=(Expected("recommend", 0.80, 500, usual),))
    assert verdict(good).decision is Decision.PROMOTE
    assert findings(verdict(moved))["served_change.recommend"] is Finding.FAILED


def test_a_critical_data_failure_is_rejected_however_good_the_numbers() -> None:
    found = verdict(world(Mode.RECIPE, gain=0.02, data={"raw": ("item_id is null",), "frames": ()}))
    assert found.decision is Decision.REJECT
    assert findings(found)["data.frames"] is Finding.PASSED


def test_a_slice_that_loses_is_rejected() -> None:
    reference = users(0.3, n=300)
    good = world(Mode.RECIPE, gain=0.02)
    surface = replace(good.surfaces["recommend"], slices={"new users": Slice(reference * 0.5, reference)})
    found = verdict(replace(good, surfaces={"recommend": surface}))
    assert findings(found)["slice.recommend.new users"] is Finding.FAILED


def near(mean: float) -> Span:
    """A number that is known to a hundredth of itself."""
    return Span(mean, 0.99 * mean, 1.01 * mean)


def test_lists_that_may_be_wide_enough_are_not_rejected() -> None:
    repeat = users(0.3)
    good = first(shifted(repeat, 0.02), popularity=users(0.1, seed=4), repeat=repeat, ease=repeat)
    for width, finding in ((0.001, Finding.FAILED), (0.02, Finding.PASSED)):
        lists = {"fused": {"diversity@10": Span(0.44, 0.44 - width, 0.44 + width)}, "ease": {"diversity@10": near(0.5)}}
        surface = replace(good.surfaces["recommend"], lists=lists)
        found = findings(verdict(replace(good, surfaces={"recommend": surface})))
        assert found["diversity@10.recommend"] is finding


def test_lists_much_narrower_than_the_best_learned_members_are_rejected() -> None:
    repeat = users(0.3)
    good = first(shifted(repeat, 0.02), popularity=users(0.1, seed=4), repeat=repeat, ease=repeat)
    narrow = {
        "fused": {"coverage@10": near(0.1), "gini@10": near(0.99)},
        "ease": {"coverage@10": near(0.3), "gini@10": near(0.9)},
    }
    surface = replace(good.surfaces["recommend"], lists=narrow)
    found = findings(verdict(replace(good, surfaces={"recommend": surface})))
    assert found["coverage@10.recommend"] is Finding.FAILED
    assert found["gini@10.recommend"] is Finding.FAILED


def test_lists_no_more_concentrated_than_what_people_bought_amplify_nothing() -> None:
    repeat = users(0.3)
    good = first(shifted(repeat, 0.02), popularity=users(0.1, seed=4), repeat=repeat, ease=repeat)
    lists = {"fused": {"gini@10": near(0.97)}, "ease": {"gini@10": near(0.9)}}
    for bought, finding in ((0.96, Finding.FAILED), (0.969, Finding.PASSED)):
        surface = replace(good.surfaces["recommend"], lists=lists, bought_gini=bought)
        found = findings(verdict(replace(good, surfaces={"recommend": surface})))
        assert found["gini@10.recommend"] is finding


def test_a_slow_or_huge_bundle_is_rejected() -> None:
    found = findings(verdict(world(Mode.RECIPE, gain=0.02, rank_ms=1e4, megabytes=1e6)))
    assert found["rank_milliseconds"] is Finding.FAILED
    assert found["bundle_megabytes"] is Finding.FAILED


def test_a_gain_that_convinces_at_the_first_look_does_not_at_the_twentieth() -> None:
    reference = users(0.3)
    surfaces = {"recommend": SurfaceEvidence(candidate=shifted(reference, 0.0035), reference=reference)}
    once = Evidence(Mode.RECIPE, CANDIDATE, CHAMPION, surfaces=surfaces)
    difference = paired(surfaces["recommend"].candidate, reference, alpha=0.05, seed=7, draws=2000)
    assert difference.low > 0
    assert findings(verdict(once))["superior_to_refit"] is Finding.PASSED
    assert findings(verdict(replace(once, looks=20)))["superior_to_refit"] is Finding.UNDECIDED


def test_looks_share_the_size_of_the_test() -> None:
    assert [spent(0.05, looks) for looks in (1, 2, 5)] == [0.05, 0.025, 0.01]


def test_the_interval_agrees_with_the_normal_one_where_that_holds() -> None:
    """Mean 0.1, sd 1, n 400: standard error 0.05, interval 0.1 ± 1.96 · 0.05, detectable 2.80 · 0.05."""
    values = np.random.default_rng(0).normal(size=400)
    values = (values - values.mean()) / values.std(ddof=1) + 0.1
    found = paired(values, np.zeros(400), alpha=0.05, seed=1, draws=4000)
    assert (found.low, found.high) == pytest.approx((0.002, 0.198), abs=0.006)
    assert found.detectable == pytest.approx(0.1401, abs=1e-4)


def test_the_verdict_has_the_fields_of_the_contract_and_is_the_same_for_the_same_numbers() -> None:
    evidence = world(Mode.RECIPE, gain=0.02)
    found = verdict(evidence).as_json()
    assert found == verdict(evidence).as_json()
    assert {"verdict", "mode", "reasons", "candidate", "champion"} <= set(found)
    assert found["verdict"] in {"promote", "reject", "not_enough_evidence"}
    assert all({"check", "passed", "observed", "required"} <= set(reason) for reason in found["reasons"])
    assert (found["candidate"], found["champion"]) == (CANDIDATE.bundle, CHAMPION.bundle)


def test_users_without_a_number_are_left_out() -> None:
    one, other = np.array([0.5, np.nan, 0.7, 0.1]), np.array([0.4, 0.2, np.nan, 0.0])
    found = paired(one, other, alpha=0.05, seed=0, draws=100)
    assert found.n == 2
    assert found.mean == pytest.approx(0.1)


def with_search(found: Evidence, n: int, gain: float) -> Evidence:
    """The world with a search that so many queries judge."""
    reference = users(0.6, n, seed=5)
    search = SurfaceEvidence(candidate=shifted(reference, gain, seed=6), reference=reference)
    return replace(found, surfaces={**found.surfaces, "search": search})


def test_the_first_few_searches_of_a_shop_leave_the_decision_to_the_other_surfaces() -> None:
    for mode, gain in ((Mode.REFRESH, 0.0), (Mode.RECIPE, 0.02)):
        found = verdict(with_search(world(mode, gain), LIMITS.min_users - 1, gain=-0.3))
        assert found.decision is Decision.PROMOTE
        told = next(reason for reason in found.reasons if reason.check == "no_evidence.search")
        assert told.finding is Finding.PASSED
        assert str(LIMITS.min_users - 1) in str(told.observed)


def test_a_search_that_many_queries_show_to_be_worse_is_rejected() -> None:
    assert verdict(with_search(world(Mode.REFRESH, 0.0), 400, gain=-0.3)).decision is Decision.REJECT


def test_a_search_that_begins_to_learn_is_not_suspect_but_one_that_is_turned_over_is() -> None:
    for observed, finding in ((0.2, Finding.PASSED), (0.9, Finding.FAILED)):
        change = Expected("search", observed, 200, (0.0, 0.0, 0.01))
        found = verdict(world(Mode.REFRESH, 0.0, served_change=(change,)))
        assert findings(found)["served_change.search"] is finding
    moved = Expected("recommend", 0.2, 200, (0.0, 0.0, 0.01))
    found = verdict(world(Mode.REFRESH, 0.0, served_change=(moved,)))
    assert findings(found)["served_change.recommend"] is Finding.FAILED


def test_groups_of_a_first_model_are_compared_with_the_best_baseline_that_speaks_of_all_items() -> None:
    kinds = {"popularity": "popularity", "newcomers": "newcomers", "knn": "item_knn", "tower": "two_tower"}
    reached = {"popularity": 0.05, "newcomers": 0.11, "knn": 0.08, "tower": 0.2}
    members = {name: np.array([value, value, np.nan]) for name, value in reached.items()}
    assert rival_of_slices(kinds, members) == "knn"
    assert rival_of_slices(kinds, {name: members[name] for name in ("newcomers", "tower")}) is None
