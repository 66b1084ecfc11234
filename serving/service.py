"""The BentoML service ``fuseline``: ``bentoml serve serving.service:Fuseline``.

Importing it starts nothing, and in the process that only supervises the workers it imports little.
"""

from __future__ import annotations

import gc
import os
import sys
from importlib.abc import MetaPathFinder
from typing import Any

import bentoml
from _bentoml_sdk import Service  # type: ignore[import-untyped]

from pipelines.errors import FuselineError
from serving import start

_shared: Any = None


async def routes(scope: Any, receive: Any, send: Any) -> None:
    """The mounted application of :mod:`serving.application`."""
    from serving.application import ROUTES

    await ROUTES(scope, receive, send)


class Without(MetaPathFinder):
    """Lets a worker be without libraries that the packaged service has not, and others import where they find them.

    Arrow imports pandas at the first conversion, 50 MB and a third of a second, and bm25s SciPy, half a second; both
    do without.
    """

    LIBRARIES = frozenset({"pandas", "scipy"})

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        """Nothing; for these, that there is none."""
        if fullname in self.LIBRARIES:
            raise ImportError(f"a worker does without {fullname}", name=fullname)


class FrontService(Service[Any]):  # type: ignore[misc]
    """BentoML's service with our routes before its middlewares, see ``docs/adr/0003``."""

    def to_asgi(self, is_main: bool = True) -> Any:  # noqa: FBT001, FBT002 - BentoML's signature
        """The application that a worker serves."""
        gc.disable()  # what is imported and loaded from here on stays; serving.garbage begins when all is there

        from serving.application import in_front
        from serving.even_server import even

        even(os.environ, worker=bentoml.server_context.worker_index)
        return in_front(super().to_asgi(is_main))


@bentoml.asgi_app(routes)
@bentoml.service(
    name="fuseline",
    service_class=FrontService,
    workers=2,
    http={"host": "127.0.0.1"},
    logging={"access": {"enabled": False}},
    envs=[{"name": "OPENBLAS_NUM_THREADS", "value": "1"}],  # a worker uses one core; its threads would fight
)
class Fuseline:
    """Recommendations, similar items, events."""

    def __init__(self) -> None:
        """Load the bundle, open the event store and follow the champion, once a worker."""
        sys.meta_path.insert(0, Without())

        from serving.application import ROUTES
        from serving.following import Follower
        from serving.metrics import BundleMetrics
        from serving.runtime import Runtime

        metrics = BundleMetrics()
        self.runtime = ROUTES.state.runtime = Runtime.open(os.environ)
        if self.runtime.served is not None:
            metrics.serving(self.runtime.served)
        self.follower = None
        if not os.environ.get("FUSELINE_BUNDLE"):
            self.follower = Follower(self.runtime, os.environ, watcher=metrics)
            self.follower.start()

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def check() -> None:
        """Once, before the port is bound: end with a message rather than start broken."""
        global _shared  # noqa: PLW0603 - held as long as this process, which supervises the workers
        try:
            said = start.check(os.environ, host=start.asked_host(sys.argv, os.environ))
            _shared = start.share(os.environ)
        except FuselineError as error:
            sys.stderr.write(f"fuseline: {error}\n")
            raise SystemExit(error.exit_code) from None
        if said:
            sys.stderr.write(f"fuseline: {said}\n")

    def __is_ready__(self) -> bool:
        """What ``/readyz`` asks."""
        return self.runtime.served is not None

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    def close(self) -> None:
        """Flush what waits."""
        if self.follower is not None:
            self.follower.close()
        self.runtime.close()
