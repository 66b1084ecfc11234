"""What a service says of itself on ``/metrics``, in Prometheus' text format."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

LISTS = ("/v1/recommend", "/v1/search", "/v1/items/{item_id}/similar")
"""Routes that show lists."""

_SAMPLE = re.compile(r"^(\w+)\{(.*)\} (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class _Sample(NamedTuple):
    name: str
    labels: dict[str, str]
    value: float


@dataclass(frozen=True)
class ServiceNumbers:
    """Since the service started.

    Attributes:
        answers: lists that were answered.
        fallbacks: of these, by the reason why they were simpler.
        p99_ms: 99th percentile of ``/v1/recommend``, interpolated within its bucket; None before the first.
        failed: answers with a status of 500 or above, over all routes.
        versions: what its workers serve.
    """

    answers: int
    fallbacks: dict[str, int] = field(default_factory=dict)
    p99_ms: float | None = None
    failed: int = 0
    versions: tuple[str, ...] = ()


def read(text: str) -> ServiceNumbers:
    """The numbers of a page; families that are missing count as nothing."""
    samples = [_sample(line) for line in text.splitlines()]
    found = [sample for sample in samples if sample is not None]
    counts = [s for s in found if s.name == "fuseline_request_duration_seconds_count"]
    fallbacks: Counter[str] = Counter()
    for one in found:
        if one.name == "fuseline_fallbacks_total" and one.labels.get("route") in LISTS:
            fallbacks[one.labels["reason"]] += int(one.value)
    return ServiceNumbers(
        answers=int(sum(s.value for s in counts if s.labels["route"] in LISTS and s.labels["status"] == "200")),
        fallbacks=dict(fallbacks),
        p99_ms=_percentile(found, 0.99),
        failed=int(sum(s.value for s in counts if s.labels["status"] >= "500")),
        versions=tuple(sorted({s.labels["version"] for s in found if s.name == "fuseline_bundle_info" and s.value})),
    )


def _sample(line: str) -> _Sample | None:
    match = _SAMPLE.match(line)
    return _Sample(match[1], dict(_LABEL.findall(match[2])), float(match[3])) if match else None


def _percentile(samples: list[_Sample], share: float) -> float | None:
    """Milliseconds below which this share of the answers of ``/v1/recommend`` lies."""
    buckets: Counter[float] = Counter()
    for one in samples:
        wanted = one.labels.get("route") == "/v1/recommend" and one.labels.get("status") == "200"
        if wanted and one.name == "fuseline_request_duration_seconds_bucket":
            buckets[float(one.labels["le"].replace("+Inf", "inf"))] += int(one.value)
    total = max(buckets.values(), default=0)
    if not total:
        return None
    below, before = 0.0, 0
    for edge, count in sorted(buckets.items()):
        if count >= share * total:
            if edge == float("inf"):
                return 1000 * below
            return 1000 * (below + (edge - below) * (share * total - before) / max(count - before, 1))
        below, before = edge, count
    return 1000 * below
