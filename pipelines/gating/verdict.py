"""``(evidence, limits) -> Verdict``: pure, the same answer for the same numbers.

Three things can be said of a requirement: it holds, it is shown not to hold, or the data cannot tell.
One that is shown not to hold makes ``reject``; else one that cannot be told makes ``not_enough_evidence``;
else the verdict is ``promote``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pipelines.gating.comparison import Finding
from pipelines.gating.evidence import Candidate, Champion, Evidence, Mode, identity
from pipelines.gating.guardrails import guardrails
from pipelines.gating.quality import Compared, against_baselines, not_inferior, superior
from pipelines.gating.reason import Reason
from pipelines.params import GateParams

DRAWS = 10_000


class Decision(StrEnum):
    """What may happen to the candidate."""

    PROMOTE = "promote"
    REJECT = "reject"
    NOT_ENOUGH_EVIDENCE = "not_enough_evidence"


@dataclass(frozen=True)
class Verdict:
    """The decision, every check behind it, and which bundles it speaks of."""

    decision: Decision
    mode: Mode
    reasons: tuple[Reason, ...]
    candidate: Candidate
    champion: Champion | None
    looks: int

    def as_json(self) -> dict[str, Any]:
        """The content of ``verdict.json``: ids at the top, what identifies them in full under ``about``."""
        return {
            "verdict": str(self.decision),
            "mode": str(self.mode),
            "reasons": [reason.as_json() for reason in self.reasons],
            "candidate": self.candidate.bundle,
            "champion": self.champion.bundle if self.champion else None,
            "about": {
                "candidate": identity(self.candidate),
                "champion": identity(self.champion),
                "looks": self.looks,
            },
        }


def decide(evidence: Evidence, limits: GateParams, *, seed: int, draws: int = DRAWS) -> Verdict:
    """Judge a candidate.

    Args:
        evidence: what was measured.
        limits: section ``gate`` of the parameters.
        seed: of the bootstrap.
        draws: bootstrap draws.
    """
    reasons = (
        *_quality(evidence, Compared(limits, evidence.looks, seed, draws)),
        *guardrails(evidence, limits, seed=seed),
    )
    findings = {reason.finding for reason in reasons}
    if Finding.FAILED in findings:
        decision = Decision.REJECT
    elif Finding.UNDECIDED in findings:
        decision = Decision.NOT_ENOUGH_EVIDENCE
    else:
        decision = Decision.PROMOTE
    return Verdict(decision, evidence.mode, reasons, evidence.candidate, evidence.champion, evidence.looks)


def _quality(evidence: Evidence, compared: Compared) -> Iterator[Reason]:
    if evidence.not_comparable is not None:
        yield Reason("comparable", Finding.UNDECIDED, evidence.not_comparable, "a reference that never saw the holdout")
        return
    compares = any(surface.reference is not None for surface in evidence.surfaces.values())
    if evidence.mode is Mode.RECIPE and not compares:
        yield Reason("superior_to_refit", Finding.UNDECIDED, "nothing was held out", "users to compare the recipes on")
    elif evidence.mode is Mode.FIRST or not compares:
        yield from against_baselines(evidence, compared)
    elif evidence.mode is Mode.REFRESH:
        yield from not_inferior(evidence, compared)
    else:
        yield from superior(evidence, compared)
        yield from not_inferior(evidence, compared)
