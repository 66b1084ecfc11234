"""Make the candidate the champion.

The order of the steps is what makes a kill harmless at any point: bundle stored, run and version
registered, Bento built, aliases moved, and last the pointer, in one rename. Everything before the pointer
may be repeated and finds what it did; whoever reads the pointer sees the old champion or the new one.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pipelines import champion
from pipelines.actions import candidate as candidates
from pipelines.actions import retention
from pipelines.actions.candidate import Candidate
from pipelines.actions.record import run_record
from pipelines.actions.rollback import rollback
from pipelines.adapters.tracking import CHALLENGER, CHAMPION, PREVIOUS, Registry, Version
from pipelines.champion import Pointer
from pipelines.errors import ArtifactError, PromotionRefused
from pipelines.manifest import MANIFEST, check_files
from pipelines.storage import read_json, replacing_folder

Package = Callable[[Path, int, Path], str]
"""``(bundle folder, version, home) -> tag of the Bento``."""


@dataclass(frozen=True)
class PromotionResult:
    """What became of a promotion; ``changed`` is False when the bundle served already.

    ``removed``: ids of older bundles that are no longer kept.
    """

    version: int
    bundle_id: str
    verdict: str
    mode: str
    changed: bool
    forced: bool
    previous: int | None
    bento: str | None
    removed: tuple[str, ...] = ()


def build_bento(bundle: Path, version: int, home: Path) -> str:
    """Package a bundle with the service; gives the tag."""
    from pipelines.adapters import bento

    return str(bento.build_bento(bundle, version=str(version), home=home))


def now_utc() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


def promote(
    *,
    home: Path,
    artifacts: Path,
    force: bool = False,
    reason: str | None = None,
    package: Package = build_bento,
    keep: int | None = None,
    clock: Callable[[], datetime] = now_utc,
) -> PromotionResult:
    """Register ``artifacts/bundle`` and move the alias ``champion`` to it.

    Args:
        home: ``FUSELINE_HOME``.
        artifacts: of the run.
        force: override the verdict, and that the champion changed since; not a damaged or unjudged bundle.
        reason: why; required with ``force``, recorded with the version.
        package: builds the Bento.
        keep: newest promotions whose bundles stay; None removes nothing.
        clock: time that the history records.

    Raises:
        PromotionRefused: when the verdict or the registry's state forbids it.
        ArtifactError: when a file is missing or damaged.
    """
    if force and not (reason or "").strip():
        raise PromotionRefused("an override must say why", do='add --reason "…"')
    found = candidates.read(artifacts)
    with champion.locked(home):
        now = champion.read(home)
        if now is not None and now.bundle_id == found.id:
            _settle(Registry.open(home), now)
            champion.settled(home)
            bento = package(now.bundle, now.version, home)  # left as it is when it is there
            return _result(found, now, changed=False, forced=False, bento=bento)
        if not force:
            candidates.allowed(found, now)
        stored = store(found, home)
        registry = Registry.open(home)
        override = {"forced": "true", "forced_reason": str(reason)} if force else {"forced": "false"}
        tags = {**found.verdict_tags, "judged_id": found.judged["id"], "recipe": found.recipe, **override}
        run_id = registry.record(run_record(found))
        version = registry.register(stored / "bundle", run_id, bundle_id=found.id, tags=tags)
        registry.point({CHALLENGER: version})
        bento = package(stored / "bundle", version, home)
        pointer = Pointer(
            version=version,
            bundle=stored / "bundle",
            judged=stored / "judged",
            bundle_id=found.id,
            judged_id=found.judged["id"],
            recipe=found.recipe,
            previous=now.version if now else None,
        )
        _settle(registry, pointer)
        action = {"action": "promote", "at": clock().isoformat(), "forced": force, "reason": reason}
        champion.write(home, pointer, record=action | {"verdict": found.verdict["verdict"]})
        champion.settled(home)
        removed = retention.remove_old(home, keep=keep) if keep is not None else []
        return replace(_result(found, pointer, changed=True, forced=force, bento=bento), removed=tuple(removed))


def promote_version(version: int, *, home: Path | None = None) -> Pointer:
    """Make a version that is registered already the champion, as a rollback to it does."""
    return rollback(home=home, version=version, reason="promoted by version")


def versions(*, home: Path | None = None) -> list[Version]:
    """All registered versions with aliases and verdicts, newest first."""
    return Registry.open(home or champion.home_from_environment()).versions()


def store(found: Candidate, home: Path) -> Path:
    """Copy bundle and judged bundle to ``var/bundles/<id>``, whole or not at all; gives that folder.

    A copy and not a link: what serves must not change when a file under ``artifacts/`` does.
    """
    target = retention.folder(home) / found.id
    if _whole(target):
        return target
    with replacing_folder(target) as aside:
        for name in ("bundle", "judged"):
            shutil.copytree(found.artifacts / name, aside / name)
    for name in ("bundle", "judged"):
        check_files(target / name, read_json(target / name / MANIFEST))
    return target


def _whole(target: Path) -> bool:
    try:
        for name in ("bundle", "judged"):
            check_files(target / name, read_json(target / name / MANIFEST))
    except ArtifactError:
        return False
    return True


def _settle(registry: Registry, pointer: Pointer) -> None:
    """Aliases as the pointer says; ``challenger`` is free again once it won."""
    aliases: dict[str, int | None] = {CHAMPION: pointer.version, PREVIOUS: pointer.previous}
    if registry.aliases().get(CHALLENGER) == pointer.version:
        aliases[CHALLENGER] = None
    registry.point(aliases)


def _result(found: Candidate, pointer: Pointer, *, changed: bool, forced: bool, bento: str | None) -> PromotionResult:
    return PromotionResult(
        version=pointer.version,
        bundle_id=found.id,
        verdict=found.verdict["verdict"],
        mode=found.verdict["mode"],
        changed=changed,
        forced=forced,
        previous=pointer.previous,
        bento=bento,
    )


__all__ = ["PromotionResult", "build_bento", "promote", "promote_version", "rollback", "store", "versions"]
