"""What a candidate is compared with: the champion of this moment, pinned, and its lists on the holdout.

Two references are possible, and the manifest says of each whether it may be used:

``judged``
    the champion's judged bundle as it is. It must be no later than the candidate's t2, or it has seen a
    part of the holdout.
``refit``
    the champion's recipe fitted at the candidate's t2, when the recipes differ.

Both answer through their own code; what is measured on the lists is measured by the gate alone. When the
champion's judged bundle is the candidate's (a day later t2 is the same), its lists are those that the
evaluation has just made, and nobody is asked twice.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines import champion
from pipelines.champion import Pointer
from pipelines.contracts import FUSED
from pipelines.errors import ArtifactError, FuselineError
from pipelines.evaluation import targets
from pipelines.evaluation.metrics import LIST_LENGTH
from pipelines.evaluation.targets import Audience
from pipelines.features.state import FeatureState
from pipelines.gating.evidence import Mode
from pipelines.gating.listing import LISTS, USERS
from pipelines.gating.refit import Recipe, Say, refit, run_module, source_of
from pipelines.params import AllParams
from pipelines.recipe import recipe_of
from pipelines.storage import read_json, replacing_file, replacing_folder, value_sha256, write_json
from pipelines.workspace import Workspace

KEPT_REFITS = 2
LOCK = ".lock"
NAMED = ("version", "bundle_id", "judged_id", "recipe")
USERS_FILE = "users.parquet"


@dataclass(frozen=True)
class Pinned:
    """What the gate compares with.

    ``lists``: by reference, the parquet file with its lists; ``refused``: by reference, why it may not be used.
    """

    mode: Mode
    champion: Pointer | None
    looks: int
    lists: dict[str, Path] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The content of ``reference/manifest.json``; no folders, so that equal champions are equal bytes."""
        now = self.champion
        return {
            "mode": str(self.mode),
            "champion": None if now is None else {name: getattr(now, name) for name in NAMED},
            "looks": self.looks,
            "references": sorted(self.lists),
            "refused": self.refused,
        }


@dataclass(frozen=True)
class Comparison:
    """The candidate's side: its artifacts, recipe and judged manifest, and the folder to work in."""

    artifacts: Path
    recipe: Recipe
    judged: dict[str, Any]
    work: Path


def pin(artifacts: Path, params: AllParams, *, source: Path, home: Path, say: Say) -> Pinned:
    """Pin the champion and make the lists of what the candidate will be compared with.

    Args:
        artifacts: of the candidate, everything up to its evaluation made.
        params: of the candidate.
        source: folder with the candidate's library.
        home: ``FUSELINE_HOME``.
        say: told of each step.
    """
    now = champion.read(home)
    if now is None:
        say("no champion yet: the candidate is compared with the baselines")
        return Pinned(Mode.FIRST, None, 1)
    judged = _manifest(artifacts / "judged")
    recipe = judged["recipe"]["id"] if judged else recipe_of(params, source)["id"]
    mode = Mode.REFRESH if recipe == now.recipe else Mode.RECIPE
    say(f"champion: version {now.version}, bundle {now.bundle_id}; mode {mode}")
    if judged is None or now.judged is None:
        return Pinned(mode, now, 1)
    data = value_sha256([read_json(artifacts / "snapshot" / "manifest.json"), judged["id"]])
    groups = audiences(artifacts, FeatureState.load(artifacts / "judged" / "features"), params)
    if not groups:
        return Pinned(mode, now, 1)
    looks = champion.look(home, now.version, f"{recipe}-{data}") if judged["id"] != now.judged_id else 1
    work = home / "var" / "reference" / value_sha256([now.judged_id, recipe, judged["data"]])[:16]
    work.mkdir(parents=True, exist_ok=True)
    candidate = Comparison(artifacts, Recipe(params.model_dump(mode="json"), source), judged, work)
    with (work / LOCK).open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        _write_users(groups, work)
        lists, refused = _references((now, mode), candidate, home=home, say=say)
    _forget_older(work)
    return Pinned(mode, now, looks, lists, refused)


def _references(
    champion_and_mode: tuple[Pointer, Mode], candidate: Comparison, *, home: Path, say: Say
) -> tuple[dict[str, Path], dict[str, str]]:
    now, mode = champion_and_mode

    def judged() -> Path:
        return _judged_in_time(now, candidate.judged)

    def refitted() -> Path:
        return refit(_there(now), candidate.recipe, candidate.artifacts, candidate.work, home=home, say=say)

    makers = {"judged": judged} | ({"refit": refitted} if mode is Mode.RECIPE else {})
    lists: dict[str, Path] = {}
    refused: dict[str, str] = {}
    for name, make in makers.items():
        try:
            folder = make()
            target = candidate.work / f"{name}.parquet"
            if mode is Mode.REFRESH and candidate.judged["id"] == now.judged_id:
                say(f"{name}: it is the candidate's own, and so are the lists")
                _take_own_lists(candidate.artifacts / "evaluation" / "rankings.parquet", target)
            else:
                say(f"{name}: lists for the users of the holdout")
                _list(folder, candidate, source=source_of(_there(now), candidate.work), target=target, home=home)
            lists[name] = target
        except FuselineError as error:
            refused[name] = str(error)
            say(f"{name}: cannot be compared with, {error}")
    return lists, refused


def save(pinned: Pinned, folder: Path) -> None:
    """Write the manifest and the lists, or nothing."""
    with replacing_folder(folder) as aside:
        for name, path in pinned.lists.items():
            shutil.copyfile(path, aside / f"{name}.parquet")
        write_json(aside / "manifest.json", pinned.as_json())


def audiences(artifacts: Path, features: FeatureState, params: AllParams) -> dict[str, Audience]:
    """The users and queries that the evaluation judges, by surface, without surfaces that nobody is judged on."""
    found = targets.audiences(Workspace(artifacts), features, params)
    return {str(name): group for name, group in found.items() if len(group)}


def _judged_in_time(now: Pointer, judged: dict[str, Any]) -> Path:
    folder = _there(now)
    theirs, ours = _time(_manifest(folder) or {}), _time(judged)
    if theirs > ours:
        raise ArtifactError(
            "the champion's judged bundle has seen a part of the holdout",
            found=f"made as of {theirs.isoformat()}",
            wanted=f"at or before {ours.isoformat()}",
            do="judge the candidate on newer data",
        )
    return folder


def _there(now: Pointer) -> Path:
    if now.judged is None or not (now.judged / "manifest.json").exists():
        raise ArtifactError(f"the judged bundle of version {now.version} is gone", found=now.judged, do="promote again")
    return now.judged


def _write_users(groups: Mapping[str, Audience], work: Path) -> None:
    rows = [{"surface": name, "history_id": user} for name, group in groups.items() for user in group.users]
    pq.write_table(pa.Table.from_pylist(rows, schema=USERS), work / USERS_FILE)


def _list(folder: Path, candidate: Comparison, *, source: Path, target: Path, home: Path) -> None:
    arguments = {
        "bundle": folder,
        "users": candidate.work / USERS_FILE,
        "interactions": candidate.artifacts / "split" / "history" / "interactions.parquet",
        "until": candidate.judged["as_of"],
        "target": target,
    }
    run_module("pipelines.gating.listing", arguments, source=source, home=home, what="lists")


def _take_own_lists(rankings: Path, target: Path) -> None:
    fused = (pc.field("system") == FUSED) & (pc.field("rank") <= LIST_LENGTH)
    with replacing_file(target) as aside:
        pq.write_table(pq.read_table(rankings, columns=LISTS.names, filters=fused), aside)


def _forget_older(work: Path) -> None:
    """Refits can be large: keep the newest, this one among them."""
    others = sorted((p for p in work.parent.iterdir() if p != work), key=lambda p: p.stat().st_mtime, reverse=True)
    for folder in others[KEPT_REFITS - 1 :]:
        with (folder / LOCK).open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(folder, ignore_errors=True)


def _manifest(folder: Path) -> dict[str, Any] | None:
    path = folder / "manifest.json"
    return dict(read_json(path)) if path.exists() else None


def _time(manifest: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(manifest["as_of"])
