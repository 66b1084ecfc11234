"""What the two-tower model is taught: (what a history held before an event, an item bought in it)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

SECONDS_A_DAY = 86_400.0
LOOKBACK = 8
"""Rows read back per context, as a multiple of the items kept: repeated items count once."""
PAIRS_AT_ONCE = 4_000_000
"""Bounds the memory of building bags: about 100 MB, whatever the length of the log."""
NEGLIGIBLE = 1e-3
"""Contexts whose probability relative to the newest lies below this are not built."""


@dataclass(frozen=True)
class Bags:
    """Weighted sets of items in compressed rows.

    ``pointer`` int64 ``[n + 1]``; ``items`` int32 ``[m]``, most recent last; ``weights`` float32 ``[m]``,
    sums of strength · exp(-age / decay_days), age counted back from the bag's own moment.
    """

    pointer: np.ndarray
    items: np.ndarray
    weights: np.ndarray

    def __len__(self) -> int:
        """Number of bags."""
        return len(self.pointer) - 1

    def take(self, rows: np.ndarray) -> Bags:
        """The bags of these rows, in this order."""
        lengths = np.diff(self.pointer)[rows]
        pointer = np.concatenate([[0], np.cumsum(lengths)])
        flat = np.arange(pointer[-1]) - np.repeat(pointer[:-1] - self.pointer[rows], lengths)
        return Bags(pointer, self.items[flat], self.weights[flat])


@dataclass(frozen=True)
class Examples:
    """Contexts, and the items that were bought in them.

    Attributes:
        bags: one per context: the history strictly before its moment.
        user: user code per context, int64 ``[n_contexts]``.
        age: days from the context to the instant, float64 ``[n_contexts]``.
        context: row of its context per example, int64 ``[n]``.
        item: the item bought, int64 ``[n]``.
        new: whether the user had never bought it before, bool ``[n]``.
        row: of the log, int64 ``[n]``.
    """

    bags: Bags
    user: np.ndarray
    age: np.ndarray
    context: np.ndarray
    item: np.ndarray
    new: np.ndarray
    row: np.ndarray


def examples(
    rows: dict[str, np.ndarray],
    now: float,
    *,
    history_items: int,
    history_days: float,
    example_days: float,
    teaching: np.ndarray | None = None,
    strangers: bool = False,
) -> Examples:
    """Cut a log into examples.

    Args:
        rows: ``user``, ``item``, ``time`` (seconds), ``strength``, ``target``, each ``[n]``, before ``now``.
        now: the instant, in seconds since 1970.
        history_items: distinct items per bag, the most recent ones.
        history_days: time constant of a bag's weights.
        example_days: time constant of the examples' weight; older ones than matter are left out.
        teaching: bool ``[n]``, rows that are examples; None: those of the target.
        strangers: whether a context without any history is one too, with an empty bag.

    Returns:
        Contexts by user and time. Cost: O(contexts · history_items · LOOKBACK) time.
    """
    order = np.lexsort((-rows["item"].astype(np.int64), rows["time"], rows["user"]))
    user, item = rows["user"][order].astype(np.int64), rows["item"][order].astype(np.int64)
    time, target = rows["time"][order], rows["target"][order] > 0
    teaches = target if teaching is None else teaching[order]
    held, following = _running_weight(user, item, time, rows["strength"][order], history_days * SECONDS_A_DAY)
    n = len(user)
    first_of_user = np.searchsorted(user, user, side="left")
    moment_starts = np.flatnonzero(np.r_[True, (np.diff(user) != 0) | (np.diff(time) != 0)][:n])
    moment = np.repeat(np.arange(len(moment_starts)), np.diff(np.r_[moment_starts, n]))
    age = (now - time[moment_starts]) / SECONDS_A_DAY
    usable = np.exp(-age / example_days) > NEGLIGIBLE
    usable &= np.bincount(moment, teaches, len(moment_starts)) > 0
    if not strangers:
        usable &= moment_starts > first_of_user[moment_starts]
    starts = moment_starts[usable]
    bags = _bags(
        starts,
        first_of_user[starts],
        following=following,
        item=item,
        held=held,
        time=time,
        history_items=history_items,
        history_days=history_days,
    )
    place = np.where(usable, np.cumsum(usable) - 1, -1)[moment]
    taught = np.flatnonzero(teaches & (place >= 0))
    # one example per item and moment: a basket that lists an item twice is one purchase
    taught = taught[np.unique(_pair(place[taught], item[taught]), return_index=True)[1]]
    had = _first_target(user, item, target, time) < time
    return Examples(bags, user[starts], age[usable], place[taught], item[taught], ~had[taught], order[taught])


def _running_weight(
    user: np.ndarray, item: np.ndarray, time: np.ndarray, strength: np.ndarray, decay: float
) -> tuple[np.ndarray, np.ndarray]:
    """Per row: the decayed sum of its (user, item) up to and with it, and the position of that pair's next row."""
    n = len(user)
    pairs = np.lexsort((np.arange(n), item, user))
    same = (np.diff(user[pairs]) == 0) & (np.diff(item[pairs]) == 0)
    following = np.full(n, n)
    following[pairs[:-1][same]] = pairs[1:][same]
    starts = np.flatnonzero(np.r_[True, ~same][:n])
    rank = np.arange(n) - np.repeat(starts, np.diff(np.r_[starts, n]))
    by_rank = np.argsort(rank, kind="stable")
    edges = np.r_[0, np.cumsum(np.bincount(rank, minlength=1))]
    held = np.asarray(strength, np.float64)[pairs]
    for low, high in itertools.pairwise(edges[1:]):
        later = by_rank[low:high]
        gap = time[pairs[later]] - time[pairs[later - 1]]
        held[later] += held[later - 1] * np.exp(-gap / decay)
    out = np.empty(n)
    out[pairs] = held
    return out, following


def _first_target(user: np.ndarray, item: np.ndarray, target: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Per row: when its (user, item) was first bought, +inf when never."""
    _, pair = np.unique(_pair(user, item), return_inverse=True)
    first = np.full(pair.max(initial=-1) + 1, np.inf)
    np.minimum.at(first, pair[target], time[target].astype(np.float64))
    return first[pair]


def _pair(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """One int64 per pair of codes, in the pairs' order: sorting numbers is several times faster than rows."""
    return np.asarray(first * (second.max(initial=0) + 1) + second)


def _bags(
    starts: np.ndarray,
    lowest: np.ndarray,
    *,
    following: np.ndarray,
    item: np.ndarray,
    held: np.ndarray,
    time: np.ndarray,
    history_items: int,
    history_days: float,
) -> Bags:
    """Bags of the rows before each start: an item's last row before it carries the item's whole weight."""
    low = np.maximum(lowest, starts - LOOKBACK * history_items)
    pieces = np.r_[0, np.cumsum(starts - low)] // PAIRS_AT_ONCE
    lengths, items, weights = [], [], []
    for piece in range(int(pieces[-1]) + 1):
        of = np.flatnonzero(pieces[:-1] == piece)
        count = starts[of] - low[of]
        owner = np.repeat(np.arange(len(of)), count)
        row = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count - low[of], count)
        last = following[row] >= starts[of][owner]
        owner, row = owner[last], row[last]
        found = np.bincount(owner, minlength=len(of))
        recent = np.cumsum(found)[owner] - np.arange(len(owner)) <= history_items
        owner, row = owner[recent], row[recent]
        gap = (time[starts[of]][owner] - time[row]) / SECONDS_A_DAY
        lengths.append(np.bincount(owner, minlength=len(of)))
        items.append(item[row].astype(np.int32))
        weights.append((held[row] * np.exp(-gap / history_days)).astype(np.float32))
    pointer = np.r_[0, np.cumsum(np.concatenate(lengths))].astype(np.int64)
    return Bags(pointer, np.concatenate(items), np.concatenate(weights))
