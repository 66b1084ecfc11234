"""Users who are to be forgotten: by hashes, so that the list itself names nobody.

``FUSELINE_HOME/var/feedback/_excluded.json`` is read by the snapshot, so that a run knows whom to leave out of
the shop's export too. An entry holds for what happened before it: whoever comes back is a new customer.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pipelines.feedback import FEEDBACK
from pipelines.storage import read_json, write_json

EXCLUDED = "_excluded.json"
USER, VISITOR = "user", "visitor"


@dataclass(frozen=True)
class Entry:
    """``hash``: of kind and id; times are ISO in UTC, ``deadline`` of the models that have learned from it."""

    kind: str
    hash: str
    erased_at: str
    deadline: str


@dataclass(frozen=True)
class Exclusions:
    """``salt`` goes before what is hashed; entries in the order in which they came."""

    salt: str
    entries: tuple[Entry, ...]

    def hash_of(self, kind: str, name: str) -> str:
        """Hash of a user's or visitor's id."""
        return hashlib.sha256(f"{self.salt}:{kind}:{name}".encode()).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """A JSON-able value."""
        return {"salt": self.salt, "entries": [asdict(one) for one in self.entries]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Exclusions:
        """Inverse of :meth:`as_json`; nothing said is nobody excluded."""
        return cls(value.get("salt", ""), tuple(Entry(**one) for one in value.get("entries", ())))

    def still_in(self, bundle: Path) -> tuple[Entry, ...]:
        """Users whom a bundle has learned from although they were erased since; none where there is no bundle."""
        path = bundle / "manifest.json"
        if not self.entries or not path.exists():
            return ()
        known = int((read_json(path).get("data") or {}).get("exclusions", 0))
        return tuple(one for one in self.entries[known:] if one.kind == USER)

    def remark(self, bundle: Path, *, now: datetime) -> str:
        """What to say of a bundle to people; nothing when it has learned from no erased user."""
        found = self.still_in(bundle)
        if not found:
            return ""
        deadline = min(datetime.fromisoformat(one.deadline) for one in found)
        late = ", OVERDUE" if deadline <= now else ""
        return f"{len(found)}, gone by {deadline:%Y-%m-%d}{late}"


def read(home: Path) -> Exclusions:
    """The list; empty where nobody was erased yet."""
    path = home / FEEDBACK / EXCLUDED
    return Exclusions.from_json(read_json(path) if path.exists() else {})


def add(home: Path, user: str, visitors: Sequence[str], *, erased_at: datetime, deadline: datetime) -> None:
    """Put a user and the visitors they were on the list; the place of what stands there already never changes."""
    before = read(home)
    salted = before if before.salt else Exclusions(secrets.token_hex(16), ())
    times = (erased_at.isoformat(), deadline.isoformat())
    names = [(USER, user), *((VISITOR, one) for one in sorted(visitors))]
    new = tuple(Entry(kind, salted.hash_of(kind, name), *times) for kind, name in names)
    write_json(home / FEEDBACK / EXCLUDED, Exclusions(salted.salt, (*salted.entries, *new)).as_json())
