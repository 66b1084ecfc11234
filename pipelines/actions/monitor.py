"""Look at what serves and at what happens, write down what was found, and tell people what is out of its limits."""

from __future__ import annotations

import json
import logging
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipelines import champion
from pipelines.errors import PromotionRefused
from pipelines.features.state import FeatureState
from pipelines.monitoring import checks, exposition
from pipelines.monitoring.check import Check
from pipelines.monitoring.checks import Learned
from pipelines.monitoring.exposition import ServiceNumbers
from pipelines.params import MonitoringParams
from pipelines.storage import read_json, write_json

logger = logging.getLogger("fuseline.monitoring")

TIMEOUT_S = 5.0
LATEST = "latest.json"


@dataclass(frozen=True)
class Report:
    """What one look found; ``file`` is where it lies."""

    at: datetime
    champion: dict[str, Any]
    window: dict[str, Any]
    checks: Sequence[Check]
    file: Path

    @property
    def alerts(self) -> list[dict[str, Any]]:
        """What is out of its limits."""
        return [
            {"check": one.name, "message": one.alert, "observed": one.observed, "threshold": one.threshold}
            for one in self.checks
            if one.alert
        ]

    def as_json(self) -> dict[str, Any]:
        """A JSON-able value."""
        return {
            "at": self.at.isoformat(),
            "champion": self.champion,
            "window": self.window,
            "checks": [one.as_json() for one in self.checks],
            "alerts": self.alerts,
            "file": self.file.as_posix(),
        }


def monitor(
    *,
    home: Path,
    limits: MonitoringParams,
    at: datetime,
    service_url: str | None = None,
    webhook: str | None = None,
    get: Callable[[str], str] | None = None,
    post: Callable[[str, bytes], None] | None = None,
) -> Report:
    """Look once; alerts are log lines and one message to ``webhook``, never an error.

    Args:
        home: ``FUSELINE_HOME``.
        limits: thresholds.
        at: time that names the report.
        service_url: of a running service, which is asked for ``/metrics``; else what it stored counts.
        webhook: takes the alerts as JSON by POST, if there are any.
        get: reads a URL.
        post: sends bytes to a URL.

    Raises:
        PromotionRefused: when there is no champion to look at.
        ArtifactError: when the champion's bundle, or the record of what was collected, is missing or damaged.
    """
    now = champion.read(home)
    if now is None:
        raise PromotionRefused("there is no champion to look at", do="run `dvc repro` and `fuseline promote`")
    from pipelines.adapters import collected

    features = FeatureState.load(now.bundle / "features")
    traffic = collected.traffic(home, since=features.time, days=limits.days, target=features.target)
    service, silent = _ask(service_url, get or _get)
    found = checks.examine(_learned(features), traffic, service, limits, silent=silent)
    about = {"version": now.version, "bundle_id": now.bundle_id, "as_of": features.time.isoformat()}
    window = {"days": list(traffic.days), "lists": traffic.lists, "served_versions": service and list(service.versions)}
    report = Report(at, about, window, found, folder(home) / f"{at:%Y-%m-%dT%H%M%S.%fZ}.json")
    write_json(report.file, report.as_json())
    write_json(folder(home) / LATEST, report.as_json())
    _tell(report, webhook, post or _post)
    return report


def folder(home: Path) -> Path:
    """Where reports lie."""
    return home / "var" / "monitoring"


def latest(home: Path) -> dict[str, Any]:
    """The newest report."""
    found: dict[str, Any] = read_json(folder(home) / LATEST)
    return found


def _learned(features: FeatureState) -> Learned:
    recent = features.items["bought_last28"]
    return Learned(
        as_of=features.time,
        item_ids=features.item_ids,
        popularity=recent if recent.sum() else features.items["bought"],
        price=features.items["price"],
        categories=features.catalog["category"].to_pylist(),
    )


def _ask(url: str | None, get: Callable[[str], str]) -> tuple[ServiceNumbers | None, str]:
    """The service's own numbers, and why there are none."""
    if not url:
        return None, "FUSELINE_SERVICE_URL is not set"
    try:
        return exposition.read(get(f"{_http(url).rstrip('/')}/metrics")), "the service has not answered anybody yet"
    except (OSError, ValueError) as error:
        logger.warning("the service at %s was not asked: %s", url, error)
        return None, f"the service at {url} does not answer"


def _tell(report: Report, webhook: str | None, post: Callable[[str, bytes], None]) -> None:
    for alert in report.alerts:
        logger.warning("alert: %s", alert["message"])
    if not webhook or not report.alerts:
        return
    told = {"source": "fuseline", "at": report.at.isoformat(), "champion": report.champion, "alerts": report.alerts}
    try:
        post(_http(webhook), json.dumps(told).encode())
    except (OSError, ValueError) as error:
        logger.error("the webhook was not told of %d alerts: %s", len(report.alerts), error)  # noqa: TRY400


def _http(url: str) -> str:
    """The URL, if it is one of the web: others would read files of this machine."""
    if urlsplit(url).scheme not in {"http", "https"}:
        raise ValueError(f"{url!r} is no http or https URL")
    return url


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310 - _http looked at the scheme
        text: str = answer.read().decode()
    return text


def _post(url: str, body: bytes) -> None:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method="POST")  # noqa: S310
    with urllib.request.urlopen(request, timeout=TIMEOUT_S):  # noqa: S310 - _http looked at the scheme
        pass
