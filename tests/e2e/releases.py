"""Finished runs and promotions for tests that need a champion, without training anything."""

from __future__ import annotations

from pathlib import Path

from benchmarks.made_bundle import make, write_manifest
from pipelines.actions.promote import PromotionResult, promote
from pipelines.champion import Pointer
from pipelines.storage import read_json, write_json


def candidate(root: Path, *, seed: int, champion_id: str | None) -> Path:
    """Artifacts of a finished run whose verdict is to promote."""
    artifacts = root / f"run-{seed}" / "artifacts"
    judged = read_json(make(artifacts / "judged", seed=seed) / "manifest.json")
    served = make(artifacts / "bundle", seed=seed + 100)
    about = {k: v for k, v in read_json(served / "manifest.json").items() if k not in {"id", "files", "parent"}}
    write_manifest(served, {**about, "parent": judged["id"]})
    write_json(artifacts / "evaluation" / "metrics.json", {"recommend": {"fused": {"ndcg@10": {"mean": 0.4}}}})
    verdict = {"verdict": "promote", "mode": "first", "reasons": [], "champion": champion_id}
    bundle_id = read_json(served / "manifest.json")["id"]
    write_json(artifacts / "gate" / "verdict.json", {**verdict, "candidate": bundle_id})
    return artifacts


def promoted(home: Path, artifacts: Path) -> PromotionResult:
    """A promotion with the real registry; packaging is tested elsewhere and costs seconds."""
    return promote(home=home, artifacts=artifacts, package=lambda *_: "fuseline:none", keep=5)


def stored(home: Path, version: int) -> Pointer:
    """A bundle where promoted ones lie, and the pointer to it; nothing is registered."""
    bundle = make(home / "var" / "bundles" / f"b{version}" / "bundle", seed=version)
    return Pointer(version, bundle, None, f"b{version}", None, "r")
