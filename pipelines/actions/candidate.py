"""The bundle in ``artifacts/`` as an action finds it: is it whole, and is it the one that was judged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.champion import Pointer
from pipelines.errors import ArtifactError, PromotionRefused
from pipelines.manifest import MANIFEST, check_files
from pipelines.storage import file_sha256, read_json

PROMOTE = "promote"


@dataclass(frozen=True)
class Candidate:
    """A bundle, the judged one that it came from, and what the gate said of them."""

    artifacts: Path
    manifest: dict[str, Any]
    judged: dict[str, Any]
    verdict: dict[str, Any]

    @property
    def id(self) -> str:
        """The bundle's id."""
        return str(self.manifest["id"])

    @property
    def recipe(self) -> str:
        """Id of its recipe."""
        return str(self.manifest["recipe"]["id"])

    @property
    def verdict_tags(self) -> dict[str, str]:
        """The verdict in the words of the registry's tags; failed checks by name."""
        failed = [reason["check"] for reason in self.verdict["reasons"] if not reason["passed"]]
        return {"verdict": self.verdict["verdict"], "mode": self.verdict["mode"], "failed_checks": ", ".join(failed)}


def read(artifacts: Path) -> Candidate:
    """Read a candidate and make sure that it is whole and that the verdict speaks of it.

    Raises:
        ArtifactError: when a file is missing or damaged.
        PromotionRefused: when the bundle has no judged parent, or the verdict speaks of another one.
    """
    bundle, judged = artifacts / "bundle", artifacts / "judged"
    for folder in (bundle, judged):
        if not (folder / MANIFEST).exists():
            raise ArtifactError(f"{folder} holds no bundle", wanted=MANIFEST, do="run `dvc repro`")
    found = Candidate(
        artifacts,
        read_json(bundle / MANIFEST),
        read_json(judged / MANIFEST),
        read_json(artifacts / "gate" / "verdict.json"),
    )
    check_files(bundle, found.manifest)
    check_files(judged, found.judged)
    if not found.manifest.get("parent") or found.manifest["parent"] != found.judged["id"]:
        raise PromotionRefused(
            f"bundle {found.id} was never judged",
            found=f"parent {found.manifest.get('parent')}",
            wanted=f"the judged bundle {found.judged['id']}",
            do="run `dvc repro`",
        )
    _same_as_judged(found)
    return found


def _same_as_judged(found: Candidate) -> None:
    """By id and by the hash of both manifests, which name the hash of every file."""
    about = found.verdict.get("about", {}).get("candidate", {})
    pairs = [
        (found.verdict["candidate"], found.id),
        (about.get("bundle_sha256"), file_sha256(found.artifacts / "bundle" / MANIFEST)),
        (about.get("judged_sha256"), file_sha256(found.artifacts / "judged" / MANIFEST)),
    ]
    for said, there in pairs:
        if said is not None and said != there:
            raise PromotionRefused(
                "artifacts/bundle is not the bundle that the verdict speaks of",
                found=there[:16],
                wanted=said[:16],
                do="run `dvc repro`, which judges the bundle that is there",
            )


def allowed(found: Candidate, now: Pointer | None) -> None:
    """Refuse what the gate did not let through, or let through against another champion.

    Raises:
        PromotionRefused: saying what failed and the next move.
    """
    if found.verdict["verdict"] != PROMOTE:
        failed = found.verdict_tags["failed_checks"] or "no check failed"
        raise PromotionRefused(
            f"the verdict on bundle {found.id} is {found.verdict['verdict']}",
            found=failed,
            wanted=PROMOTE,
            do='look at artifacts/gate/verdict.json; `fuseline promote --force --reason "…"` overrides it',
        )
    serving = now.bundle_id if now else None
    if found.verdict["champion"] != serving:
        raise PromotionRefused(
            "the champion is no longer the one that the verdict compared with",
            found=serving or "none",
            wanted=found.verdict["champion"] or "none",
            do="run `dvc repro -f -s reference && dvc repro gate`, then promote",
        )
