"""What one worker holds: the bundle it serves, the event store, the keys."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipelines.bundle import Bundle
from pipelines.errors import ArtifactError, FuselineError
from pipelines.ranking import RankRequest
from serving import auth, bundle_choice
from serving.auth import Keys
from serving.event_store import EventStore
from serving.problems import Problem

logger = logging.getLogger("fuseline.service")


SWITCH_INTERVAL_S = 0.0005
WARMING_USERS = 5


@dataclass(frozen=True)
class Served:
    """A bundle in service; ``version`` goes into every answer and impression."""

    bundle: Bundle
    version: str
    source: str

    @property
    def bundle_id(self) -> str:
        """The bundle's own id, the same wherever it is served."""
        return str(self.bundle.manifest["id"])


@dataclass
class Runtime:
    """State of a worker.

    ``served`` is read once at the start of a request and never written into; to serve another bundle,
    replace it by one assignment. It is None when the bundle could not be loaded: ``failure`` says why,
    events are still taken, and the service is not ready.
    """

    store: EventStore
    keys: Keys | None
    replay: bool
    served: Served | None
    failure: str | None = None

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
            served = load(environ)
        except FuselineError as error:
            failure = str(error)
            logger.error("%s", failure)  # noqa: TRY400 - the message says it all
        # the writer's thread must not wait 5 ms for every turn of the interpreter's lock
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        gc.collect()
        gc.freeze()
        return cls(store, keys, environ.get("FUSELINE_REPLAY") == "1", served, failure)

    def current(self) -> Served:
        """The bundle in service.

        Raises:
            Problem: 503 when there is none.
        """
        if self.served is None:
            raise Problem(503, self.failure or "no bundle is loaded")
        return self.served

    def close(self) -> None:
        """Flush the event store."""
        self.store.close()


def load(environ: Mapping[str, str]) -> Served:
    """Load the bundle that the environment names; :mod:`serving.start` has compared its files already.

    Raises:
        ArtifactError: naming the folder or file that is missing or damaged.
    """
    choice = bundle_choice.choose(environ)
    try:
        bundle = Bundle.load(choice.folder, verify=False)
    except FuselineError:
        raise
    except Exception as error:
        raise ArtifactError(f"{choice.folder} is not a usable bundle", found=repr(error), do="promote again") from error
    warm(bundle)
    return Served(bundle, choice.version or str(bundle.manifest["id"]), choice.source)


def warm(bundle: Bundle) -> None:
    """Answer once for a few long histories and a stranger, so that the first request finds the pages in memory."""
    lengths = np.diff(bundle.features.user_items.pointer)
    longest = np.argsort(-lengths, kind="stable")[:WARMING_USERS].tolist()
    for surface in bundle.fusion:
        for history in [bundle.features.history(code) for code in [*longest, -1]]:
            bundle.rank(RankRequest(surface=surface), history)
