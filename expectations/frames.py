"""Facts about what members learn from: tables cut in time, targets, and feature states."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import ibis
import numpy as np

from expectations.runner import Check
from pipelines.adapters import frames
from pipelines.contracts import INTERACTIONS
from pipelines.features.state import FeatureState
from pipelines.splitting import Instant, Instants
from pipelines.workspace import Workspace

NO_EVENTS = "there are no positive events to learn from"


def checks(work: Workspace) -> list[Check]:
    """What to judge about a run's split and features."""
    placed = work.instants()
    instants = placed.before_holdout
    states = [state_facts(i.name, FeatureState.load(work.features(i.name)), i.time) for i in instants]
    return [
        Check("frames_interactions", _interactions(work, placed), NO_EVENTS),
        Check("frames_targets", _targets(work, placed) or None, "nothing can be held out"),
        Check("frames_features", states or None, "no instant lies before the holdout"),
    ]


def _interactions(work: Workspace, placed: Instants) -> list[dict[str, Any]] | None:
    """One row of facts for the table cut at t2 and one for that cut at t3."""
    rows = []
    cuts = [("history", placed.before_holdout[-1].time), ("current", placed.served.time)]
    with frames.engine() as connection:
        for name, time in cuts:
            table = frames.read(connection, work.split / name / "interactions.parquet")
            key = ibis.struct({column: table[column] for column in INTERACTIONS.key})
            facts = table.agg(
                **{
                    "rows": table.count(),
                    "rows at or after the cut": (table.event_time >= ibis.literal(time)).sum().fill_null(0),
                    "repeated keys": table.count() - key.nunique(),
                    "rows with strength not above zero": (table.strength.fill_null(0.0) <= 0).sum().fill_null(0),
                    "rows with event_share outside (0, 1]": (
                        (table.event_share.fill_null(0.0) <= 0) | (table.event_share > 1)
                    )
                    .sum()
                    .fill_null(0),
                    "rows with a negative quantity": (table.quantity < 0).sum().fill_null(0),
                    "histories": table.history_id.nunique(),
                    "share of rows of the target type": table.target.mean().fill_null(0.0),
                }
            )
            rows += [{"table": name, **row} for row in facts.to_pyarrow().to_pylist()]
    return rows if rows[1]["rows"] else None


def _targets(work: Workspace, placed: Instants) -> list[dict[str, Any]]:
    """One row of facts per window, and one for the holdout."""
    wanted = [(window, "targets") for window in placed.windows]
    wanted += [(placed.judged, "holdout")] if placed.judged else []
    with frames.engine() as connection:
        files = {name: frames.read(connection, work.split / f"{name}.parquet") for name in ("targets", "holdout")}
        return [_target_facts(instant, files[name]) for instant, name in wanted]


def _target_facts(instant: Instant, table: Any) -> dict[str, Any]:
    mine = table.filter(table.instant == instant.name)
    outside = (mine.first_time < ibis.literal(instant.time)) | (mine.first_time >= ibis.literal(instant.until))
    key = ibis.struct({"history_id": mine.history_id, "item_id": mine.item_id})
    facts = mine.agg(
        **{
            "targets": mine.count(),
            "histories": mine.history_id.nunique(),
            "targets outside the window": outside.sum().fill_null(0),
            "repeated keys": mine.count() - key.nunique(),
        }
    )
    (row,) = facts.to_pyarrow().to_pylist()
    return {"instant": instant.name, **row}


def state_facts(name: str, state: FeatureState, time: datetime) -> dict[str, Any]:
    """Facts about one feature state, whose instant must be ``time``."""
    pairs = state.user_items
    youngest = [float(v["last_age"].min()) for v in (state.items, state.users, pairs.aggregates) if len(v["last_age"])]
    codes_wrong = int(((pairs.items < 0) | (pairs.items >= state.n_items)).sum())
    folds = [*pairs.aggregates.values(), *state.users.values()]
    return {
        "instant": name,
        "items": state.n_items,
        "histories": state.n_users,
        "pairs": len(pairs.items),
        "seconds off the instant": abs((state.time - time).total_seconds()),
        "age in days of the youngest event": min((age for age in youngest if np.isfinite(age)), default=0.0),
        "aggregates of pairs and histories not finite": sum(int((~np.isfinite(values)).sum()) for values in folds),
        "aggregates of items that are NaN": sum(
            int(np.isnan(values).sum()) for column, values in state.items.items() if column != "price"
        ),
        "item codes out of range": codes_wrong,
        "pointer steps backwards": int((np.diff(pairs.pointer) < 0).sum()),
        "catalogue rows beside items": abs(state.catalog.num_rows - state.n_items),
        "items with a price not above zero": int((state.items["price"] <= 0).sum()) if "price" in state.items else 0,
        "text vectors not of unit length": _wrong_length(state.text),
        "share of items without text": float((~state.text.any(axis=1)).mean()) if state.text is not None else 0.0,
        "share of items never met": float(1 - len(np.unique(pairs.items)) / max(1, state.n_items)),
    }


def _wrong_length(text: np.ndarray | None) -> int:
    """Vectors that are neither zero nor of length one, within float16's precision."""
    if text is None:
        return 0
    lengths = np.linalg.norm(np.asarray(text, np.float32), axis=1)
    return int(((lengths != 0) & (np.abs(lengths - 1) > 0.01)).sum())
