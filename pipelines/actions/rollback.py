"""Make an earlier version the champion again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from pipelines import champion
from pipelines.adapters.tracking import CHAMPION, PREVIOUS, Registry, Version
from pipelines.bundle import MANIFEST, check_files
from pipelines.champion import Pointer
from pipelines.errors import ArtifactError, PromotionRefused
from pipelines.storage import read_json


def now_utc() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


def rollback(
    *,
    home: Path | None = None,
    version: int | None = None,
    reason: str | None = None,
    clock: Callable[[], datetime] = now_utc,
) -> Pointer:
    """Move pointer and aliases back; a rollback of a rollback undoes it.

    Args:
        home: ``FUSELINE_HOME``; None: from the environment.
        version: which; None: the one that served before the champion.
        reason: why, for the history.
        clock: time that the history records.

    Returns:
        The champion afterwards.

    Raises:
        PromotionRefused: when there is no champion, none before it, or no such version.
        ArtifactError: when the version's bundle is gone or damaged.
    """
    home = home or champion.home_from_environment()
    with champion.locked(home):
        now = champion.read(home)
        if now is None and version is None:
            raise PromotionRefused("there is no champion to roll back", do="run `dvc repro` and `fuseline promote`")
        wanted = now.previous if version is None and now is not None else version
        if wanted is None:
            raise PromotionRefused(
                f"version {now.version if now else None} has none before it",
                do="name one with --version; `fuseline models` lists them",
            )
        registry = Registry.open(home)
        if now is not None and now.version == wanted:
            registry.point({CHAMPION: now.version, PREVIOUS: now.previous})
            return now
        pointer = _pointer(registry.version(wanted), home, previous=now.version if now else None)
        registry.point({CHAMPION: pointer.version, PREVIOUS: pointer.previous})
        champion.write(home, pointer, record={"action": "rollback", "at": clock().isoformat(), "reason": reason})
        return pointer


def _pointer(version: Version, home: Path, *, previous: int | None) -> Pointer:
    """The pointer to a registered version, whose bundles must be whole."""
    stored = home / "var" / "bundles" / version.bundle_id
    judged_id = version.tags.get("judged_id")
    for name in ("bundle", "judged"):
        if not (stored / name / MANIFEST).exists():
            raise ArtifactError(
                f"the bundle of version {version.version} is gone", found=stored, do="name another version"
            )
        check_files(stored / name, read_json(stored / name / MANIFEST))
    return Pointer(
        version=version.version,
        bundle=stored / "bundle",
        judged=stored / "judged",
        bundle_id=version.bundle_id,
        judged_id=judged_id,
        recipe=version.tags.get("recipe", ""),
        previous=previous,
    )
