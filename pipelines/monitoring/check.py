"""One thing that was looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Bound = Literal["at most", "at least"]


@dataclass(frozen=True)
class Check:
    """What was observed, and what was wanted.

    Attributes:
        name: of the check.
        observed: the number; None when it does not apply.
        threshold: what the number is held against.
        bound: on which side of the threshold it should lie.
        not_applicable: why there is nothing to hold against it; None when there is.
        details: more numbers, for people.
    """

    name: str
    observed: float | None
    threshold: float
    bound: Bound
    not_applicable: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool | None:
        """Whether it is well; None when it does not apply."""
        if self.observed is None:
            return None
        return self.observed <= self.threshold if self.bound == "at most" else self.observed >= self.threshold

    @property
    def alert(self) -> str | None:
        """What to tell people, or None when there is nothing to tell."""
        if self.passed is not False:
            return None
        return f"{self.name} is {self.observed:.4g}, wanted {self.bound} {self.threshold:.4g}"

    def as_json(self) -> dict[str, Any]:
        """A JSON-able value."""
        return {
            "name": self.name,
            "observed": self.observed,
            "threshold": self.threshold,
            "bound": self.bound,
            "passed": self.passed,
            "not_applicable": self.not_applicable,
            "details": dict(self.details),
        }


def at_most(name: str, observed: float, threshold: float, **details: Any) -> Check:
    """A number that should not lie above its threshold."""
    return Check(name, round(float(observed), 6), threshold, "at most", details=details)


def at_least(name: str, observed: float, threshold: float, **details: Any) -> Check:
    """A number that should not lie below its threshold."""
    return Check(name, round(float(observed), 6), threshold, "at least", details=details)


def not_applicable(name: str, threshold: float, reason: str, *, bound: Bound = "at most") -> Check:
    """A check that has nothing to look at."""
    return Check(name, None, threshold, bound, not_applicable=reason)
