"""The offline side of the aggregates: state as of an instant, built in the table engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.adapters import frames
from pipelines.contracts import CATALOG
from pipelines.features.definitions import ITEM, USER, USER_ITEM, Aggregate, Fold
from pipelines.features.lookup import SECONDS_A_DAY
from pipelines.features.state import FeatureState, UserItems
from pipelines.ids import IdIndex
from pipelines.search import phrases, spelling
from pipelines.search.analysis import Analyzer, normalised
from pipelines.search.documents import written
from pipelines.search.item_words import ItemWords
from pipelines.search.variants import variants
from pipelines.text_encoding import TextVectors, item_text, text_key

MAX_ATTRIBUTE_VALUES = 1000
"""A user attribute with more distinct values than this is an identifier, not a feature."""

NEW_BUYER_DAYS = 28
"""A history that met the item for the first time within this many days is a new buyer."""


NAMING = ("title", "brand", "category")
"""Columns of the catalogue whose words are spelt with care."""

SUGGESTED_AFTER, MOST_SUGGESTED = 5, 20_000
"""So many people must have searched for something before it is suggested to others: what one types may be private."""

TYPES = {"user": np.int32, "item": np.int32, "time": np.int64, "event": np.int64}
"""Of what is read of the log; everything else is float32."""


def build(
    tables: Path,
    time: datetime,
    *,
    target: str,
    strengths: dict[str, float],
    text: TextVectors | None,
    language: str | None = "english",
    suggesting: bool = False,
) -> FeatureState:
    """Aggregates, items and users of what lies before ``time``.

    Args:
        tables: folder with ``interactions.parquet``, ``catalog.parquet``, ``users.parquet``.
        time: the instant; rows at or after it are not read.
        target: event type that the models predict.
        strengths: weight per positive event type.
        text: vectors of item texts, or None without an encoder.
        language: of the item texts, see :class:`FeatureState`.
        suggesting: whether to count what may be suggested while somebody types, which only a bundle needs.
    """
    with frames.engine() as connection:
        rows = connection.create_table("rows", as_of(frames.read(connection, tables / "interactions.parquet"), time))
        catalog = _catalog(frames.read(connection, tables / "catalog.parquet"), rows, time).to_pyarrow()
        item_ids = IdIndex.of(catalog["item_id"].to_pylist())
        items = ibis.memtable(_codes(item_ids, "item"))
        known = rows.filter(rows.history_id.notnull())
        user_ids = IdIndex.of(known.select("history_id").distinct().to_pyarrow()["history_id"].to_pylist())
        users = ibis.memtable(_codes(user_ids, "user"))
        coded = connection.create_table(
            "coded",
            rows.left_join(items, rows.item_id == items.id)
            .select(*rows.columns, "item")
            .left_join(users, rows.history_id == users.id)
            .select(*rows.columns, "item", "user"),
        )
        pairs = _fold(coded.filter(coded.user.notnull()), ["user", "item"], USER_ITEM)
        user_items = _user_items(pairs.order_by(["user", "last_age", "item"]).to_pyarrow(), len(user_ids))
        item_values = _dense(_fold(coded, ["item"], ITEM).to_pyarrow(), "item", ITEM, len(item_ids))
        by_user = _fold(coded.filter(coded.user.notnull()), ["user"], USER)
        user_values = _dense(by_user.to_pyarrow(), "user", USER, len(user_ids))
        attributes = frames.read(connection, tables / "users.parquet").to_pyarrow()
        n_searches = int(rows["query"].count().to_pyarrow().as_py())
        searched = _searched(rows) if suggesting else {}
    bought = user_items.aggregates["bought"]
    for name, least in (("buyers", 1), ("repeat_buyers", 2)):
        counted = np.bincount(user_items.items[bought >= least], minlength=len(item_ids))
        item_values[name] = counted.astype(np.float32)
    fresh = user_items.aggregates["first_age"] <= NEW_BUYER_DAYS
    item_values["new_buyers"] = np.bincount(user_items.items[fresh], minlength=len(item_ids)).astype(np.float32)
    item_values["price"] = catalog["price"].to_numpy(zero_copy_only=False).astype(np.float32)
    values, codes = _attributes(attributes, user_ids)
    vectors = None if text is None else text.lookup([text_key(t) for t in _texts(catalog)])
    told = ItemWords.of(written(catalog, (*NAMING, "description")))
    words = spelling.counted(written(catalog, NAMING), told.counts)
    return FeatureState(
        time=time,
        item_ids=item_ids,
        user_ids=user_ids,
        catalog=catalog,
        items=item_values,
        users=user_values,
        user_items=user_items,
        attribute_values=values,
        user_attributes=codes,
        text=vectors,
        target=target,
        strengths=strengths,
        language=language,
        n_searches=n_searches,
        words=words,
        variants={} if vectors is None else variants(words, told, vectors, Analyzer(language)),
        phrases=phrases.counted(filter(None, catalog["title"].to_pylist())) if suggesting else {},
        searched=searched,
        interactions=tables / "interactions.parquet",
    )


def as_of(interactions: ir.Table, time: datetime) -> ir.Table:
    """Rows before an instant, with their ``age`` in days (float64) and ``known_target``."""
    rows = interactions.filter(interactions.event_time < ibis.literal(time))
    age = (frames.seconds(time) - frames.whole_seconds(rows.event_time)) / SECONDS_A_DAY
    known = ibis.ifelse(rows.history_id.notnull(), rows.target, 0.0)
    return rows.mutate(age=ibis.greatest(age, 0.0), known_target=known)


def interactions(state: FeatureState) -> dict[str, np.ndarray]:
    """Interactions of known users as of the state's instant, oldest first.

    Returns:
        ``user``, ``item`` int32 codes; ``time`` int64 seconds since 1970; ``event`` int64, equal for the
        rows of one event; ``strength``, ``target``, ``quantity`` float32. All ``[n]``.
    """
    with frames.engine() as connection:
        coded = _coded(connection, state)
        rows = coded.filter(coded.history_id.notnull())
        event = ibis.dense_rank().over(ibis.window(order_by=[rows.event_time, rows.event_id, rows.user]))
        found = rows.mutate(time=frames.whole_seconds(rows.event_time), event=event)
        columns = ["user", "item", "time", "event", "strength", "target", "quantity"]
        table = found.order_by(["time", "event", "item"]).select(columns).to_pyarrow()
    return {name: table[name].to_numpy().astype(TYPES.get(name, np.float32)) for name in columns}


def interactions_with_queries(state: FeatureState) -> tuple[dict[str, np.ndarray], list[str]]:
    """Interactions of known users, and of others what was chosen after a search, as of the state's instant.

    Returns:
        ``user`` int32, -1 for those without a history, ``item`` int32, ``time`` int64 seconds since 1970, ``query``
        int32, -1 where nothing was searched for before, ``strength``, ``target`` float32, all ``[n]``, oldest first;
        and the queries as they were typed, by their code.
    """
    with frames.engine() as connection:
        coded = _coded(connection, state)
        rows = coded.filter(coded.history_id.notnull() | coded["query"].notnull())
        found = rows.mutate(time=frames.whole_seconds(rows.event_time), user=rows.user.fill_null(-1))
        columns = ["user", "item", "time", "strength", "target", "query"]
        order = ["event_time", "event_id", "user", "item", "query"]
        table = found.order_by(order).select(columns).to_pyarrow()
    typed = pc.drop_null(table["query"].unique()).sort() if len(table) else table["query"]
    numbers = {name: table[name].to_numpy().astype(TYPES.get(name, np.float32)) for name in columns[:-1]}
    codes = pc.fill_null(pc.index_in(table["query"], typed), -1).to_numpy()
    return numbers | {"query": codes.astype(np.int32)}, typed.to_pylist()


def _coded(connection: ibis.BaseBackend, state: FeatureState) -> ir.Table:
    """Interactions as of the state's instant with the codes ``item`` and ``user``, null for who has no history."""
    if state.interactions is None:
        raise ValueError("this state was loaded from a bundle, which ships no interactions")
    rows = as_of(frames.read(connection, state.interactions), state.time)
    items = ibis.memtable(_codes(state.item_ids, "item"))
    users = ibis.memtable(_codes(state.user_ids, "user"))
    return (
        rows.inner_join(items, rows.item_id == items.id)
        .select(*rows.columns, "item")
        .left_join(users, rows.history_id == users.id)
        .select(*rows.columns, "item", "user")
    )


def chosen_after_searches(
    state: FeatureState, key: Callable[[str], str], *, days: float, of: np.ndarray | None = None
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """What was chosen after each search as of the state's instant, and by how many.

    A history counts once for a query and a code, with the root of its strongest event's strength, decayed by
    ``exp(-age / days)``: a purchase as 1, a look at a product as .32. So nobody counts for more than 1, however
    often the same is done. Events without a history count as those of one nobody.

    Args:
        state: with its interactions.
        key: what queries that mean the same have in common; empty for one that asks nothing.
        days: time constant of the decay.
        of: int ``[n_items]``, what an item counts as, -1 for nothing; None: as itself.

    Returns:
        Keys in order, codes, int64, and evidence > 0, float64, a row for each pair; pairs of one query are adjacent,
        codes ascending.
    """
    if state.interactions is None:
        raise ValueError("this state was loaded from a bundle, which ships no interactions")
    with frames.engine() as connection:
        rows = as_of(frames.read(connection, state.interactions), state.time)
        rows = rows.filter(rows["query"].notnull())
        named = _by_key(rows, key)
        counts_as = np.arange(state.n_items, dtype=np.int32) if of is None else of.astype(np.int32)
        codes = pa.table({"id": pa.array(state.item_ids.ids(), pa.string()), "item": counts_as})
        items = ibis.memtable(codes).filter(lambda table: table.item >= 0)
        coded = rows.inner_join(items, rows.item_id == items.id).select(*rows.columns, "item")
        joined = coded.inner_join(named, coded["query"] == named.typed).select(*coded.columns, "key")
        counted = joined.mutate(evidence=joined.strength.sqrt() * (joined.age / -days).exp())
        once = counted.group_by(["key", "item", "history_id"]).aggregate(evidence=counted.evidence.max())
        found = once.group_by(["key", "item"]).aggregate(evidence=once.evidence.sum())
        table = found.order_by(["key", "item"]).to_pyarrow()
    return table["key"].to_pylist(), table["item"].to_numpy().astype(np.int64), table["evidence"].to_numpy()


def _by_key(rows: ir.Table, key: Callable[[str], str]) -> ir.Table:
    """The distinct queries of rows that ask something: ``typed``, and ``key``, what those that mean the same share."""
    typed = rows.select("query").distinct().to_pyarrow()["query"].to_pylist()
    keys = {"typed": pa.array(typed, pa.string()), "key": pa.array([key(one) for one in typed], pa.string())}
    return ibis.memtable(pa.table(keys)).filter(lambda table: table.key != "")


def _searched(rows: ir.Table) -> dict[str, int]:
    """Normalised queries after which at least :data:`SUGGESTED_AFTER` histories chose something; and how many did."""
    asked = rows.filter(rows["query"].notnull() & rows.history_id.notnull())
    named = _by_key(asked, normalised)
    joined = asked.inner_join(named, asked["query"] == named.typed).select("key", "history_id")
    counted = joined.group_by("key").aggregate(people=joined.history_id.nunique())
    enough = counted.filter(counted.people >= SUGGESTED_AFTER)
    table = enough.order_by([ibis.desc("people"), "key"]).limit(MOST_SUGGESTED).to_pyarrow()
    return dict(zip(table["key"].to_pylist(), table["people"].to_pylist(), strict=True))


def _codes(ids: IdIndex, name: str) -> pa.Table:
    return pa.table({"id": pa.array(ids.ids(), pa.string()), name: pa.array(np.arange(len(ids)), pa.int32())})


def _catalog(catalog: ir.Table, rows: ir.Table, time: datetime) -> ir.Table:
    """One row an item as of an instant.

    The newest version before the instant; an item that had events before its first version keeps that
    first version; an item with neither did not exist yet.
    """
    before = catalog.updated_at.isnull() | (catalog.updated_at < ibis.literal(time))
    stamp = ibis.coalesce(frames.whole_seconds(catalog.updated_at), -(2**62))
    ranked = catalog.mutate(before=before, distance=ibis.ifelse(before, -stamp, stamp))
    order = ibis.window(group_by="item_id", order_by=[ibis.desc("before"), "distance", "title"])
    newest = ranked.mutate(place=ibis.row_number().over(order)).filter(lambda table: table.place == 0)
    sold = rows.select("item_id").distinct()
    existing = newest.filter(newest.before | newest.item_id.isin(sold.item_id))
    return existing.order_by("item_id").select(*CATALOG.names)


def _fold(rows: ir.Table, key: Sequence[str], aggregates: Sequence[Aggregate]) -> ir.Table:
    return rows.group_by(list(key)).aggregate(**{a.name: _expression(rows, a) for a in aggregates})


def _expression(rows: ir.Table, aggregate: Aggregate) -> Any:
    """The fold as an expression; ``lookup.fold`` is the same in arrays."""
    column = rows[aggregate.column].fill_null(0.0)
    if aggregate.fold is Fold.MIN:
        return column.min()
    if aggregate.fold is Fold.MAX:
        return column.max()
    if aggregate.fold is Fold.DECAYED:
        column = column * (rows.age / -aggregate.days).exp()
    elif aggregate.fold is Fold.RECENT:
        column = ibis.ifelse(rows.age <= aggregate.days, column, 0.0)
    return column.sum()


def _dense(table: pa.Table, key: str, aggregates: Sequence[Aggregate], n: int) -> dict[str, np.ndarray]:
    places = table[key].to_numpy()
    dense = {}
    for aggregate in aggregates:
        values = np.full(n, aggregate.empty, np.float32)
        values[places] = table[aggregate.name].to_numpy()
        dense[aggregate.name] = values
    return dense


def _user_items(table: pa.Table, n_users: int) -> UserItems:
    pointer = np.zeros(n_users + 1, np.int64)
    np.cumsum(np.bincount(table["user"].to_numpy(), minlength=n_users), out=pointer[1:])
    aggregates = {a.name: table[a.name].to_numpy().astype(np.float32) for a in USER_ITEM}
    return UserItems(pointer, table["item"].to_numpy().astype(np.int32), aggregates)


def _texts(catalog: pa.Table) -> list[str]:
    columns = (catalog[name].to_pylist() for name in ("title", "brand", "category"))
    return [item_text(title, brand, category) for title, brand, category in zip(*columns, strict=True)]


def _attributes(users: pa.Table, user_ids: IdIndex) -> tuple[dict[str, list[str]], dict[str, np.ndarray]]:
    """Categorical user attributes: values per attribute, and a code per user (-1 unknown)."""
    found: dict[str, dict[int, str]] = {}
    for user_id, attributes in zip(users["user_id"].to_pylist(), users["attributes"].to_pylist(), strict=True):
        code = user_ids.code(user_id)
        if code < 0 or not attributes:
            continue
        for name, value in json.loads(attributes).items():
            if isinstance(value, str | int | bool):
                found.setdefault(name, {})[code] = str(value)
    values: dict[str, list[str]] = {}
    codes: dict[str, np.ndarray] = {}
    for name, by_user in sorted(found.items()):
        distinct = sorted(set(by_user.values()))
        if not name.isidentifier() or len(distinct) > MAX_ATTRIBUTE_VALUES:
            continue
        place = {value: code for code, value in enumerate(distinct)}
        values[name] = distinct
        codes[name] = np.full(len(user_ids), -1, np.int32)
        for user, value in by_user.items():
            codes[name][user] = place[value]
    return values, codes
