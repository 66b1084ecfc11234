"""What is checked and made once, before a port is bound and workers start. Light: it delays every start."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path

from pipelines.errors import ArtifactError
from serving import auth, bundle_choice


def check(environ: Mapping[str, str], *, host: str | None) -> str | None:
    """Refuse a start that cannot end well.

    Returns:
        What there is to say of a start that is allowed: that it waits for the first promotion, or nothing.

    Raises:
        FuselineError: the keys file, the event store or the bundle cannot be used, or there are no keys
            and ``host`` is not loopback.
    """
    if auth.load_from(environ) is None and host is not None and not auth.is_loopback(host):
        raise ArtifactError(
            f"the service does not listen on {host} without keys",
            do="set FUSELINE_API_KEYS_FILE to a file of keys and roles, or use --host 127.0.0.1",
        )
    _check_store(bundle_choice.events_url(environ))
    try:
        choice = bundle_choice.choose(environ)
    except bundle_choice.NoBundleYet as error:
        return f"{error}. Until the first promotion it takes events, is not ready, and answers 503"
    bundle_choice.verify(choice)
    return None


def share_orders(environ: MutableMapping[str, str]) -> tempfile.TemporaryDirectory[str] | None:
    """Name a folder of its own to the workers, on a local disk, unless one is named; it goes when nobody holds it.

    Returns:
        The folder; None where one is named, or none can be made and each worker keeps its own orders.
    """
    if bundle_choice.ORDERS in environ:
        return None
    try:
        made = tempfile.TemporaryDirectory(prefix="fuseline-orders-", ignore_cleanup_errors=True)
    except OSError:
        return None
    environ[bundle_choice.ORDERS] = made.name
    return made


def _check_store(url: str) -> None:
    if url.startswith("sqlite:///"):
        folder = Path(url.removeprefix("sqlite:///")).absolute().parent
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise ArtifactError(f"{folder} cannot be written to", do="set FUSELINE_HOME or FUSELINE_EVENTS_URL")
        return
    from serving.event_store import EventStore

    EventStore.open(url).close()


def asked_host(arguments: Sequence[str], environ: Mapping[str, str]) -> str | None:
    """The host that ``bentoml serve`` was told to bind, or None when it was told nothing."""
    for place, argument in enumerate(arguments):
        if argument == "--host" and place + 1 < len(arguments):
            return arguments[place + 1]
        if argument.startswith("--host="):
            return argument.removeprefix("--host=")
    return environ.get("BENTOML_HOST")
