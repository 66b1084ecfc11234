"""Whom a bundle is judged on, and what they went on to do."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.contracts import Surface
from pipelines.errors import ArtifactError
from pipelines.features.state import FeatureState, UserHistory
from pipelines.params import AllParams
from pipelines.search.labels import LabelledQuery, drawn, read_judgments, read_searches, without
from pipelines.workspace import Workspace

COLUMNS = ("instant", "history_id", "item_id", "first_time")
SECONDS_A_DAY = 86_400.0


@dataclass(frozen=True)
class Targets:
    """First events of the target type per (history, item) within one instant's window.

    ``users`` sorted; ``items[u]`` distinct item ids of user u, sorted; ``days[u]`` float64, days from the
    instant to the event, aligned with ``items[u]``.
    """

    users: tuple[str, ...]
    items: tuple[tuple[str, ...], ...]
    days: tuple[np.ndarray, ...]

    @property
    def n_pairs(self) -> int:
        """Number of (history, item) pairs."""
        return sum(map(len, self.items))


@dataclass(frozen=True)
class Audience:
    """Users that lists are made for, in a fixed order, with what is relevant to each.

    ``relevant[u]`` int64, codes in the bundle's catalogue, -1 for an item that was not in it: no list can
    show it, and the ideal list still counts it. ``days[u]`` is aligned with ``relevant[u]``.

    On ``search`` a row is a query that nobody in particular asks: ``users`` are the queries as they were labelled,
    ``typed`` what is typed for them, and ``gains[u]`` > 0, aligned with ``relevant[u]``, what each item is worth.
    Elsewhere both are empty.
    """

    surface: str
    users: tuple[str, ...]
    histories: tuple[UserHistory, ...]
    relevant: tuple[np.ndarray, ...]
    days: tuple[np.ndarray, ...]
    typed: tuple[str, ...] = ()
    gains: tuple[np.ndarray, ...] = ()

    def __len__(self) -> int:
        """Number of users."""
        return len(self.users)

    @property
    def wanted(self) -> tuple[np.ndarray, ...]:
        """What counts as right where a metric knows only right and wrong: of a query the items of the highest gain."""
        if not self.gains:
            return self.relevant
        pairs = zip(self.relevant, self.gains, strict=True)
        return tuple(items[gains >= gains.max(initial=0.0)] for items, gains in pairs)

    @property
    def n_relevant(self) -> np.ndarray:
        """Number of right items of each user, int64."""
        return np.fromiter(map(len, self.wanted), np.int64, len(self))

    @property
    def history_length(self) -> np.ndarray:
        """Number of distinct items in each user's history, int64."""
        return np.fromiter(map(len, self.histories), np.int64, len(self))

    def at(self, rows: Sequence[int] | np.ndarray) -> Audience:
        """The users at these places, in this order."""
        picked = [int(row) for row in rows]
        return replace(
            self,
            users=tuple(self.users[row] for row in picked),
            histories=tuple(self.histories[row] for row in picked),
            relevant=tuple(self.relevant[row] for row in picked),
            days=tuple(self.days[row] for row in picked),
            typed=tuple(self.typed[row] for row in picked) if self.typed else (),
            gains=tuple(self.gains[row] for row in picked) if self.gains else (),
        )

    def restricted(self, keep: Sequence[np.ndarray]) -> tuple[np.ndarray, Audience]:
        """Only the relevant items where ``keep[u]`` (bool, aligned) holds, and users who are left with one.

        Returns the places of those users in this audience, int64, and the smaller audience.
        """
        relevant = [items[kept] for items, kept in zip(self.relevant, keep, strict=True)]
        days = [times[kept] for times, kept in zip(self.days, keep, strict=True)]
        gains = [worth[kept] for worth, kept in zip(self.gains, keep, strict=True)] if self.gains else []
        rows = np.flatnonzero([len(items) > 0 for items in relevant])
        return rows, replace(self, relevant=tuple(relevant), days=tuple(days), gains=tuple(gains)).at(rows)


def read(path: Path) -> dict[str, Targets]:
    """Targets by name of the instant.

    Raises:
        ArtifactError: when the file is missing, or lacks a column.
    """
    if not path.exists():
        raise ArtifactError(f"{path} does not exist", do="run `dvc repro split`")
    table = pq.read_table(path)
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise ArtifactError(
            f"{path} lacks the column {missing[0]}",
            found=table.column_names,
            wanted=COLUMNS,
            do="run `dvc repro split`",
        )
    return {} if not len(table) else _by_instant(table.select(list(COLUMNS)))


def _by_instant(table: pa.Table) -> dict[str, Targets]:
    table = table.sort_by([(name, "ascending") for name in ("instant", "history_id", "item_id")])
    names = np.array(table["instant"].to_pylist(), dtype=object)
    starts = [0, *(np.flatnonzero(names[1:] != names[:-1]) + 1).tolist(), len(names)]
    return {names[low]: _targets(table.slice(low, high - low)) for low, high in pairwise(starts)}


def _targets(rows: pa.Table) -> Targets:
    users, items = rows["history_id"].to_pylist(), rows["item_id"].to_pylist()
    times = rows["first_time"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy() / (1e6 * SECONDS_A_DAY)
    edges = [row for row in range(len(users)) if row == 0 or users[row] != users[row - 1]] + [len(users)]
    spans = list(pairwise(edges))
    return Targets(
        users=tuple(users[low] for low, _ in spans),
        items=tuple(tuple(items[low:high]) for low, high in spans),
        days=tuple(times[low:high] for low, high in spans),
    )


def audience(features: FeatureState, targets: Targets, surface: Surface, *, max_users: int, seed: int) -> Audience:
    """Users with the target both before the instant and within its window, at most ``max_users`` of them.

    On ``recommend_new`` only items without the target before the instant are relevant, and users whose
    window has none are left out. The sample is drawn before that, so both surfaces speak of the same users.
    """
    codes = features.user_ids.codes(targets.users).tolist()
    known = [row for row, code in enumerate(codes) if code >= 0 and features.users["bought"][code] > 0]
    rows = [known[row] for row in sample([targets.users[row] for row in known], max_users, seed=seed)]
    instant = features.time.timestamp() / SECONDS_A_DAY
    everyone = Audience(
        surface=str(surface),
        users=tuple(targets.users[row] for row in rows),
        histories=tuple(features.history(codes[row]) for row in rows),
        relevant=tuple(features.item_ids.codes_of_each([targets.items[row] for row in rows])),
        days=tuple(targets.days[row] - instant for row in rows),
    )
    if surface is not Surface.RECOMMEND_NEW:
        return everyone
    new = [~np.isin(items, h.seen) for items, h in zip(everyone.relevant, everyone.histories, strict=True)]
    return everyone.restricted(new)[1]


def audiences(work: Workspace, features: FeatureState, params: AllParams) -> dict[Surface, Audience]:
    """Whom a judged bundle is judged on, by surface: users of the holdout, and labelled queries.

    Queries that people judged keep their judgments; of the others, what was chosen after them in the holdout is right.
    """
    instant = work.instants().judged
    most, seed = params.evaluation.max_users, params.seed
    labelled = read_judgments(work.split / "judgments.parquet")
    found: dict[Surface, Audience] = {}
    if instant is not None:
        holdout = read(work.split / "holdout.parquet").get(instant.name, Targets((), (), ()))
        for surface in (Surface.RECOMMEND, Surface.RECOMMEND_NEW):
            found[surface] = audience(features, holdout, surface, max_users=most, seed=seed)
        start = instant.time.timestamp()
        chosen = read_searches(work.split / "searches_holdout.parquet", instant.name, start=start)
        labelled = [*labelled, *without(chosen, labelled)]
    found[Surface.SEARCH] = queries(features, drawn(labelled, most))
    return found


def queries(features: FeatureState, labelled: Sequence[LabelledQuery]) -> Audience:
    """Labelled queries, each asked once by a stranger; items without a gain above 0 are not relevant."""
    right = [{item: gain for item, gain in one.gains.items() if gain > 0} for one in labelled]
    asked = tuple(one.query for one in labelled)
    return Audience(
        surface=str(Surface.SEARCH),
        users=asked,
        histories=(UserHistory.empty(),) * len(asked),
        relevant=tuple(features.item_ids.codes_of_each([list(found) for found in right])),
        days=tuple(
            np.array([one.days.get(item, np.nan) for item in found]) for one, found in zip(labelled, right, strict=True)
        ),
        typed=asked,
        gains=tuple(np.array(list(found.values())) for found in right),
    )


def sample(names: Sequence[str], most: int, *, seed: int) -> list[int]:
    """Rows of at most ``most`` names, in their order: those with the least hash, which the seed stirs.

    Names that come or go change the sample by as many at most, so that tomorrow's is nearly today's.
    """
    if len(names) <= most:
        return list(range(len(names)))
    stirred = [hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest() for name in names]
    return sorted(sorted(range(len(names)), key=stirred.__getitem__)[:most])
