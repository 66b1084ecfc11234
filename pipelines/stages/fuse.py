"""Learn each surface's fusion on the rolling windows, that of a search on labelled queries."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq
from rich.progress import track

from pipelines import model_registry
from pipelines import params as parameters
from pipelines.catalogue import Catalogue
from pipelines.contracts import Surface
from pipelines.features.state import FeatureState
from pipelines.fusion import fuser as fusers
from pipelines.fusion.candidates import SEARCHED
from pipelines.fusion.fuser import JUDGMENTS, FittedFuser, LabelledList
from pipelines.fusion.learning import Choice, choose, choose_by_fold, choose_search
from pipelines.fusion.lists import labelled, labelled_queries
from pipelines.fusion.surface import CHOICE, FIRST, FOLD_FOLDERS, SHORTLISTING
from pipelines.model_api import FittedModel
from pipelines.parallel import side_by_side
from pipelines.params import AllParams
from pipelines.query_reader import QueryReader
from pipelines.search.encoding import QueryEncoder
from pipelines.search.labels import drawn, read_judgments, read_searches, without
from pipelines.stages.running import arguments, run
from pipelines.storage import read_json, replacing_folder, write_json
from pipelines.workspace import JUDGED, Workspace


def main() -> None:
    """Write ``artifacts/fusion/<surface>/``; of a search also the fuser of the shortlist, and one for each fold."""
    told = arguments("Learn each surface's fusion on the rolling windows and on labelled queries.")
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

        def fuse(name: str) -> None:
            surface = Surface(name)
            if surface is Surface.SEARCH:
                fuse_search(params, work, members[surface], windows, into=folder / surface)
                return
            known = lists[surface]
            print(f"{len(known)} lists of {len(windows)} windows", flush=True)
            choice = choose(
                params.fusion,
                known,
                members[surface],
                surface=surface,
                windows=windows,
                seed=params.seed,
                learned=[name for name in members[surface] if kinds[name] not in model_registry.BASELINE_KINDS],
            )
            save(choice, folder / surface, params=params, members=members[surface])
            print(f"{choice.method}{' (plain)' if choice.plain else ''}, spread {choice.spread:g}", flush=True)

        side_by_side(fuse, surfaces)


def fuse_search(
    params: AllParams, work: Workspace, members: Sequence[str], windows: Sequence[str], *, into: Path
) -> None:
    """The fusion of a search, learned on what people judged and on what they chose after searching."""
    config = fusers.config(SHORTLISTING, params.fusion.convex)
    first = fusers.method(SHORTLISTING).fit(config, [], members, seed=params.seed)
    known = query_lists(params, work, members, windows, first=first)
    print(f"{len(known)} labelled queries", flush=True)
    choice = choose_search(params.fusion, known, members, seed=params.seed)
    folds = choose_by_fold(params.fusion, known, members, seed=params.seed)
    chosen = {into: choice} | {into / FOLD_FOLDERS / str(fold): part for fold, part in folds.items()}
    for folder, one in chosen.items():
        save(one, folder, params=params, members=members)
        if one.method != SHORTLISTING:
            (folder / FIRST).mkdir()
            first.save(folder / FIRST)
    print(f"{choice.method}", flush=True)


def save(choice: Choice, folder: Path, *, params: AllParams, members: Sequence[str]) -> None:
    """Write a fuser, and why it was chosen."""
    folder.mkdir(parents=True)
    choice.fuser.save(folder)
    about = {"fuser": choice.method, "depth": params.fusion.candidates_per_member, "trials": choice.trials}
    spread = {"spread": choice.spread, "spread_trials": choice.spread_trials}
    plain = {"plain": choice.plain, "plain_trial": choice.plain_trial}
    bounded = frozenset(name for name in members if model_registry.kind(params.models[name].kind).fitted.BOUNDED)
    write_json(folder / CHOICE, about | spread | plain | {"weights": choice.fuser.weights(members, bounded)})


def query_lists(
    params: AllParams, work: Workspace, members: Sequence[str], windows: Sequence[str], *, first: FittedFuser
) -> list[LabelledList]:
    """Shortlists of labelled queries, at most ``fusion.max_users``: judged ones first, then the newest windows'.

    A judged query keeps the gains that people gave it; what was chosen after it is left out.
    """
    judged = read_judgments(work.split / "judgments.parquet")
    labelled = {JUDGED: judged}
    for window in reversed(windows):
        state = datetime.fromisoformat(read_json(work.history / "about.json")["instants"][window])
        found = read_searches(work.split / "searches.parquet", window, start=state.timestamp())
        labelled[window] = without(found, judged)
    lists: list[LabelledList] = []
    for instant, queries in labelled.items():
        kept = drawn(queries, params.fusion.max_users - len(lists))
        if not kept:
            continue
        encoder = QueryEncoder.load(work.query_encoder)
        features = FeatureState.load(work.features(instant))
        fitted = load_members(params, work, members, instant, n_items=features.n_items)
        reader = QueryReader(features, Catalogue(features), encoder)
        window = JUDGMENTS if instant == JUDGED else instant
        made = labelled_queries(features, fitted, kept, first=first, read=reader.read, window=window, depth=SEARCHED)
        lists += track(made, description=f"{Surface.SEARCH} {window}", total=len(kept))
    return lists


def applies(work: Workspace, member: str) -> bool:
    """Whether a member was fitted on these data."""
    return bool(read_json(work.member_status(member))["applicable"])


def window_lists(
    params: AllParams, work: Workspace, members: Sequence[str], surface: Surface, window: str
) -> list[LabelledList]:
    """Labelled lists of one window, at most ``fusion.max_users``."""
    features = FeatureState.load(work.features(window))
    fitted = load_members(params, work, members, window, n_items=features.n_items)
    targets = read_targets(work.split / "targets.parquet", window)[: params.fusion.max_users]
    depth = params.fusion.candidates_per_member
    made = labelled(features, fitted, targets, surface=surface, window=window, depth=depth)
    lists = list(track(made, description=f"{surface} {window}", total=len(targets)))
    return [one for one in lists if one is not None]


def load_members(
    params: AllParams, work: Workspace, members: Sequence[str], instant: str, *, n_items: int
) -> dict[str, FittedModel]:
    """Members as fitted at an instant, in the order of params; without opinion where they did not apply then."""
    return {
        name: model_registry.fitted(params.models[name].kind, work.member(name, instant), n_items=n_items)
        for name in members
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
