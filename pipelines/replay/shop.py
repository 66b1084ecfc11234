"""The shop's side of the API: ask for lists, tell what was bought."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from pipelines.errors import ArtifactError
from pipelines.replay.log import Order

TIMEOUT_S = 30
TRIES = 5
PAUSE_S = 1.0
BUSY = 503


class Shown(NamedTuple):
    """A list that the service answered with, best first."""

    token: str
    model_version: str
    fallback: str | None
    items: tuple[str, ...]


class Shop:
    """Talks to one service."""

    def __init__(self, address: str) -> None:
        """``address``: scheme, host and port."""
        self.address = address

    def ask(self, order: Order, *, new_only: bool, n: int, at: datetime) -> Shown:
        """A list for the customer of an order, without exploration, so that a replay gives the same again."""
        who = {"user_id": order.user_id, "visitor_id": order.visitor_id}
        wanted = {"n": n, "exclude_seen": new_only, "explore": False, "placement": "home"}
        answer = self._post("/v1/recommend", who | wanted | {"event_time": at.isoformat()})
        items = tuple(item["id"] for item in answer["items"])
        return Shown(answer["attribution_token"], answer["model_version"], answer["fallback"], items)

    def tell(self, orders: Sequence[Order], event_type: str, shown: dict[str, Shown]) -> int:
        """Post orders; one cites its customer's list where the list held one of its products. Gives how many counted.

        Posting the same again changes nothing.
        """
        if not orders:
            return 0
        answer = self._post("/v1/events", {"events": [_event(order, event_type, shown) for order in orders]})
        if answer["rejected"]:
            raise ArtifactError("the service refused an order", found=answer["rejected"][0], do="look at its log")
        return int(answer["accepted"])

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Post JSON; a service that restarts or is short of its store is asked again a few times.

        Raises:
            ArtifactError: when it refuses, or does not answer in the end.
        """
        for _ in range(TRIES - 1):
            try:
                return self._once(path, body)
            except urllib.error.HTTPError as error:
                if error.code != BUSY:
                    raise _refused(path, error) from None
            except OSError:
                pass
            time.sleep(PAUSE_S)
        try:
            return self._once(path, body)
        except urllib.error.HTTPError as error:
            raise _refused(path, error) from None
        except OSError as error:
            raise ArtifactError(f"{self.address} does not answer", found=error, do="start it again") from None

    def _once(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - the address is the caller's
            self.address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310 - as above
            found: dict[str, Any] = json.load(answer)
        return found


def _refused(path: str, error: urllib.error.HTTPError) -> ArtifactError:
    said = error.read().decode(errors="replace")[:300]
    return ArtifactError(f"{path} answered {error.code}", found=said, do="look at the service's log")


def _event(order: Order, event_type: str, shown: dict[str, Shown]) -> dict[str, Any]:
    products = [{"item_id": item, "quantity": quantity, "price": price} for item, quantity, price in order.products]
    listed = shown.get(order.history_id or "")
    cites = listed is not None and any(item in listed.items for item, _, _ in order.products)
    return {
        "event_type": event_type,
        "event_id": order.event_id,
        "event_time": order.event_time.isoformat(),
        "user_id": order.user_id,
        "visitor_id": order.visitor_id,
        "attribution_token": listed.token if cites and listed else None,
        "product_details": products,
    }
