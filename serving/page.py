"""The storefront page: one file, no build, nothing from elsewhere."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import orjson

from pipelines.bundle import Bundle
from pipelines.catalogue import FACETS
from pipelines.contracts import Surface

SAMPLED_USERS = 12
SHOWN_ATTRIBUTES = 3
TEMPLATE = Path(__file__).with_name("page.html")


def render(bundle: Bundle, *, guarded: bool) -> bytes:
    """The page with what it needs to know of the bundle put in as JSON."""
    about = {
        "users": [] if guarded else sample_users(bundle),
        "guarded": guarded,
        "as_of": bundle.features.time.isoformat(),
        "dated": bundle.features.n_users > 0,
        "target": bundle.features.target,
        "searches": bool(bundle.on(Surface.SEARCH)),
        "facets": ["category", *bundle.catalogue.fields[len(FACETS) :][:SHOWN_ATTRIBUTES]],
    }
    inline = orjson.dumps(about).replace(b"<", b"\\u003c")
    return _template().replace(b"/*ABOUT*/null", inline)


@functools.cache
def _template() -> bytes:
    return TEMPLATE.read_bytes()


def sample_users(bundle: Bundle) -> list[str]:
    """Ids of users with long histories, spread over the codes."""
    n_items = np.diff(bundle.features.user_items.pointer)
    busiest = np.argsort(-n_items, kind="stable")[: 10 * SAMPLED_USERS]
    spread = np.sort(busiest)[:: max(1, len(busiest) // SAMPLED_USERS)][:SAMPLED_USERS]
    return bundle.features.user_ids.ids(int(code) for code in spread)
