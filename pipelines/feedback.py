"""Where the service's events lie on their way back: the store's address, and the partitions made of it.

``FUSELINE_HOME/var/feedback/dt=YYYY-MM-DD/`` holds the rows of one day (UTC, by the time of the event) in
files named by their content, ``events-<hash>.parquet`` and ``impressions-<hash>.parquet``. Which of them
count is said by ``_collected.json`` alone, which is replaced in one rename: so the partitions change all at
once or not at all, and a reader sees files and watermark of one moment. A file that was replaced is kept
below ``var/collect`` for a while, for runs that have written it into their snapshot already.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipelines.errors import ArtifactError
from pipelines.storage import read_json, write_json

FEEDBACK = "var/feedback"
"""Where below ``FUSELINE_HOME`` the partitions lie."""
SCRATCH = "var/collect"
"""Where below ``FUSELINE_HOME`` partitions are made, and kept after they were replaced."""
COLLECTED = "_collected.json"
EVENTS, IMPRESSIONS = "events", "impressions"

_OURS = re.compile(r"(events|impressions)-[0-9a-f]{16}\.parquet")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def events_url(home: Path, environ: Mapping[str, str]) -> str:
    """SQLAlchemy URL of the event store: ``FUSELINE_EVENTS_URL``, else SQLite below ``FUSELINE_HOME``."""
    return environ.get("FUSELINE_EVENTS_URL") or f"sqlite:///{home / 'var' / 'events' / 'events.db'}"


def microseconds(time: datetime) -> int:
    """Microseconds since 1970."""
    return (time - _EPOCH) // _MICROSECOND


def instant(microseconds_: int) -> datetime:
    """Inverse of :func:`microseconds`, in UTC."""
    return _EPOCH + microseconds_ * _MICROSECOND


@dataclass(frozen=True)
class Covered:
    """Which events of a store are in the partitions: those up to ``seq`` that happened before ``until``.

    Attributes:
        seq: order of arrival in the store.
        until: microseconds since 1970.
        open_from: every row before this ``seq`` is covered; spares a reader the search among them.
    """

    seq: int = 0
    until: int = 0
    open_from: int = 1


@dataclass(frozen=True)
class Partition:
    """The rows of one day and kind.

    Attributes:
        day: ``YYYY-MM-DD``.
        kind: :data:`EVENTS` or :data:`IMPRESSIONS`.
        file: name of the file within the day's folder.
        rows: how many.
        late: rows that arrived more than a day after they happened; None where arrival says nothing.
        ahead: rows that arrived before they happened: a caller's clock was fast.
        median_delay_s: from the event to its arrival, in seconds, per row.
    """

    day: str
    kind: str
    file: str
    rows: int
    late: int | None = None
    ahead: int | None = None
    median_delay_s: float | None = None

    @property
    def path(self) -> str:
        """Path below :data:`FEEDBACK`."""
        return f"dt={self.day}/{self.file}"


@dataclass(frozen=True)
class Collected:
    """What was collected from one store; ``shown`` is the watermark of its impressions."""

    covered: Covered = field(default_factory=Covered)
    shown: int = 0
    partitions: tuple[Partition, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """A JSON-able value."""
        return {
            **asdict(self.covered),
            "until": instant(self.covered.until).isoformat(),
            "shown": self.shown,
            "partitions": [asdict(one) for one in self.partitions],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Collected:
        """Inverse of :meth:`as_json`."""
        return cls(
            covered_from(value), int(value["shown"]), tuple(Partition(**partition) for partition in value["partitions"])
        )


def covered_from(value: Mapping[str, Any]) -> Covered:
    """The coverage in an entry of ``_collected.json``, or of a manifest's ``data.events_through``."""
    return Covered(int(value["seq"]), microseconds(datetime.fromisoformat(value["until"])), int(value["open_from"]))


def through(snapshot: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """``data.events_through`` of a bundle's manifest: per store, what a run with this snapshot has learned from."""
    names = ("seq", "until", "open_from")
    return {store: {name: entry[name] for name in names} for store, entry in snapshot["collected"].items()}


def read(home: Path) -> dict[str, Collected] | None:
    """What was collected, by the id of the store; None before the first time.

    Raises:
        ArtifactError: when the record is there and cannot be understood.
    """
    path = home / FEEDBACK / COLLECTED
    if not path.exists():
        return None
    value = read_json(path)
    try:
        return {store: Collected.from_json(entry) for store, entry in value["stores"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(
            f"{path} is no record of what was collected",
            found=repr(error),
            do="delete it together with the folders dt=… beside it, and run `fuseline collect`",
        ) from error


def write(home: Path, collected: Mapping[str, Collected]) -> None:
    """Replace the record: from here on exactly its partitions count."""
    stores = {store: entry.as_json() for store, entry in sorted(collected.items())}
    write_json(home / FEEDBACK / COLLECTED, {"stores": stores})


def superseded(path: str, collected: Mapping[str, Collected] | None) -> bool:
    """Whether a file (path below :data:`FEEDBACK`) is one of the collector's that does not count (any more).

    Files that people put there, and all files while there is no record, do count.
    """
    if collected is None or _OURS.fullmatch(path.rpartition("/")[2]) is None:
        return False
    return path not in {one.path for entry in collected.values() for one in entry.partitions}


def collected_files(home: Path) -> list[Path]:
    """All files in the collector's form, whether they count or not, sorted."""
    return [path for path in sorted((home / FEEDBACK).glob("dt=*/*.parquet")) if _OURS.fullmatch(path.name)]


def kept_copy(home: Path, path: str) -> Path | None:
    """A replaced file (path below ``home``), while it is still kept."""
    name = path.rpartition("/")[2]
    return next((home / SCRATCH / "superseded").glob(f"*/{name}"), None) if _OURS.fullmatch(name) else None
