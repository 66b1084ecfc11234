"""A bundle's lists for given users, with the events that it would have lived through by an instant.

An older bundle would have gone on serving with the events posted since it was made. So a user's history is
the bundle's own state carried on by those events, as the service does it.

``python -m pipelines.gating.listing`` runs it in a process of its own, on the source that the bundle was
made with: how a list is made is part of the recipe.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.bundle import Bundle
from pipelines.contracts import Surface
from pipelines.evaluation.metrics import LIST_LENGTH
from pipelines.features.lookup import LiveEvent
from pipelines.parallel import mapped
from pipelines.ranking import RankRequest
from pipelines.stages.running import run
from pipelines.storage import replacing_file

USERS = pa.schema([("surface", pa.string()), ("history_id", pa.string())])
LISTS = pa.schema([*USERS, ("rank", pa.int64()), ("item_id", pa.string())])


def lists(bundle: Bundle, users: pa.Table, live: Mapping[str, Sequence[LiveEvent]]) -> pa.Table:
    """What the bundle answers each user on each surface that it has, columns ``LISTS``, ``rank`` from 1.

    Args:
        bundle: who answers.
        users: columns ``USERS``; on ``search`` a query stands in the place of the history.
        live: events since the bundle was made by history, oldest first.
    """

    def answered(asked: dict[str, str]) -> list[dict[str, object]]:
        surface, user = asked["surface"], asked["history_id"]
        request = RankRequest(surface=Surface(surface), n=LIST_LENGTH)
        if surface == Surface.SEARCH:
            ranking = bundle.judging(user).rank(replace(request, query=user), bundle.history())
        else:
            ranking = bundle.rank(request, bundle.history(user_id=user, events=live.get(user, ())))
        return [asked | {"rank": place, "item_id": item.id} for place, item in enumerate(ranking.items, 1)]

    asking = [asked for asked in users.to_pylist() if asked["surface"] in bundle.manifest["surfaces"]]
    return pa.Table.from_pylist([row for rows in mapped(answered, asking) for row in rows], schema=LISTS)


def live_events(interactions: Path, *, since: datetime, until: datetime) -> dict[str, list[LiveEvent]]:
    """Events of known histories in [since, until), oldest first, by history."""
    if since >= until:
        return {}
    columns = ["history_id", "item_id", "event_type", "event_time", "quantity", "spend", "event_share"]
    inside = (pc.field("event_time") >= since) & (pc.field("event_time") < until)
    table = pq.read_table(interactions, columns=columns, filters=inside & pc.field("history_id").is_valid())
    found: dict[str, list[LiveEvent]] = {}
    for row in table.sort_by([("event_time", "ascending"), ("item_id", "ascending")]).to_pylist():
        quantity, spend = row["quantity"], row["spend"]
        price = spend / quantity if spend is not None and quantity else None
        event = LiveEvent(row["item_id"], row["event_type"], row["event_time"], quantity, price, row["event_share"])
        found.setdefault(row["history_id"], []).append(event)
    return found


def main() -> None:
    """Parse, load, list, save."""
    parser = ArgumentParser(description=lists.__doc__)
    for name in ("bundle", "users", "interactions", "target"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--until", type=datetime.fromisoformat, required=True)
    given = parser.parse_args()
    bundle = Bundle.load(given.bundle)
    live = live_events(given.interactions, since=bundle.as_of, until=given.until)
    with replacing_file(given.target) as aside:
        pq.write_table(lists(bundle, pq.read_table(given.users), live), aside)


if __name__ == "__main__":
    run(main)
