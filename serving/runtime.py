"""What one worker holds: the bundle it serves, the one before it, the event store, the keys."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.bundle import Bundle
from pipelines.contracts import Surface
from pipelines.errors import ArtifactError, FuselineError
from pipelines.ranking import Filter, RankRequest
from pipelines.storage import held
from serving import auth, bundle_choice
from serving.auth import Keys
from serving.bundle_choice import BundleChoice
from serving.event_store import EventStore
from serving.garbage import Collector

logger = logging.getLogger("fuseline.service")


SWITCH_INTERVAL_S = 0.0005
WARMING_USERS = 1


@dataclass(frozen=True)
class Served:
    """A bundle in service; ``version`` goes into every answer and impression."""

    bundle: Bundle
    version: str
    source: str
    folder: Path

    @property
    def bundle_id(self) -> str:
        """The bundle's own id, the same wherever it is served."""
        return str(self.bundle.manifest["id"])

    def answers(self, choice: BundleChoice) -> bool:
        """Whether this is the bundle chosen, under the version chosen."""
        return self.folder == choice.folder and choice.version in {None, self.version}


@dataclass
class Runtime:
    """State of a worker.

    ``served`` is read once at the start of a request and never written into; :meth:`serve` replaces it by
    one assignment. It is None when there is no bundle or it could not be loaded: ``failure`` says why,
    events are still taken, and the service is not ready. ``previous`` is what served before it, kept loaded
    so that a rollback costs nothing.
    """

    store: EventStore
    keys: Keys | None
    replay: bool
    served: Served | None
    failure: str | None = None
    previous: Served | None = None
    collector: Collector | None = None

    @classmethod
    def open(cls, environ: Mapping[str, str]) -> Runtime:
        """Load what the environment names.

        Raises:
            FuselineError: when keys or event store cannot be used; a bundle that cannot is in ``failure``.
        """
        keys = auth.load_from(environ)
        store = EventStore.open(bundle_choice.events_url(environ), state_url=environ.get("FUSELINE_STATE_URL") or None)
        served, failure = None, None
        try:
            served = load(bundle_choice.choose(environ), orders=bundle_choice.shared_orders(environ))
        except FuselineError as error:
            failure = str(error)
            logger.error("%s", failure)  # noqa: TRY400 - the message says it all
        # the writer's thread must not wait 5 ms for every turn of the interpreter's lock
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        collector = Collector()
        collector.start()
        return cls(store, keys, environ.get("FUSELINE_REPLAY") == "1", served, failure, collector=collector)

    def serve(self, other: Served) -> None:
        """Answer with another bundle from the next request on; requests under way keep theirs."""
        before, self.served = self.served, other
        self.previous, self.failure = before, None

    def close(self) -> None:
        """Flush the event store."""
        self.store.close()
        if self.collector is not None:
            self.collector.close()


def load(choice: BundleChoice, *, orders: Path | None = None, breathe: Callable[[], None] = lambda: None) -> Served:
    """Load and warm a bundle; whether its files are whole is for the caller to know.

    Args:
        choice: which.
        orders: of :func:`~serving.bundle_choice.shared_orders`.
        breathe: called between the steps, for a caller who must let others work in between.

    Raises:
        ArtifactError: naming the folder or file that is missing or damaged.
    """
    try:
        with held(choice.folder):
            bundle = Bundle.load(choice.folder, verify=False, orders=orders)
            breathe()
            warm(bundle, breathe=breathe)
    except FuselineError:
        raise
    except Exception as error:
        raise ArtifactError(f"{choice.folder} is not a usable bundle", found=repr(error), do="promote again") from error
    return Served(bundle, choice.version or str(bundle.manifest["id"]), choice.source, choice.folder)


def warm(bundle: Bundle, *, breathe: Callable[[], None] = lambda: None) -> None:
    """Answer once for the longest histories and a stranger, search and rank, so that the first request finds all there.

    A bundle that cannot answer these is found out here, before a shopper meets it.
    """
    lengths = np.diff(bundle.features.user_items.pointer)
    longest = np.argsort(-lengths, kind="stable")[:WARMING_USERS].tolist()
    fields = bundle.catalogue.fields if bundle.on(Surface.SEARCH) else ()
    typed = bundle.features.catalog["title"][0].as_py() if bundle.features.n_items else None
    for surface in bundle.fusion:
        query = typed if surface is Surface.SEARCH else None
        for history in [bundle.features.history(code) for code in [*longest, -1]]:
            asked = RankRequest(surface=surface, query=query, facets=fields if query else ())
            bundle.rank(asked, history)
            breathe()
        given = bundle.features.item_ids.ids([0]) if bundle.features.n_items else []
        bundle.score_items(given, bundle.features.history(-1), surface, query=query)
        breathe()
    if bundle.on(Surface.SEARCH):
        bundle.reader.suggestions("a", 1)
        breathe()
    bundle.rank(RankRequest(filter=Filter(category="", brand="")), bundle.features.history(-1))
