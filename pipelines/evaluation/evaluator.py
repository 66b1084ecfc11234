"""The whole evaluation of a judged bundle: read artifacts, measure every surface, keep every result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from pipelines import bundle as bundles
from pipelines.bundle import Bundle
from pipelines.contracts import Surface
from pipelines.evaluation import comparisons, ledger, protocol, report, slices, stability, tables, targets
from pipelines.evaluation.protocol import SurfaceEvaluation, Track, silently
from pipelines.evaluation.targets import Targets
from pipelines.params import AllParams
from pipelines.splitting import Instants
from pipelines.storage import replacing_folder, write_json, write_text
from pipelines.workspace import JUDGED, SERVED, Workspace

NO_SEARCH = "no search members"
NO_HOLDOUT = "the log is too short to hold anything out"
NO_AUDIENCE = "nobody known before the holdout has a target in it"


@dataclass(frozen=True)
class Evaluation:
    """Documents by file name without ``.json``, and the two large tables."""

    documents: dict[str, Any]
    per_user: pa.Table = field(default_factory=tables.PER_USER.empty_table)
    rankings: pa.Table = field(default_factory=tables.RANKINGS.empty_table)


def evaluate(work: Workspace, params: AllParams, *, track: Track[Any] = silently) -> Evaluation:
    """Put the judged bundle to the holdout; a surface that cannot be judged says why."""
    instants = work.instants()
    if instants.judged is None:
        return nothing(dict.fromkeys(Surface, NO_HOLDOUT))
    judged = Bundle.load(work.judged)
    holdout = targets.read(work.split / "holdout.parquet").get(instants.judged.name, Targets((), (), ()))
    results, reasons = surfaces(judged, holdout, params, track=track)
    measured = measure(judged, results, params, track=track)
    documents: dict[str, Any] = {name: reasoned(found, reasons) for name, found in measured.items()}
    documents["costs"] = costs(work.judged, judged, results)
    documents["stability"] = stability.stability(
        instants,
        loader(work, judged),
        results,
        targets.read(work.split / "targets.parquet"),
        seed=params.seed,
        track=track,
    )
    documents["summary"] = summary(judged, instants, holdout, results)
    return Evaluation(documents, tables.per_user(results), tables.rankings(results, judged.features.item_ids))


def nothing(reasons: Mapping[str, str]) -> Evaluation:
    """The evaluation when there is nothing to judge by."""
    documents: dict[str, Any] = {name: reasoned({}, reasons) for name in ("metrics", "comparisons", "slices", "ledger")}
    return Evaluation(documents | {"costs": {}, "stability": {"steps": [], "weeks": []}, "summary": {}})


def surfaces(
    bundle: Bundle, holdout: Targets, params: AllParams, *, track: Track[Any] = silently
) -> tuple[dict[str, SurfaceEvaluation], dict[str, str]]:
    """What was found by surface, and why the other surfaces were not judged."""
    results: dict[str, SurfaceEvaluation] = {}
    reasons = {str(Surface.SEARCH): NO_SEARCH}
    for surface in (Surface.RECOMMEND, Surface.RECOMMEND_NEW):
        if surface not in bundle.manifest["surfaces"]:
            reasons[surface] = "the bundle has no fusion for this surface"
            continue
        most = params.evaluation.max_users
        group = targets.audience(bundle.features, holdout, surface, max_users=most, seed=params.seed)
        if len(group):
            results[surface] = protocol.evaluate_surface(bundle, group, track=track)
        else:
            reasons[surface] = NO_AUDIENCE
    return results, reasons


def measure(
    bundle: Bundle, results: Mapping[str, SurfaceEvaluation], params: AllParams, *, track: Track[Any] = silently
) -> dict[str, dict[str, Any]]:
    """Headline metrics, comparisons, slices and ledger, each by surface."""
    how = {"seed": params.seed, "draws": params.evaluation.bootstrap_draws}
    return {
        "metrics": {name: protocol.summarise(result, **how) for name, result in results.items()},
        "comparisons": {name: comparisons.compare(result, **how) for name, result in results.items()},
        "slices": {
            name: slices.summarise(list(slices.slices(result, bundle.features)), **how)
            for name, result in results.items()
        },
        "ledger": {name: ledger.ledger(bundle, result, track=track, **how) for name, result in results.items()},
    }


def reasoned(found: Mapping[str, Any], reasons: Mapping[str, str]) -> dict[str, Any]:
    """Every surface of the contract: what was found on it, or why nothing was."""
    return {str(name): found[name] if name in found else {"not_applicable": reasons[name]} for name in Surface}


def costs(folder: Path, bundle: Bundle, results: Mapping[str, SurfaceEvaluation]) -> dict[str, Any]:
    """Milliseconds and megabytes of members and surfaces."""
    found = ledger.costs(bundle, [result.audience for result in results.values()])
    for name, cost in found["members"].items():
        cost["megabytes"] = ledger.megabytes(folder / "members" / name)
    return found | {"bundle": {"megabytes": ledger.megabytes(folder)}}


def loader(work: Workspace, judged: Bundle) -> Callable[[str], Bundle]:
    """Bundles by name of the instant; the served one as it will be shipped."""

    def load(name: str) -> Bundle:
        if name == JUDGED:
            return judged
        return Bundle.load(work.bundle) if name == SERVED else bundles.at_instant(work.root, name)

    return load


def summary(
    bundle: Bundle, instants: Instants, holdout: Targets, results: Mapping[str, SurfaceEvaluation]
) -> dict[str, Any]:
    """What was judged on what, for the report."""
    codes = [bundle.features.item_ids.code(item) for items in holdout.items for item in items]
    return {
        "bundle": {key: bundle.manifest[key] for key in ("id", "as_of", "surfaces", "members")},
        "instants": instants.as_json(),
        "target": bundle.features.target,
        "users": bundle.features.n_users,
        "catalogue": bundle.features.n_items,
        "pairs": len(bundle.features.user_items.items),
        "holdout": {
            "users": len(holdout.users),
            "pairs": holdout.n_pairs,
            "pairs_of_unknown_items": sum(code < 0 for code in codes),
            "judged_users": {surface: len(result.audience) for surface, result in results.items()},
        },
    }


def save(evaluation: Evaluation, folder: Path) -> None:
    """Write everything, or nothing."""
    with replacing_folder(folder) as aside:
        for name, document in evaluation.documents.items():
            write_json(aside / f"{name}.json", document)
        pq.write_table(evaluation.per_user, aside / "per_user.parquet", compression="zstd")
        pq.write_table(evaluation.rankings, aside / "rankings.parquet", compression="zstd")
        (aside / "plots").mkdir()
        for name, table in tables.plots(evaluation.documents).items():
            csv.write_csv(table, aside / "plots" / f"{name}.csv")
        write_text(aside / "report.html", report.render(evaluation.documents))
