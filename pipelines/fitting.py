"""Bring a member to an instant: one piece of code for every window, for t2 and for t3."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipelines import model_registry
from pipelines.errors import ArtifactError
from pipelines.features.state import FeatureState
from pipelines.model_api import FittedModel, TrainingData
from pipelines.params import ModelEntry
from pipelines.storage import value_sha256, write_json
from pipelines.workspace import JUDGED, SERVED, Workspace


def fit_member(
    member: str,
    entry: ModelEntry,
    work: Workspace,
    instants: Sequence[str],
    *,
    into: Path,
    tables: Path,
    seed: int,
    parent: str | None = None,
) -> str | None:
    """Fit a member at instants in the order of time; each is the parent of the next where the kind warm-starts.

    Args:
        member: its name in params.
        entry: its kind and configuration.
        work: where features, and the parent's fit, are read.
        instants: names, in any order.
        into: existing folder; each fit goes to its sub-folder of the instant's name.
        tables: folder with the interactions that reach at least to the last instant.
        seed: of the run; each member draws from its own.
        parent: an earlier instant at which the member is already fitted.

    Raises:
        ArtifactError: when the parent is later than an instant: its weights would know what the instant may not.

    Returns:
        Why the member does not apply to the newest instant, or None when it was fitted there. An older instant that it
        does not apply to has no folder: a shop where people have searched for a month can use what that teaches.
    """
    kind = model_registry.kind(entry.kind)
    config = model_registry.config(member, entry)
    own_seed = int(value_sha256([seed, member])[:8], 16) % 2**31
    before: tuple[FittedModel, FeatureState] | None = None
    if parent is not None and kind.warm_start and (work.member(member, parent)).exists():
        before = (kind.fitted.load(work.member(member, parent)), FeatureState.load(work.features(parent)))
    states = {name: _state(work, name, tables) for name in instants}
    reason = None
    for instant, state in sorted(states.items(), key=lambda one: one[1].time):
        if before is not None and before[1].time > state.time:
            raise ArtifactError(
                f"the parent of {member} knows what comes after {instant}",
                found=f"a parent as of {before[1].time.isoformat()}",
                wanted=f"one not later than {state.time.isoformat()}",
                do="run `dvc repro --force`",
            )
        if reason := kind.not_applicable(state):
            print(f"{member}: not at {instant}, {reason}", flush=True)
            continue
        data = TrainingData(state, *(before or ())) if kind.warm_start else TrainingData(state)
        print(f"{member}: fitting {instant} ({state.n_items} items, {state.n_users} users)", flush=True)
        fitted = kind.fit(config, data, seed=own_seed)
        (into / instant).mkdir()
        fitted.save(into / instant)
        before = (fitted, state)
    return reason


def _state(work: Workspace, instant: str, tables: Path) -> FeatureState:
    """What may be known at an instant; judgments, which have no time, from t2 on."""
    encoder, judgments = work.query_encoder, work.split / "judgments.parquet"
    return FeatureState.load(
        work.features(instant),
        interactions=tables / "interactions.parquet",
        tuned=work.tuned(instant),
        encoder=encoder if encoder.is_dir() else None,
        judgments=judgments if instant in {JUDGED, SERVED} else None,
    )


def write_status(path: Path, entry: ModelEntry, reason: str | None) -> None:
    """Record whether a member applies."""
    write_json(path, {"kind": entry.kind, "applicable": reason is None, "reason": reason})
