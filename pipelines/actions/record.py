"""Keep a candidate in MLflow, promoted or not: parameters, metrics, data revision, verdict, report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.actions import candidate as candidates
from pipelines.actions.candidate import Candidate
from pipelines.adapters.tracking import Registry, RunRecord, flat
from pipelines.storage import read_json


def record(*, home: Path, artifacts: Path) -> str:
    """Keep ``artifacts`` as a run, once per bundle; gives the run's id.

    Raises:
        ArtifactError: when a file is missing or damaged.
    """
    return Registry.open(home).record(run_record(candidates.read(artifacts)))


def run_record(candidate: Candidate) -> RunRecord:
    """What is kept of a candidate."""
    artifacts, root = candidate.artifacts, candidate.artifacts.parent
    metrics = read_json(artifacts / "evaluation" / "metrics.json")
    return RunRecord(
        bundle_id=candidate.id,
        params=_params(root / "params.yaml"),
        metrics=dict(_means(metrics)),
        tags={
            "data.snapshot": str(candidate.manifest["data"].get("snapshot")),
            "as_of": candidate.manifest["as_of"],
            "judged_id": candidate.judged["id"],
            "recipe": candidate.recipe,
            "revision": str(candidate.manifest["recipe"].get("revision")),
            **candidate.verdict_tags,
        },
        files=(
            artifacts / "evaluation" / "metrics.json",
            artifacts / "evaluation" / "report.html",
            artifacts / "gate" / "verdict.json",
            artifacts / "snapshot" / "manifest.json",
            root / "params.yaml",
            root / "dvc.lock",
        ),
    )


def _params(path: Path) -> dict[str, Any]:
    from pipelines import params

    return flat(params.load(path).model_dump(mode="json")) if path.exists() else {}


def _means(metrics: dict[str, Any]) -> list[tuple[str, float]]:
    """``surface/system/metric`` and its mean, without what was not applicable."""
    return [
        (f"{surface}/{system}/{name}", float(found["mean"]))
        for surface, systems in metrics.items()
        for system, values in systems.items()
        if isinstance(values, dict)
        for name, found in values.items()
        if isinstance(found, dict) and "mean" in found
    ]
