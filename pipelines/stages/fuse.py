"""Learn each surface's fusion on the rolling windows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
from rich.progress import track

from pipelines import model_registry
from pipelines import params as parameters
from pipelines.contracts import Surface
from pipelines.features.state import FeatureState
from pipelines.fusion.fuser import LabelledList
from pipelines.fusion.learning import choose
from pipelines.fusion.lists import labelled
from pipelines.model_api import FittedModel
from pipelines.params import AllParams
from pipelines.stages.running import arguments, run
from pipelines.storage import read_json, replacing_folder, write_json
from pipelines.workspace import JUDGED, Workspace


def main() -> None:
    """Write ``artifacts/fusion/<surface>/``."""
    told = arguments("Learn each surface's fusion on the rolling windows.")
    params = parameters.load(told.params)
    work = Workspace(told.artifacts)
    kinds = {name: params.models[name].kind for name in params.models if applies(work, name)}
    members = {surface: model_registry.speaking(kinds, surface) for surface in Surface}
    times: dict[str, str] = read_json(work.history / "about.json")["instants"]
    windows = [name for name in sorted(times, key=times.__getitem__) if name != JUDGED]
    surfaces = [surface for surface in Surface if members[surface]]
    # all lists first: their workers are forked, which must come before TensorFlow is loaded
    lists: dict[Surface, list[LabelledList]] = {
        surface: [one for window in windows for one in window_lists(params, work, members[surface], surface, window)]
        for surface in surfaces
        if surface is not Surface.SEARCH
    }
    with replacing_folder(work.root / "fusion") as folder:
        for surface in surfaces:
            known = lists.get(surface, [])
            print(f"{surface}: {len(known)} lists of {len(windows)} windows", flush=True)
            choice = choose(params.fusion, known, members[surface], surface=surface, windows=windows, seed=params.seed)
            (folder / surface).mkdir()
            choice.fuser.save(folder / surface)
            about = {"fuser": choice.method, "depth": params.fusion.candidates_per_member, "trials": choice.trials}
            about["weights"] = choice.fuser.weights(members[surface])
            write_json(folder / surface / "choice.json", about)
            print(f"{surface}: {choice.method}", flush=True)


def applies(work: Workspace, member: str) -> bool:
    """Whether a member was fitted on these data."""
    return bool(read_json(work.member_status(member))["applicable"])


def window_lists(
    params: AllParams, work: Workspace, members: Sequence[str], surface: Surface, window: str
) -> list[LabelledList]:
    """Labelled lists of one window, at most ``fusion.max_users``."""
    features = FeatureState.load(work.features(window))
    fitted = load_members(params, work, members, window)
    targets = read_targets(work.split / "targets.parquet", window)[: params.fusion.max_users]
    depth = params.fusion.candidates_per_member
    made = labelled(features, fitted, targets, surface=surface, window=window, depth=depth)
    lists = list(track(made, description=f"{surface} {window}", total=len(targets)))
    return [one for one in lists if one is not None]


def load_members(params: AllParams, work: Workspace, members: Sequence[str], instant: str) -> dict[str, FittedModel]:
    """Members as fitted at an instant, in the order of params."""
    return {
        name: model_registry.kind(params.models[name].kind).fitted.load(work.member(name, instant)) for name in members
    }


def read_targets(path: Path, instant: str) -> list[tuple[str, list[str]]]:
    """Per user the ids bought within the instant's window, in the order of user ids."""
    table = pq.read_table(path, filters=[("instant", "==", instant)], columns=["history_id", "item_id"])
    found: dict[str, list[str]] = {}
    for user, item in zip(table["history_id"].to_pylist(), table["item_id"].to_pylist(), strict=True):
        found.setdefault(user, []).append(item)
    return list(found.items())


if __name__ == "__main__":
    run(main)
