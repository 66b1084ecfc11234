"""Make an earlier version the champion again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from pipelines import champion
from pipelines.adapters.tracking import CHAMPION, PREVIOUS, Registry
from pipelines.champion import Pointer
from pipelines.errors import ArtifactError, FuselineError, PromotionRefused
from pipelines.manifest import MANIFEST, check_files
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
    """Move the pointer back, then the aliases; a rollback of a rollback undoes it.

    The pointer goes first: the services follow it within a second, while the registry takes its time or does not
    answer at all. A rollback that was cut off in between is finished by the next one, not undone.

    Args:
        home: ``FUSELINE_HOME``; None: from the environment.
        version: which; None: the one that served before the champion.
        reason: why, for the history.
        clock: time that the history records.

    Returns:
        The champion afterwards.

    Raises:
        PromotionRefused: when there is no champion, none before it, or no such version.
        ArtifactError: when the version's bundle is gone or damaged, or the registry could not be told; the
            champion has moved then, and the same command tells it later.
    """
    home = home or champion.home_from_environment()
    with champion.locked(home):
        now = champion.read(home)
        wanted = _wanted(now, version, champion.intended(home))
        if now is None or now.version != wanted:
            pointer = _pointer(wanted, home, previous=now.version if now else None)
            champion.intend(home, version=wanted)
            champion.write(home, pointer, record={"action": "rollback", "at": clock().isoformat(), "reason": reason})
            now = pointer
        _tell_registry(now, home)
        champion.settled(home)
        return now


def _wanted(now: Pointer | None, version: int | None, intended: int | None) -> int:
    """The version to go back to."""
    if version is not None:
        return version
    if now is None:
        raise PromotionRefused("there is no champion to roll back", do="run `dvc repro` and `fuseline promote`")
    wanted = now.previous if intended is None else intended
    if wanted is None:
        raise PromotionRefused(
            f"version {now.version} has none before it", do="name one with --version; `fuseline models` lists them"
        )
    return wanted


def _tell_registry(now: Pointer, home: Path) -> None:
    try:
        Registry.open(home).point({CHAMPION: now.version, PREVIOUS: now.previous})
    except FuselineError:
        raise
    except Exception as error:
        raise ArtifactError(
            f"version {now.version} serves now, but the registry could not be told",
            found=str(error).splitlines()[0] if str(error) else repr(error),
            do="run the same command again when the registry answers",
        ) from error


def _pointer(version: int, home: Path, *, previous: int | None) -> Pointer:
    """The pointer to a version, whose bundles must be whole; the registry is asked only if it never served."""
    found = champion.earlier(home, version)
    pointer = replace(found, previous=previous) if found else _registered(version, home, previous=previous)
    for stored in filter(None, (pointer.bundle, pointer.judged)):
        if not (stored / MANIFEST).exists():
            raise ArtifactError(f"the bundle of version {version} is gone", found=stored, do="name another version")
        check_files(stored, read_json(stored / MANIFEST))
    return pointer


def _registered(version: int, home: Path, *, previous: int | None) -> Pointer:
    one = Registry.open(home).version(version)
    stored = home / "var" / "bundles" / one.bundle_id
    return Pointer(
        version=one.version,
        bundle=stored / "bundle",
        judged=stored / "judged",
        bundle_id=one.bundle_id,
        judged_id=one.tags.get("judged_id"),
        recipe=one.tags.get("recipe", ""),
        previous=previous,
    )
