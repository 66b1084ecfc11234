"""What must not happen, however good the mean: a slice lost, lists narrowed, data damaged, a slow or huge bundle.

A guardrail fails when harm is shown; what cannot be told passes, since the quality checks ask for proof.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.contracts import FUSED
from pipelines.gating.comparison import Finding, paired
from pipelines.gating.evidence import Evidence, Expected, SurfaceEvidence
from pipelines.gating.quality import best, mean
from pipelines.gating.reason import Reason
from pipelines.params import GateParams

MORE_IS_BETTER = ("coverage@10", "diversity@10", "novelty@10")
CONCENTRATION = "gini@10"
DRAWS = 2_000


def guardrails(evidence: Evidence, limits: GateParams, *, seed: int) -> Iterator[Reason]:
    """Every guardrail that there is something to check with."""
    yield from _data(evidence)
    for name, surface in evidence.surfaces.items():
        yield from _slices(name, surface, limits, seed=seed)
        yield from _lists(name, surface, limits)
    for week in evidence.newest_week:
        yield from _not_below_usual(week, limits)
    for change in evidence.served_change:
        yield from _not_above_usual(change, limits)
    yield from _at_most("rank_milliseconds", evidence.rank_ms, limits.max_rank_ms)
    yield from _at_most("bundle_megabytes", evidence.megabytes, limits.max_megabytes)


def _data(evidence: Evidence) -> Iterator[Reason]:
    for name, failures in evidence.data.items():
        finding = Finding.FAILED if failures else Finding.PASSED
        yield Reason(f"data.{name}", finding, "; ".join(failures) or "none failed", "no critical expectation failed")


def _slices(name: str, surface: SurfaceEvidence, limits: GateParams, *, seed: int) -> Iterator[Reason]:
    """No group loses, shown by the interval, more than the margin against what ``Slice.other`` is."""
    for group, found in surface.slices.items():
        shown = paired(found.candidate, found.other, alpha=limits.alpha, seed=seed, draws=DRAWS)
        if shown.n < limits.min_users:
            continue
        bound = -limits.slice_margin * mean(found.other)
        finding = Finding.FAILED if shown.high < bound else Finding.PASSED
        required = f"not all below {bound:+.4f}, {limits.slice_margin:.0%} of the other's {mean(found.other):.4f}"
        yield Reason(f"slice.{name}.{group}", finding, str(shown), required, shown)


def _lists(name: str, surface: SurfaceEvidence, limits: GateParams) -> Iterator[Reason]:
    """Coverage, diversity, novelty and concentration against the best member that learns.

    Lists that are concentrated no more than what the same people bought do not amplify popularity, however evenly
    a weaker member spreads its lists.
    """
    own = [m for m in surface.members if m not in surface.baselines and m in surface.lists]
    learned = best(surface.members, own)
    if learned is None or FUSED not in surface.lists:
        return
    fused, member = surface.lists[FUSED], surface.lists[learned]
    for metric in MORE_IS_BETTER:
        if metric in fused and metric in member:
            bound = (1 - limits.list_margin) * member[metric].mean
            finding = Finding.PASSED if fused[metric].high >= bound else Finding.FAILED
            share = f"{1 - limits.list_margin:.0%} of {learned}'s {member[metric].mean:.4f}"
            yield Reason(f"{metric}.{name}", finding, str(fused[metric]), f"not all below {bound:.4f}, {share}")
    if CONCENTRATION in fused and CONCENTRATION in member:
        bound = min(1.0, member[CONCENTRATION].mean + limits.concentration_margin)
        required = f"not all above {bound:.4f}, {limits.concentration_margin} above {learned}'s"
        if surface.bought_gini is not None and surface.bought_gini > bound:
            bound = surface.bought_gini
            required = f"not all above {bound:.4f}, that of what people bought"
        finding = Finding.PASSED if fused[CONCENTRATION].low <= bound else Finding.FAILED
        yield Reason(f"{CONCENTRATION}.{name}", finding, str(fused[CONCENTRATION]), required)


def _not_below_usual(week: Expected, limits: GateParams) -> Iterator[Reason]:
    if not week.usual or week.n < limits.min_users:
        return
    drop = limits.week_drop
    bound = (1 - drop) * min(week.usual)
    finding = Finding.PASSED if week.observed >= bound else Finding.FAILED
    required = (
        f"at least {bound:.4f}: {1 - drop:.0%} of the lowest of {len(week.usual)} windows, else the data are suspect"
    )
    yield Reason(f"newest_week.{week.name}", finding, week.observed, required)


def _not_above_usual(change: Expected, limits: GateParams) -> Iterator[Reason]:
    if not change.usual or change.n < limits.min_users:
        return
    excess, always = limits.change_excess, limits.change_by_surface.get(change.name, 0.0)
    usual = (1 + excess) * max(change.usual)
    finding = Finding.PASSED if change.observed <= max(usual, always) else Finding.FAILED
    required = (
        f"at most {usual:.4f}: {1 + excess:.0%} of the most of {len(change.usual)} steps, else the data are suspect"
        if usual >= always
        else f"at most {always:.4f}, else the data are suspect"
    )
    yield Reason(f"served_change.{change.name}", finding, change.observed, required)


def _at_most(check: str, observed: float | None, limit: float) -> Iterator[Reason]:
    if observed is not None:
        finding = Finding.PASSED if observed <= limit else Finding.FAILED
        yield Reason(check, finding, float(observed), f"at most {limit:g}")
