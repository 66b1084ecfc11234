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
from pipelines.evaluation.protocol import PLAIN, Lister, SurfaceEvaluation
from pipelines.evaluation.targets import Audience, Targets
from pipelines.params import AllParams
from pipelines.splitting import Instants
from pipelines.storage import replacing_folder, write_json, write_text
from pipelines.workspace import JUDGED, SERVED, Workspace

NOTHING_FOLLOWED: dict[str, Any] = {"steps": [], "weeks": []}
NO_MEMBERS = {
    Surface.RECOMMEND: "no member recommends",
    Surface.RECOMMEND_NEW: "no member recommends",
    Surface.SEARCH: "no search members",
}
NO_HOLDOUT = "the log is too short to hold anything out"
NO_AUDIENCE = "nobody known before the holdout has a target in it"
NO_QUERIES = "no query was judged, and nothing was chosen after a search in the holdout"


@dataclass(frozen=True)
class Evaluation:
    """Documents by file name without ``.json``, and the two large tables."""

    documents: dict[str, Any]
    per_user: pa.Table = field(default_factory=tables.PER_USER.empty_table)
    rankings: pa.Table = field(default_factory=tables.RANKINGS.empty_table)


def evaluate(work: Workspace, params: AllParams, *, lister: Lister = PLAIN) -> Evaluation:
    """Put the judged bundle to the holdout; a surface that cannot be judged says why."""
    instants = work.instants()
    judged = Bundle.load(work.judged)
    audiences = targets.audiences(work, judged.features, params)
    results, reasons = surfaces(judged, audiences, lister)
    if not results:
        return nothing(reasons)
    measured = measure(judged, results, params, lister)
    documents: dict[str, Any] = {name: reasoned(found, reasons) for name, found in measured.items()}
    documents["costs"] = costs(work.judged, judged, results)
    documents["stability"] = NOTHING_FOLLOWED
    if instants.judged is not None:
        documents["stability"] = stability.stability(
            instants,
            loader(work, judged),
            results,
            targets.read(work.split / "targets.parquet"),
            seed=params.seed,
            lister=lister,
        )
    documents["summary"] = summary(work, judged, instants, results)
    return Evaluation(documents, tables.per_user(results), tables.rankings(results, judged.features.item_ids))


def nothing(reasons: Mapping[str, str]) -> Evaluation:
    """The evaluation when there is nothing to judge by."""
    documents: dict[str, Any] = {name: reasoned({}, reasons) for name in ("metrics", "comparisons", "slices", "ledger")}
    return Evaluation(documents | {"costs": {}, "stability": NOTHING_FOLLOWED, "summary": {}})


def surfaces(
    bundle: Bundle, audiences: Mapping[Surface, Audience], lister: Lister = PLAIN
) -> tuple[dict[str, SurfaceEvaluation], dict[str, str]]:
    """What was found by surface, and why the other surfaces were not judged."""
    results: dict[str, SurfaceEvaluation] = {}
    reasons: dict[str, str] = {}
    for surface in Surface:
        if surface not in bundle.manifest["surfaces"]:
            reasons[surface] = NO_MEMBERS[surface]
        elif surface not in audiences:
            reasons[surface] = NO_HOLDOUT
        elif not len(audiences[surface]):
            reasons[surface] = NO_QUERIES if surface is Surface.SEARCH else NO_AUDIENCE
        else:
            results[surface] = protocol.evaluate_surface(bundle, audiences[surface], lister=lister)
    return results, reasons


def measure(
    bundle: Bundle, results: Mapping[str, SurfaceEvaluation], params: AllParams, lister: Lister = PLAIN
) -> dict[str, dict[str, Any]]:
    """Headline metrics, comparisons, slices and ledger, each by surface."""
    slipped = {name: slices.slips(bundle, one, seed=params.seed, lister=lister) for name, one in results.items()}
    how = {"seed": params.seed, "draws": params.evaluation.bootstrap_draws}
    return {
        "metrics": {name: protocol.summarise(result, **how) for name, result in results.items()},
        "comparisons": {name: comparisons.compare(result, **how) for name, result in results.items()},
        "slices": {
            name: slices.summarise([*slices.slices(result, bundle.features), *slipped[name]], **how)
            for name, result in results.items()
        },
        "ledger": {name: ledger.ledger(bundle, result, lister=lister, **how) for name, result in results.items()},
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
    work: Workspace, bundle: Bundle, instants: Instants, results: Mapping[str, SurfaceEvaluation]
) -> dict[str, Any]:
    """What was judged on what, for the report."""
    holdout = targets.read(work.split / "holdout.parquet").get(JUDGED, Targets((), (), ()))
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
