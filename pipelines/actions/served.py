"""After a promotion: the champion has its Bento, and the running service answers with it."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from pipelines import champion
from pipelines.adapters import bento
from pipelines.champion import Pointer
from pipelines.errors import ArtifactError, PromotionRefused

IN_A_ROW = 16
"""Answers of one version, one after the other, that count as all workers: connections go round among them."""

ASK_SECONDS = 5.0
BETWEEN_SECONDS = 0.5


@dataclass(frozen=True)
class Served:
    """The version that answered, and how long that took."""

    version: int
    seconds: float


def package(home: Path) -> str:
    """Build the champion's Bento, unless it is there; gives its tag.

    Raises:
        PromotionRefused: when there is no champion.
        ArtifactError: when BentoML refuses.
    """
    now = _champion(home)
    return bento.build_bento(now.bundle, version=str(now.version), home=home)


def wait_until_served(home: Path, address: str, *, seconds: float, key: str | None = None) -> Served:
    """Ask the service until its answers carry the champion's version.

    Args:
        home: ``FUSELINE_HOME``.
        address: of the service, ``http://127.0.0.1:3000``.
        seconds: after which it is given up.
        key: for ``X-API-Key``, where the service wants one.

    Raises:
        PromotionRefused: when there is no champion.
        ArtifactError: when the service does not answer, or still with another version.
    """
    began, said, agreed = time.monotonic(), "nothing", 0
    while time.monotonic() - began < seconds:
        now = _champion(home)  # whoever moves it meanwhile moves the goal
        try:
            said = ask(address, key=key)
        except (OSError, ValueError, KeyError) as error:
            said = f"{type(error).__name__}: {error}"
        agreed = agreed + 1 if said == str(now.version) else 0
        if agreed == IN_A_ROW:
            return Served(now.version, round(time.monotonic() - began, 2))
        if not agreed:
            time.sleep(BETWEEN_SECONDS)
    raise ArtifactError(
        f"the service at {address} does not answer with the champion",
        found=said,
        wanted=f"version {_champion(home).version}",
        do="look at its log; `make serve` starts one",
    )


def ask(address: str, *, key: str | None) -> str:
    """``model_version`` of one answer, on a connection of its own; no impression of a person comes of it."""
    headers = {"Content-Type": "application/json", **({"X-API-Key": key} if key else {})}
    body = json.dumps({"n": 1, "explore": False}).encode()
    request = urllib.request.Request(f"{address.rstrip('/')}/v1/recommend", body, headers)  # noqa: S310 - told by the operator
    with urllib.request.urlopen(request, timeout=ASK_SECONDS) as answer:  # noqa: S310 - told by the operator
        return str(json.load(answer)["model_version"])


def _champion(home: Path) -> Pointer:
    now = champion.read(home)
    if now is None:
        raise PromotionRefused("there is no champion", do="run `dvc repro` and `fuseline promote`")
    return now
