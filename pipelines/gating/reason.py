"""One check of the gate: what was observed, what was required, and what that means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipelines.gating.comparison import Difference, Finding


@dataclass(frozen=True)
class Reason:
    """A row of the verdict; ``difference`` when it rests on a paired comparison."""

    check: str
    finding: Finding
    observed: str | float | None
    required: str
    difference: Difference | None = None

    def as_json(self) -> dict[str, Any]:
        """The contract's four fields; ``undecided`` marks a check that did not fail and did not pass either."""
        row: dict[str, Any] = {
            "check": self.check,
            "passed": self.finding is Finding.PASSED,
            "observed": round(self.observed, 6) if isinstance(self.observed, float) else self.observed,
            "required": self.required,
        }
        if self.finding is Finding.UNDECIDED:
            row["undecided"] = True
        if self.difference is not None:
            row["difference"] = self.difference.as_json()
        return row
