"""Is the candidate good enough: against baselines, not worse than a reference, better than a reference."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from pipelines.contracts import Surface
from pipelines.gating.comparison import Difference, Finding, paired, spent
from pipelines.gating.evidence import Evidence, SurfaceEvidence
from pipelines.gating.reason import Reason
from pipelines.params import GateParams

PRIMARY = (Surface.RECOMMEND, Surface.RECOMMEND_NEW, Surface.SEARCH)
"""The first of these that was judged carries the test against popularity."""


@dataclass(frozen=True)
class Compared:
    """How comparisons are made: limits, number of looks at this champion, randomness."""

    limits: GateParams
    looks: int
    seed: int
    draws: int

    def margin(self, surface: str) -> float:
        """Non-inferiority margin of a surface as a share of the reference's score."""
        return self.limits.margin_by_surface.get(surface, self.limits.margin)

    def difference(self, candidate: np.ndarray, reference: np.ndarray, *, alpha: float) -> Difference:
        """Candidate minus reference, paired over users."""
        return paired(candidate, reference, alpha=alpha, seed=self.seed, draws=self.draws)


def against_baselines(evidence: Evidence, compared: Compared) -> Iterator[Reason]:
    """Mode ``first``: not worse than the best baseline by more than the margin, better than popularity.

    Nothing serves yet that could be harmed, so the margin is on the estimate; that the candidate beats
    popularity must be shown by the interval. Surfaces with too few users are told apart as no evidence.
    """
    judged = {name: found for name, found in evidence.surfaces.items() if users(found) >= compared.limits.min_users}
    if not judged:
        most = max(map(users, evidence.surfaces.values()), default=0)
        found = f"{most} users to judge by" if most else "nothing was held out"
        required = (
            f"{compared.limits.min_users} users for an interval; without them nothing speaks against a first model"
        )
        yield Reason("no_evidence", Finding.PASSED, found, required)
        return
    primary = next((name for name in PRIMARY if name in judged), next(iter(judged)))
    for name, surface in judged.items():
        baseline = best(surface.members, surface.baselines)
        if baseline is not None:
            yield _not_worse(name, baseline, surface, compared)
    yield from _beats_popularity(primary, judged[primary], compared)


def not_inferior(evidence: Evidence, compared: Compared) -> Iterator[Reason]:
    """On every surface: the interval of candidate minus reference lies above minus the margin.

    One-sided at ``alpha``, shared among the looks at this champion. All surfaces must pass, so they need
    no correction among themselves. A surface that hardly anybody used yet (a search of the first days) leaves the
    decision to the others.
    """
    alpha = 2 * spent(compared.limits.alpha, compared.looks)
    judged = _spoken_for(evidence.surfaces, compared.limits)
    for name, surface in evidence.surfaces.items():
        if surface.reference is None:
            continue
        if name not in judged:
            required = f"{compared.limits.min_users} for an interval; the other surfaces decide"
            yield Reason(f"no_evidence.{name}", Finding.PASSED, f"{users(surface)} to judge by", required)
            continue
        found = compared.difference(surface.candidate, surface.reference, alpha=alpha)
        bound = -compared.margin(name) * mean(surface.reference)
        same = evidence.champion is not None and evidence.candidate.judged == evidence.champion.judged
        finding = Finding.PASSED if same else _enough(found, found.at_least(bound), compared)
        score = mean(surface.reference)
        required = f"lower bound at least {bound:+.4f}, {compared.margin(name):.0%} of the reference's {score:.4f}"
        yield Reason(f"not_inferior.{name}", finding, _observed(found, finding), required, found)


def superior(evidence: Evidence, compared: Compared) -> Iterator[Reason]:
    """Mode ``recipe``: on at least one surface the interval of candidate minus refit lies above zero.

    Two-sided at ``alpha``, shared among the looks and among the surfaces, since one of them is enough.
    """
    spoken_for = _spoken_for(evidence.surfaces, compared.limits)
    judged = {name: s for name, s in spoken_for.items() if s.reference is not None}
    alpha = spent(compared.limits.alpha, compared.looks) / max(1, len(judged))
    found = {
        name: compared.difference(surface.candidate, surface.reference, alpha=alpha)
        for name, surface in judged.items()
        if surface.reference is not None
    }
    findings = {name: _enough(one, one.above(0.0), compared) for name, one in found.items()}
    if Finding.PASSED in findings.values():
        finding = Finding.PASSED
    else:
        finding = Finding.UNDECIDED if Finding.UNDECIDED in findings.values() else Finding.FAILED
    shown = next(name for name, one in findings.items() if one is finding)
    required = f"interval above zero on one of {', '.join(found)}, two-sided at {alpha:.3g}"
    observed = "; ".join(f"{name} {_observed(one, findings[name])}" for name, one in found.items())
    yield Reason("superior_to_refit", finding, observed, required, found[shown])


def _spoken_for(surfaces: Mapping[str, SurfaceEvidence], limits: GateParams) -> Mapping[str, SurfaceEvidence]:
    """Surfaces with users or queries enough for an interval; all of them where none has."""
    return {name: one for name, one in surfaces.items() if users(one) >= limits.min_users} or surfaces


def _not_worse(name: str, baseline: str, surface: SurfaceEvidence, compared: Compared) -> Reason:
    found = compared.difference(surface.candidate, surface.members[baseline], alpha=compared.limits.alpha)
    bound = -compared.margin(name) * mean(surface.members[baseline])
    finding = Finding.PASSED if found.mean >= bound else Finding.FAILED
    required = (
        f"mean at least {bound:+.4f}, {compared.margin(name):.0%} of {baseline}'s {mean(surface.members[baseline]):.4f}"
    )
    return Reason(f"not_worse_than_baseline.{name}", finding, str(found), required, found)


def _beats_popularity(name: str, surface: SurfaceEvidence, compared: Compared) -> Iterator[Reason]:
    popularity = surface.popularity
    if popularity is None:
        return
    check, required = f"better_than_popularity.{name}", "interval above zero"
    if set(surface.members) == {popularity}:
        yield Reason(check, Finding.PASSED, "no other member is applicable", required)
        return
    found = compared.difference(surface.candidate, surface.members[popularity], alpha=compared.limits.alpha)
    finding = found.above(0.0)
    yield Reason(check, finding, _observed(found, finding), required, found)


def _enough(found: Difference, finding: Finding, compared: Compared) -> Finding:
    """A handful of users shows nothing, whatever their interval."""
    return finding if found.n >= compared.limits.min_users else Finding.UNDECIDED


def _observed(found: Difference, finding: Finding) -> str:
    seen = f"; a difference of {found.detectable:.4f} could have been seen" if finding is Finding.UNDECIDED else ""
    return f"{found}{seen}"


def best(members: Mapping[str, np.ndarray], names: Iterable[str]) -> str | None:
    """The one of these with the highest mean of its values, the first of equals; None without any."""
    return max(names, key=lambda name: mean(members[name]), default=None)


def mean(values: np.ndarray) -> float:
    """Mean without the undefined values; 0 when all are."""
    return float(np.nanmean(values)) if _count(values) else 0.0


def _count(values: np.ndarray) -> int:
    return int((~np.isnan(values)).sum())


def users(surface: SurfaceEvidence) -> int:
    """Users who say something on this surface."""
    return _count(surface.candidate)
