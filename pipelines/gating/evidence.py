"""What the gate reads: small frozen values, no files, no bundle.

Everything is paired: all arrays of a surface speak of the same users in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np

DECIDING = "ndcg@10"
"""The metric that the gate compares, on every surface."""


class Mode(StrEnum):
    """What the candidate is compared with."""

    FIRST = "first"
    """There is no champion: the baselines."""
    REFRESH = "refresh"
    """The same recipe on newer data: the champion's judged bundle."""
    RECIPE = "recipe"
    """Another recipe: the champion's recipe refitted at the candidate's t2."""


@dataclass(frozen=True)
class Candidate:
    """Which bundle the verdict speaks of, by id and by content.

    ``bundle_sha256``, ``judged_sha256``: of the two manifests, which name the hash of every file. ``judged``
    is None when nothing could be held out.
    """

    bundle: str
    judged: str | None
    recipe: str
    bundle_sha256: str
    judged_sha256: str | None


@dataclass(frozen=True)
class Champion:
    """The champion that the verdict compares with."""

    version: int
    bundle: str
    judged: str | None
    recipe: str


@dataclass(frozen=True)
class Slice:
    """The deciding metric of a group of users, or of all users on a group of items.

    ``candidate`` and ``other`` ``[users of the slice]``; ``other`` is the reference, or without one the best baseline
    that speaks of all items.
    """

    candidate: np.ndarray
    other: np.ndarray


class Span(NamedTuple):
    """A mean over users with its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        """For people."""
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True)
class SurfaceEvidence:
    """One surface of the holdout.

    Attributes:
        candidate: the fusion's metric per user, ``[users]``, NaN where undefined.
        reference: the same of the bundle compared with; None in mode ``first`` or when it cannot be compared.
        members: the same of the candidate's base models, by params name.
        baselines: names of those members that only count and do not learn.
        popularity: name of the popularity member among the baselines, if any.
        slices: by name.
        lists: metrics of the lists shown, ``{system: {metric: span}}``, the fusion as ``fused``.
        bought_gini: Gini coefficient, 0 to 1, of how often these users took each item of the catalogue in the holdout.
    """

    candidate: np.ndarray
    reference: np.ndarray | None = None
    members: Mapping[str, np.ndarray] = field(default_factory=dict)
    baselines: tuple[str, ...] = ()
    popularity: str | None = None
    slices: Mapping[str, Slice] = field(default_factory=dict)
    lists: Mapping[str, Mapping[str, Span]] = field(default_factory=dict)
    bought_gini: float | None = None


@dataclass(frozen=True)
class Expected:
    """A number of the newest data over ``n`` users beside the same number of the rolling windows.

    ``usual``: one value per window, at the same distance in time; empty when there was none to measure.
    """

    name: str
    observed: float
    n: int
    usual: tuple[float, ...]


@dataclass(frozen=True)
class Evidence:
    """All that the verdict depends on, besides the limits.

    Attributes:
        mode: what the candidate is compared with.
        candidate: the bundle under judgment.
        champion: None in mode ``first``.
        not_comparable: why the reference may not be scored on this holdout, or None.
        looks: how many candidates, this one included, were compared with this champion.
        surfaces: by name; empty when nothing could be held out.
        newest_week: quality in the newest week of the holdout, per surface.
        served_change: how far lists move from the judged bundle to the served one, per surface.
        data: outcome of every validation report by name: what failed critically, empty when nothing did.
        rank_ms: 95th percentile of the time for one ranking, None when not measured.
        megabytes: size of the served bundle.
    """

    mode: Mode
    candidate: Candidate
    champion: Champion | None = None
    not_comparable: str | None = None
    looks: int = 1
    surfaces: Mapping[str, SurfaceEvidence] = field(default_factory=dict)
    newest_week: tuple[Expected, ...] = ()
    served_change: tuple[Expected, ...] = ()
    data: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rank_ms: float | None = None
    megabytes: float | None = None


def identity(value: Candidate | Champion | None) -> dict[str, Any] | None:
    """Fields as JSON."""
    return None if value is None else dict(vars(value))
