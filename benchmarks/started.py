"""The service under a benchmark: the checkout's code with a state of its own."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipelines import service_process
from pipelines.service_process import Started

ROOT = Path(__file__).resolve().parents[1]
NOT_INHERITED = frozenset({"FUSELINE_BUNDLE", "PYTHONDONTWRITEBYTECODE"})
"""Of this process's environment: with the second, which ``make`` unsets too, every start compiles Python's modules."""

EMPTY_SERVICE = "benchmarks.empty_service:Empty"


@contextmanager
def serving(service: str, workers: int, scratch: Path, bundle: Path | None, **more: str) -> Iterator[Started]:
    """Start a BentoML service on a free port, yield when it is ready, stop it at the end.

    Args:
        service: ``module:Class``.
        workers: worker processes.
        scratch: folder for the service's own home (named like the class) and log.
        bundle: what it serves; None: the champion of that home.
        more: further environment variables.
    """
    name = service.rpartition(":")[2]
    home = scratch / name
    home.mkdir(exist_ok=True)
    environment = {
        **{name: value for name, value in os.environ.items() if name not in NOT_INHERITED},
        **({} if bundle is None else {"FUSELINE_BUNDLE": str(bundle)}),
        "FUSELINE_HOME": str(home),
        "BENTOML_HOME": str(home / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_CONFIG_OPTIONS": f"services.{name.lower()}.workers={workers}",
        **more,
    }
    with service_process.serving(service, environment=environment, cwd=ROOT, log=home / "log") as started:
        yield started


def seconds_to_start(
    services: Sequence[str], workers: int, scratch: Path, bundle: Path | None, *, rounds: int
) -> list[float]:
    """Seconds from the command to the first ready answer of each service, medians over rounds of alternating order.

    Each is started once before: the first start after an installation compiles the modules of Python that it reads.
    """
    found: dict[str, list[float]] = {service: [] for service in services}
    for round_ in range(rounds + 1):
        for service in services if round_ % 2 else reversed(services):
            with serving(service, workers, scratch, bundle) as started:
                found[service].append(started.start_s)
    return [round(statistics.median(times[1:]), 2) for times in found.values()]
