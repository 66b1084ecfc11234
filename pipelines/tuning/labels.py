"""Which labels each instant may know."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from pipelines.search.labels import LabelledQuery, merged, read_judgments, read_searches, without
from pipelines.storage import read_json
from pipelines.workspace import JUDGED, Workspace


def every_label(work: Workspace, *, before_holdout: bool) -> list[LabelledQuery]:
    """Judgments and choices, up to t2 or up to t3; a judged query keeps the gains that people gave it."""
    chosen = list(_choices(work).values())
    if not before_holdout:
        chosen.append(read_searches(work.split / "searches_holdout.parquet", JUDGED, start=0.0))
    judged = read_judgments(work.split / "judgments.parquet")
    return [*judged, *without(together(chosen), judged)]


def labels_before(work: Workspace, instants: Sequence[str]) -> dict[str, list[LabelledQuery]]:
    """What may be known by instant: in a window the choices of the windows before it, at t2 all of them and judgments.

    Judgments have no time, and the windows do without: there the fusion learns what a member is worth that knows
    nothing but earlier choices.

    Args:
        work: of the run.
        instants: names of those before the holdout, oldest first.
    """
    chosen = _choices(work)
    before = {name: together(chosen[earlier] for earlier in instants[:place]) for place, name in enumerate(instants)}
    return before | {JUDGED: every_label(work, before_holdout=True)}


def together(lists: Iterable[Sequence[LabelledQuery]]) -> list[LabelledQuery]:
    """Labels of several times in one, by query; of one item the highest gain."""
    every = (one for labelled in lists for one in labelled)
    return merged((one.query, item, gain, None) for one in every for item, gain in one.gains.items())


def _choices(work: Workspace) -> dict[str, list[LabelledQuery]]:
    """What was chosen after searching, by window."""
    times: dict[str, str] = read_json(work.history / "about.json")["instants"]
    file = work.split / "searches.parquet"
    starts = {name: datetime.fromisoformat(time).timestamp() for name, time in times.items() if name != JUDGED}
    return {name: read_searches(file, name, start=start) for name, start in starts.items()}
