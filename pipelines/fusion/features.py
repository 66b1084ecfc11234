"""Features of a candidate beside the members' scores: one definition for training and serving.

Everything comes from the feature state and the user's history as of the instant. NaN means unknown.
"""

from __future__ import annotations

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
"""Column names of :func:`describe`."""

RECENT_ITEMS = 10
"""How many of the newest items make the recent text profile."""


def describe(state: FeatureState, history: UserHistory, codes: np.ndarray) -> np.ndarray:
    """Features of candidates for one user.

    Args:
        state: items and users as of the instant.
        history: the user's history.
        codes: int64 ``[m]`` candidates.

    Returns:
        float32 ``[m, len(FEATURES)]``.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = _pair(history, codes) | _item(state, codes) | _user(history)
        columns |= _cross(columns) | _text(state, history, codes)
    out = np.empty((len(codes), len(FEATURES)), np.float32)
    for place, name in enumerate(FEATURES):
        out[:, place] = columns[name]
    out[~np.isfinite(out)] = np.nan
    return out


def _pair(history: UserHistory, codes: np.ndarray) -> dict[str, np.ndarray]:
    """What the user did with the item; 0 counts and NaN ages where nothing."""
    order = np.argsort(history.items, kind="stable")
    ascending = history.items[order]
    place = np.minimum(np.searchsorted(ascending, codes), max(0, len(ascending) - 1))
    known = ascending[place] == codes if len(ascending) else np.zeros(len(codes), np.bool_)
    row = order[place[known]] if len(ascending) else np.zeros(0, np.int64)

    def pick(name: str, missing: float) -> np.ndarray:
        values = np.full(len(codes), missing, np.float32)
        values[known] = history.aggregates[name][row]
        return values

    bought, first, last = pick("bought", 0.0), pick("first_age", np.nan), pick("last_age", np.nan)
    interval = np.where(bought > 1, (first - last) / np.maximum(bought - 1, 1), np.nan)
    events, tenure = history.user["events"], history.user["first_age"]
    since_first = 1 + np.maximum(0.0, events - 1) * first / max(tenure, 1e-6)
    return {
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


def _item(state: FeatureState, codes: np.ndarray) -> dict[str, np.ndarray]:
    items = {name: values[codes] for name, values in state.items.items()}
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


def _cross(columns: dict[str, np.ndarray | float]) -> dict[str, np.ndarray]:
    difference = np.asarray(columns["item_price"] - columns["user_price"])
    return {
        "price_difference": difference,
        "price_distance": np.abs(difference),
        "quantity_difference": np.asarray(columns["item_quantity"] - columns["user_quantity"]),
        "appeared_since_visit": np.asarray(columns["item_first_age"] - columns["user_last_age"]),
    }


def _text(state: FeatureState, history: UserHistory, codes: np.ndarray) -> dict[str, np.ndarray | float]:
    """Cosine of the item's text with the user's decayed and with the newest items' mean text."""
    if state.text is None or not len(history):
        return {"text_similarity": np.nan, "text_similarity_recent": np.nan}
    mine = state.text[history.items].astype(np.float32)
    theirs = state.text[codes].astype(np.float32)
    whole = _unit(history.aggregates["strength_decay90"] @ mine)
    recent = _unit(mine[:RECENT_ITEMS].sum(axis=0))
    return {"text_similarity": theirs @ whole, "text_similarity_recent": theirs @ recent}


def _unit(vector: np.ndarray) -> np.ndarray:
    unit: np.ndarray = vector / max(float(np.linalg.norm(vector)), 1e-9)
    return unit
