"""Features of a candidate beside the members' scores: one definition for training and serving.

Everything comes from the feature state and the user's history as of the instant. NaN means unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pipelines.features.state import FeatureState, UserHistory

FEATURES: tuple[str, ...] = (
    "pair_bought",
    "pair_decay15",
    "pair_decay30",
    "pair_decay90",
    "pair_decay365",
    "pair_last_age",
    "pair_first_age",
    "pair_quantity",
    "pair_interval",
    "pair_overdue",
    "pair_share",
    "pair_rate",
    "pair_per_event",
    "item_last7",
    "item_last28",
    "item_last90",
    "item_bought",
    "item_decay15",
    "item_decay30",
    "item_trend28",
    "item_trend7",
    "item_buyers",
    "item_repeat_share",
    "item_per_buyer",
    "item_new_buyers",
    "item_new_share",
    "item_first_age",
    "item_last_age",
    "item_price",
    "item_quantity",
    "user_items",
    "user_events",
    "user_bought",
    "user_last_age",
    "user_first_age",
    "user_basket",
    "user_price",
    "user_repeat_share",
    "user_interval",
    "user_quantity",
    "user_recent_events",
    "price_difference",
    "price_distance",
    "quantity_difference",
    "appeared_since_visit",
    "text_similarity",
    "text_similarity_recent",
)
"""Column names of :func:`describe`; first those of the pair, the item and the user."""

RECENT_ITEMS = 10
"""How many of the newest items make the recent text profile."""


PAIR = tuple(name for name in FEATURES if name.startswith("pair_"))
ITEM = tuple(name for name in FEATURES if name.startswith("item_"))
USER = tuple(name for name in FEATURES if name.startswith("user_"))
BOTH = FEATURES[len(PAIR + ITEM + USER) :]
"""The rest, which is different for every candidate and user."""


class Part(NamedTuple):
    """Some columns of the features, in as few rows as there are different ones.

    Attributes:
        values: float32 ``[r, k]``; NaN means unknown.
        rows: int64 ``[m]``, the row of each candidate; None: candidate i has row i.
        kept: whether ``values`` is the same array in every request to a bundle.
    """

    values: np.ndarray
    rows: np.ndarray | None
    kept: bool = False


def describe(
    state: FeatureState, history: UserHistory, codes: np.ndarray, items: np.ndarray | None = None
) -> np.ndarray:
    """Features of candidates for one user.

    Args:
        state: items and users as of the instant.
        history: the user's history.
        codes: int64 ``[m]`` candidates.
        items: of :func:`item_table`, for who describes often.

    Returns:
        float32 ``[m, len(FEATURES)]``.
    """
    return joined(parts(state, history, codes, item_table(state) if items is None else items))


def joined(described: Sequence[Part]) -> np.ndarray:
    """Parts side by side, float32 ``[m, len(FEATURES)]``."""
    return np.concatenate([p.values if p.rows is None else p.values[p.rows] for p in described], axis=1)


def parts(state: FeatureState, history: UserHistory, codes: np.ndarray, items: np.ndarray) -> tuple[Part, ...]:
    """The features in the order of :data:`FEATURES`, cut by what they depend on.

    Few candidates were met by the user before, an item's own columns are the same for everybody, and a user's are
    the same for every candidate: what reads the parts needs to look at each different row once.
    """
    theirs = items[codes]
    with np.errstate(divide="ignore", invalid="ignore"):
        pair, rows = _pair(history, codes)
        user = _user(history)
        both = _cross(dict(zip(ITEM, theirs.T, strict=True)), user) | _text(state, history, codes)
    return (
        Part(_table(pair, PAIR, int(rows.max(initial=0)) + 1), rows),
        Part(items, codes, kept=True),
        Part(_table(user, USER, 1), np.zeros(len(codes), np.int64)),
        Part(_table(both, BOTH, len(codes)), None),
    )


def item_table(state: FeatureState) -> np.ndarray:
    """Columns :data:`ITEM` of every item, float32 ``[n_items, len(ITEM)]``."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.ascontiguousarray(_table(_item(state), ITEM, state.n_items))


def _table(columns: Mapping[str, np.ndarray | float], names: Sequence[str], n_rows: int) -> np.ndarray:
    """Columns side by side, each contiguous; what is not finite becomes NaN."""
    table = np.empty((len(names), n_rows), np.float32)
    for place, name in enumerate(names):
        table[place] = columns[name]
    table[~np.isfinite(table)] = np.nan
    return table.T


def _pair(history: UserHistory, codes: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What the user did with the items met before; and the row of each candidate, 0 for all others.

    Row 0 has 0 counts and NaN ages.
    """
    order = np.argsort(history.items, kind="stable")
    ascending = history.items[order]
    place = np.minimum(np.searchsorted(ascending, codes), max(0, len(ascending) - 1))
    known = np.flatnonzero(ascending[place] == codes) if len(ascending) else np.zeros(0, np.int64)
    met = order[place[known]]
    rows = np.zeros(len(codes), np.int64)
    rows[known] = np.arange(1, len(known) + 1)

    def pick(name: str, missing: float) -> np.ndarray:
        values = np.empty(len(met) + 1, np.float32)
        values[0] = missing
        values[1:] = history.aggregates[name][met]
        return values

    bought, first, last = pick("bought", 0.0), pick("first_age", np.nan), pick("last_age", np.nan)
    interval = np.where(bought > 1, (first - last) / np.maximum(bought - 1, 1), np.nan)
    events, tenure = history.user["events"], history.user["first_age"]
    since_first = 1 + np.maximum(0.0, events - 1) * first / max(tenure, 1e-6)
    columns = {
        "pair_bought": bought,
        "pair_decay15": pick("bought_decay15", 0.0),
        "pair_decay30": pick("bought_decay30", 0.0),
        "pair_decay90": pick("bought_decay90", 0.0),
        "pair_decay365": pick("bought_decay365", 0.0),
        "pair_last_age": last,
        "pair_first_age": first,
        "pair_quantity": np.log1p(np.maximum(pick("quantity", 0.0), 0)),
        "pair_interval": interval,
        "pair_overdue": np.log((last + 1) / (interval + 1)),
        "pair_share": bought / max(history.user["bought"], 1.0),
        "pair_rate": bought / (first + 30.0),
        "pair_per_event": bought / (since_first + 2.0),
    }
    return columns, rows


def _item(state: FeatureState) -> dict[str, np.ndarray]:
    items = state.items
    last28, before28 = items["bought_last28"], items["bought_last56"] - items["bought_last28"]
    count, buyers = np.maximum(items["bought"], 1), np.maximum(items["buyers"], 1)
    return {
        "item_last7": items["bought_last7"],
        "item_last28": last28,
        "item_last90": items["bought_last90"],
        "item_bought": items["bought"],
        "item_decay15": items["bought_decay15"],
        "item_decay30": items["bought_decay30"],
        "item_trend28": np.log((last28 + 1) / (before28 + 1)),
        "item_trend7": np.log((4 * items["bought_last7"] + 1) / (last28 + 1)),
        "item_buyers": items["buyers"],
        "item_repeat_share": items["repeat_buyers"] / buyers,
        "item_per_buyer": items["bought"] / buyers,
        "item_new_buyers": items["new_buyers"],
        "item_new_share": items["new_buyers"] / np.maximum(last28, 1),
        "item_first_age": items["first_age"],
        "item_last_age": items["last_age"],
        "item_price": np.log(items["price"]),
        "item_quantity": np.log1p(items["quantity"] / count),
    }


def _user(history: UserHistory) -> dict[str, float]:
    user, n_items = history.user, float(len(history))
    events, bought = max(user["events"], 1.0), max(user["bought"], 1.0)
    span = user["first_age"] - user["last_age"]
    return {
        "user_items": n_items,
        "user_events": user["events"],
        "user_bought": user["bought"],
        "user_last_age": user["last_age"],
        "user_first_age": user["first_age"],
        "user_basket": user["bought"] / events,
        "user_price": float(np.log(user["spend"] / max(user["quantity"], 1e-9))) if user["spend"] > 0 else np.nan,
        "user_repeat_share": 1 - n_items / bought,
        "user_interval": span / (events - 1) if events > 1 else np.nan,
        "user_quantity": float(np.log1p(user["quantity"] / bought)),
        "user_recent_events": user["events_last28"],
    }


def _cross(item: Mapping[str, np.ndarray], user: Mapping[str, float]) -> dict[str, np.ndarray | float]:
    difference = item["item_price"] - user["user_price"]
    return {
        "price_difference": difference,
        "price_distance": np.abs(difference),
        "quantity_difference": item["item_quantity"] - user["user_quantity"],
        "appeared_since_visit": item["item_first_age"] - user["user_last_age"],
    }


def _text(state: FeatureState, history: UserHistory, codes: np.ndarray) -> dict[str, np.ndarray | float]:
    """Cosine of the item's text with the user's decayed and with the newest items' mean text."""
    if state.text is None or not len(history):
        return {"text_similarity": np.nan, "text_similarity_recent": np.nan}
    mine, theirs = single(state.text[history.items]), single(state.text[codes])
    whole = _unit(history.aggregates["strength_decay90"] @ mine)
    recent = _unit(mine[:RECENT_ITEMS].sum(axis=0))
    similarity = np.stack([whole, recent]) @ theirs.T
    return {"text_similarity": similarity[0], "text_similarity_recent": similarity[1]}


HALF_EXPONENT = np.float32(2.0**112)
"""What the bits of a half-precision number are off by when they are read as those of a single."""


def single(half: np.ndarray) -> np.ndarray:
    """``half.astype(np.float32)`` for finite float16, equal to the bit, several times as fast as numpy's own.

    Sign, exponent and fraction are moved to their places in a single; its exponent counts from 127, not from 15.
    """
    bits = half.view(np.int16).astype(np.int32)
    bits <<= 13
    bits &= np.int32(-0x70002000)  # the sign, which int16 to int32 has copied upwards, once
    values = bits.view(np.float32)
    values *= HALF_EXPONENT
    return values


def _unit(vector: np.ndarray) -> np.ndarray:
    unit: np.ndarray = vector / max(float(np.linalg.norm(vector)), 1e-9)
    return unit
