"""What is checked and made once, before a port is bound and workers start. Light: it delays every start."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from pipelines.errors import ArtifactError
from pipelines.storage import held, remove_unless_held
from serving import auth, bundle_choice
from serving.connections import CONNECTIONS, Held

MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of its own is made there, for its owner alone
"""Files in memory, on Linux. A search writes its order for the other workers, which no disk shall wait for."""

ROOM = 300_000_000
"""Bytes that must be free there: what all slots of ``kept_orders`` may come to, and some more; usual is 100 MB."""

PREFIX = "fuseline-shared-"


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
    bundle_choice.verify(choice, threads=os.cpu_count() or 1)
    return None


def share(environ: MutableMapping[str, str]) -> ExitStack | None:
    """Name to the workers what they share, in a folder of its own: in memory, or where ``TMPDIR`` says.

    That are the orders of searches, unless a folder for them is named, and who holds how many connections.

    Returns:
        What holds the folder, which goes when it is closed or this process ends; None where none can be made, and each
        worker keeps its own orders. What a killed process left in memory goes with the next call.
    """
    place = None if environ.get("TMPDIR") else _memory()
    with suppress(OSError), ExitStack() as stack:
        made = tempfile.TemporaryDirectory(prefix=PREFIX, dir=place, ignore_cleanup_errors=True)
        folder = Path(stack.enter_context(made))
        connections, orders = folder / "connections", folder / "orders"
        orders.mkdir()
        stack.enter_context(held(orders))
        connections.write_bytes(Held.EMPTY)
        environ[CONNECTIONS] = str(connections)
        environ.setdefault(bundle_choice.ORDERS, str(orders))
        return stack.pop_all()
    return None


def _memory() -> Path | None:
    """Where files lie in memory, if there is room."""
    with suppress(OSError):
        for left in MEMORY.glob(f"{PREFIX}*"):
            with suppress(OSError):
                remove_unless_held(left)
        if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= ROOM:
            return MEMORY
    return None


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
