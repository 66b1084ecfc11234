"""From artifacts to evidence: the only part of the gate that opens files of the candidate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.contracts import FUSED
from pipelines.evaluation import metrics, slices
from pipelines.evaluation.protocol import scored
from pipelines.evaluation.targets import Audience
from pipelines.features.state import FeatureState
from pipelines.gating.evidence import (
    DECIDING,
    Candidate,
    Champion,
    Evidence,
    Expected,
    Mode,
    Slice,
    Span,
    SurfaceEvidence,
)
from pipelines.gating.pinning import audiences
from pipelines.gating.quality import best
from pipelines.model_registry import BASELINE_KINDS, PARTIAL_KINDS
from pipelines.params import AllParams
from pipelines.splitting import Instants
from pipelines.storage import file_sha256, read_json

CRITICAL = "critical"
POPULARITY_KIND = "popularity"
WEEK_DAYS = 7.0
SECONDS_A_DAY = 86_400.0
NEW_ITEMS = ("item_age", "new in 28 days")


def evidence(artifacts: Path, params: AllParams) -> Evidence:
    """Read everything that the verdict on ``artifacts/bundle`` depends on."""
    pinned = read_json(artifacts / "reference" / "manifest.json")
    candidate = _candidate(artifacts)
    mode = Mode(pinned["mode"])
    tables = {name: pq.read_table(artifacts / "reference" / f"{name}.parquet") for name in pinned["references"]}
    groups, features = _groups(artifacts, params, candidate)
    own = pq.read_table(artifacts / "evaluation" / "rankings.parquet")
    lists = {name: by_system(own, group, features) for name, group in groups.items() if features}
    against = {name: _references(tables, name, group, features) for name, group in groups.items() if features}
    if mode is Mode.RECIPE and against and _same_lists(lists, against):
        mode = Mode.REFRESH
    chosen = "refit" if mode is Mode.RECIPE else "judged"
    needed = bool(groups) and mode is not Mode.FIRST and pinned["champion"]["judged_id"] is not None
    refused = pinned["refused"].get(chosen) if needed else None
    found: dict[str, SurfaceEvidence] = {}
    if features is not None:
        found = {
            name: _surface(artifacts, group, features, lists=lists[name], reference=against[name].get(chosen))
            for name, group in groups.items()
        }
    return Evidence(
        mode=mode,
        candidate=candidate,
        champion=_champion(pinned["champion"]),
        not_comparable=refused,
        looks=pinned["looks"],
        surfaces=found,
        newest_week=tuple(_newest_weeks(artifacts, groups, lists, features)) if features else (),
        served_change=tuple(_served_changes(artifacts)),
        data=_data(artifacts),
        **_costs(artifacts),
    )


def by_system(table: pa.Table, group: Audience, features: FeatureState) -> dict[str, np.ndarray]:
    """Every system's lists on the group's surface: :func:`codes_of` by system."""
    rows = table.filter(pc.field("surface") == group.surface)
    return {
        name: codes_of(rows.filter(pc.field("system") == name), group, features)
        for name in pc.unique(rows["system"]).to_pylist()
    }


def codes_of(table: pa.Table, group: Audience, features: FeatureState) -> np.ndarray:
    """Lists as codes of the candidate's catalogue, int64 ``[users, 20]`` in the group's order, -1: empty place.

    An item outside that catalogue keeps its place under a code that nothing else has.
    """
    row_of = {user: row for row, user in enumerate(group.users)}
    out = np.full((len(group), metrics.LIST_LENGTH), -1, np.int64)
    codes = features.item_ids.codes(table["item_id"].to_pylist())
    for user, rank, code in zip(table["history_id"].to_pylist(), table["rank"].to_pylist(), codes, strict=True):
        if user in row_of and rank <= metrics.LIST_LENGTH:
            out[row_of[user], rank - 1] = code if code >= 0 else features.n_items + rank
    return out


def measured(codes: np.ndarray, group: Audience, n_items: int) -> np.ndarray:
    """The deciding metric per user, float64 ``[users]``."""
    return scored(codes, group, n_items + metrics.LIST_LENGTH + 1)[DECIDING]


def _groups(
    artifacts: Path, params: AllParams, candidate: Candidate
) -> tuple[dict[str, Audience], FeatureState | None]:
    if candidate.judged is None:
        return {}, None
    features = FeatureState.load(artifacts / "judged" / "features")
    judged = read_json(artifacts / "judged" / "manifest.json")["surfaces"]
    groups = audiences(artifacts, features, params)
    return {name: group for name, group in groups.items() if name in judged}, features


def _references(
    tables: Mapping[str, pa.Table], name: str, group: Audience, features: FeatureState
) -> dict[str, np.ndarray]:
    rows = {reference: table.filter(pc.field("surface") == name) for reference, table in tables.items()}
    return {reference: codes_of(table, group, features) for reference, table in rows.items()}


def _same_lists(own: Mapping[str, dict[str, np.ndarray]], against: Mapping[str, dict[str, np.ndarray]]) -> bool:
    """Whether the refit answers everybody as the candidate does: the recipes differ in name only."""
    pairs = [(own[name][FUSED], found.get("refit")) for name, found in against.items()]
    return all(refit is not None and np.array_equal(fused, refit) for fused, refit in pairs)


def _surface(
    artifacts: Path,
    group: Audience,
    features: FeatureState,
    *,
    lists: Mapping[str, np.ndarray],
    reference: np.ndarray | None,
) -> SurfaceEvidence:
    kinds = {m: about["kind"] for m, about in read_json(artifacts / "judged" / "manifest.json")["members"].items()}
    scores = {system: measured(codes, group, features.n_items) for system, codes in lists.items()}
    members = {system: values for system, values in scores.items() if system != FUSED}
    baselines = tuple(m for m in members if kinds.get(m) in BASELINE_KINDS)
    popularity = next((m for m in baselines if kinds[m] == POPULARITY_KIND), None)
    other = reference
    if other is None and (rival := rival_of_slices(kinds, members)) is not None:
        other = lists[rival]
    return SurfaceEvidence(
        candidate=scores[FUSED],
        reference=None if reference is None else measured(reference, group, features.n_items),
        members=members,
        baselines=baselines,
        popularity=popularity,
        slices={} if other is None else dict(_slices(group, features, lists[FUSED], other)),
        lists=_list_metrics(artifacts, group.surface),
        bought_gini=None if group.typed else _bought_gini(group, features.n_items),
    )


def rival_of_slices(kinds: Mapping[str, str], members: Mapping[str, np.ndarray]) -> str | None:
    """The baseline that slices are compared with where nothing serves yet: the best that speaks of all items.

    Args:
        kinds: by member.
        members: the metric per user of each, ``[users]``, NaN where undefined.

    Returns:
        Its name; None without one.
    """
    return best(members, (member for member in members if kinds.get(member) in BASELINE_KINDS - PARTIAL_KINDS))


def _slices(
    group: Audience, features: FeatureState, candidate: np.ndarray, other: np.ndarray
) -> Iterator[tuple[str, Slice]]:
    """Users by length of history and items that are new in the catalogue, or queries; candidate and other on each."""
    whole = [measured(codes, group, features.n_items) for codes in (candidate, other)]
    for slicing, name, rows in slices.row_slices(group, features):
        yield f"{slicing} {name}", Slice(whole[0][rows], whole[1][rows])
    if group.typed:
        return
    wanted = next(items for *which, items in slices.item_slices(features) if tuple(which) == NEW_ITEMS)
    rows, part = slices.restrict_to_items(group, wanted)
    new = [measured(codes[rows], part, features.n_items) for codes in (candidate, other)]
    yield " ".join(NEW_ITEMS), Slice(*new)


def _bought_gini(group: Audience, n_items: int) -> float | None:
    taken = np.concatenate([*group.relevant, np.zeros(0, np.int64)])
    taken = taken[taken >= 0]
    return metrics.gini(np.bincount(taken, minlength=n_items).astype(np.float64)) if len(taken) else None


def _list_metrics(artifacts: Path, surface: str) -> dict[str, dict[str, Span]]:
    systems = read_json(artifacts / "evaluation" / "metrics.json").get(surface, {})
    return {
        system: {
            name: Span(found["mean"], found["ci_low"], found["ci_high"])
            for name, found in values.items()
            if isinstance(found, dict) and "mean" in found
        }
        for system, values in systems.items()
        if isinstance(values, dict) and "not_applicable" not in values
    }


def _newest_weeks(
    artifacts: Path,
    groups: Mapping[str, Audience],
    lists: Mapping[str, Mapping[str, np.ndarray]],
    features: FeatureState,
) -> Iterator[Expected]:
    """The last seven days before t3, against the last whole week of every rolling window."""
    instants = Instants.from_json(read_json(artifacts / "split" / "instants.json"))
    weeks = read_json(artifacts / "evaluation" / "stability.json")["weeks"]
    if instants.judged is None:
        return
    length = (instants.judged.until - instants.judged.time).total_seconds() / SECONDS_A_DAY
    for name, group in groups.items():
        rows, part = group.restricted([days >= length - WEEK_DAYS for days in group.days])
        values = measured(lists[name][FUSED][rows], part, features.n_items)
        usual = []
        for window in instants.windows:
            whole = [w for w in weeks if (w["surface"], w["instant"]) == (name, window.name) and w["days"] >= WEEK_DAYS]
            last = max(whole, key=lambda week: week["week"], default=None)
            if last is not None and last[DECIDING]["mean"] is not None:
                usual.append(float(last[DECIDING]["mean"]))
        observed = values[~np.isnan(values)]
        if len(observed):
            yield Expected(name, float(observed.mean()), len(observed), tuple(usual))


def _served_changes(artifacts: Path) -> Iterator[Expected]:
    """How far lists move from t2 to t3, against the steps between windows, each per day of its length."""
    steps = read_json(artifacts / "evaluation" / "stability.json")["steps"]
    for step in (s for s in steps if s["to"] == "served" and s["rbo@10"]["mean"] is not None):
        others = [s for s in steps if s["surface"] == step["surface"] and s["to"] != "served" and s["rbo@10"]["n"]]
        usual = tuple((1 - s["rbo@10"]["mean"]) * max(1.0, step["days"] / s["days"]) for s in others)
        yield Expected(step["surface"], 1 - step["rbo@10"]["mean"], step["rbo@10"]["n"], usual)


def _data(artifacts: Path) -> dict[str, tuple[str, ...]]:
    folder = artifacts / "validation"
    return {path.stem: critical(read_json(path)) for path in sorted(folder.glob("*.json"))}


def critical(report: Mapping[str, Any]) -> tuple[str, ...]:
    """What failed critically in a validation report, in words."""
    found = [one for suite in report["suites"].values() for one in suite["expectations"] if not one["success"]]
    return tuple(
        f"{one['expectation']} of {one['column'] or 'the table'}: {one['observed']}"
        for one in found
        if one["severity"] == CRITICAL
    )


def _costs(artifacts: Path) -> dict[str, float | None]:
    """Size of the served bundle, and time of one ranking on the slowest surface.

    Times differ from run to run; their limit is far from any usual value, so the verdict does not.
    """
    files = [path for path in (artifacts / "bundle").rglob("*") if path.is_file()]
    surfaces = read_json(artifacts / "evaluation" / "costs.json").get("surfaces", {})
    times = [about["p95_milliseconds"] for about in surfaces.values()]
    return {"megabytes": sum(path.stat().st_size for path in files) / 1e6, "rank_ms": max(times, default=None)}


def _candidate(artifacts: Path) -> Candidate:
    bundle, judged = artifacts / "bundle" / "manifest.json", artifacts / "judged" / "manifest.json"
    about = read_json(bundle)
    parent = about.get("parent")
    return Candidate(
        bundle=about["id"],
        judged=parent,
        recipe=about["recipe"]["id"],
        bundle_sha256=file_sha256(bundle),
        judged_sha256=file_sha256(judged) if parent else None,
    )


def _champion(pointer: Mapping[str, Any] | None) -> Champion | None:
    if pointer is None:
        return None
    return Champion(pointer["version"], pointer["bundle_id"], pointer["judged_id"], pointer["recipe"])
