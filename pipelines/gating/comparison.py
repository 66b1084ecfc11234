"""Paired comparison of two systems on the same users: interval, detectable difference, and what it proves.

The interval is the percentile bootstrap over users (Efron & Tibshirani 1993, ch. 13). The detectable
difference is the one that a two-sided test of this size finds four times out of five,
``(z(1 - alpha/2) + z(0.8)) * se`` (Cohen 1988, ch. 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist
from typing import Any

import numpy as np

POWER = 0.8
CHUNK_BYTES = 32_000_000


class Finding(StrEnum):
    """What an interval says about a requirement: it holds, it does not, or the data cannot tell."""

    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Difference:
    """Mean of candidate minus reference over ``n`` users, with its interval at level ``1 - alpha``.

    ``detectable``: the true difference that data of this size would show in four cases of five.
    """

    mean: float
    low: float
    high: float
    n: int
    alpha: float
    detectable: float

    def as_json(self) -> dict[str, Any]:
        """Fields rounded to six decimals (more differ between machines); null: below two users nothing is bounded."""
        numbers = {"mean": self.mean, "ci_low": self.low, "ci_high": self.high, "detectable": self.detectable}
        finite = {name: round(value, 6) + 0.0 if np.isfinite(value) else None for name, value in numbers.items()}
        return finite | {"n": self.n, "alpha": round(self.alpha, 6)}

    def __str__(self) -> str:
        """For people: mean, interval, users."""
        return f"{self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}] over {self.n}"

    def at_least(self, bound: float) -> Finding:
        """As :meth:`above`, and an interval that starts at the bound passes: equal systems are not inferior."""
        return Finding.PASSED if self.low >= bound else self.above(bound)

    def above(self, bound: float) -> Finding:
        """Whether the difference is above ``bound``: passed when the whole interval is, failed when none of it is."""
        if self.low > bound:
            return Finding.PASSED
        return Finding.FAILED if self.high < bound else Finding.UNDECIDED


def paired(candidate: np.ndarray, reference: np.ndarray, *, alpha: float, seed: int, draws: int) -> Difference:
    """Compare two systems user by user.

    Args:
        candidate: ``[users]``, a metric of the candidate; NaN: the user says nothing and is left out.
        reference: the same users in the same order.
        alpha: two-sided size of the interval.
        seed: of the draws.
        draws: bootstrap draws; raised so that ten of them lie outside on each side of a narrow ``alpha``.
    """
    differences = np.asarray(candidate, np.float64) - np.asarray(reference, np.float64)
    differences = differences[~np.isnan(differences)]
    n = len(differences)
    if n < 2:
        return Difference(float(differences.mean()) if n else 0.0, -np.inf, np.inf, n, alpha, np.inf)
    means = _bootstrap_means(differences, seed=seed, draws=max(draws, int(np.ceil(20 / alpha))))
    low, high = np.quantile(means, (alpha / 2, 1 - alpha / 2))
    normal = NormalDist()
    z = normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(POWER)
    error = float(differences.std(ddof=1) / np.sqrt(n))
    return Difference(float(differences.mean()), float(low), float(high), n, alpha, z * error)


def _bootstrap_means(values: np.ndarray, *, seed: int, draws: int) -> np.ndarray:
    """Means of ``draws`` samples with replacement, float64 ``[draws]``; memory bounded by chunks.

    Equal values are counted together: most users do not tell two good systems apart, so a draw is a
    multinomial over the few distinct differences and not over all users.
    """
    generator = np.random.default_rng(seed)
    distinct, counts = np.unique(values, return_counts=True)
    rows = max(1, CHUNK_BYTES // (8 * len(distinct)))
    sizes = [min(rows, draws - start) for start in range(0, draws, rows)]
    chunks = [generator.multinomial(len(values), counts / len(values), size) @ distinct for size in sizes]
    means: np.ndarray = np.concatenate(chunks) / len(values)
    return means


def spent(alpha: float, looks: int) -> float:
    """Size of the ``looks``-th test against one champion, from 1: ``alpha / looks``.

    Bonferroni over the looks taken so far, which is all that can be known when nobody says in advance
    how many there will be; ten looks at nothing then pass at least once with less than ``3 * alpha``.
    """
    return alpha / max(1, looks)
