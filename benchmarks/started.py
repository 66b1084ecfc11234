"""The service under a benchmark: the checkout's code with a state of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines import service_process
from pipelines.service_process import Started

ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def serving(service: str, workers: int, scratch: Path, bundle: Path) -> Iterator[Started]:
    """Start a BentoML service on a free port, yield when it is ready, stop it at the end.

    Args:
        service: ``module:Class``.
        workers: worker processes.
        scratch: folder for the service's own home and log.
        bundle: what it serves.
    """
    name = service.rpartition(":")[2]
    home = scratch / name
    home.mkdir()
    environment = {
        **os.environ,
        "FUSELINE_HOME": str(home),
        "FUSELINE_BUNDLE": str(bundle),
        "BENTOML_HOME": str(home / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_CONFIG_OPTIONS": f"services.{name.lower()}.workers={workers}",
    }
    with service_process.serving(service, environment=environment, cwd=ROOT, log=home / "log") as started:
        yield started
