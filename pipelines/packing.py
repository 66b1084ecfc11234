"""Writing a bundle: files copied, hashed and described by one manifest."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.contracts import Surface
from pipelines.features.state import FeatureState
from pipelines.fusion.surface import CHOICE, FOLD_FOLDERS
from pipelines.manifest import MANIFEST
from pipelines.prepared import FOLDER as PREPARED
from pipelines.prepared import Prepared
from pipelines.search.encoding import ENCODER
from pipelines.storage import file_sha256, read_json, replacing_folder, value_sha256, write_json
from pipelines.workspace import SERVED, Workspace

FORMAT = 1
"""Raised when a reader of the old layout could no longer read the new one."""


def pack(
    work: Workspace,
    into: Path,
    *,
    instant: str,
    members: Sequence[str],
    about: Mapping[str, Any],
    extra: Mapping[str, Path] | None = None,
) -> dict[str, Any]:
    """Assemble a bundle of what was fitted at an instant.

    Args:
        work: where features, members and fusion lie.
        into: the bundle's folder, replaced as a whole.
        instant: name of the instant.
        members: every member of params, applicable or not.
        about: what the manifest says beside members, surfaces and files (as_of, parent, recipe, data).
        extra: further files by their name in the bundle.

    Returns:
        The manifest; ``id`` is the hash of everything else in it.
    """
    statuses = {m: work.served_status(m) if instant == SERVED else work.member_status(m) for m in members}
    described = {member: read_json(path) for member, path in statuses.items()}
    with replacing_folder(into) as folder:
        shutil.copytree(work.features(instant), folder / "features")
        for member, status in described.items():
            if status["applicable"]:
                shutil.copytree(work.member(member, instant), folder / "members" / member)
        surfaces = {}
        for surface in Surface:
            if work.fusion(surface).exists():
                spared = shutil.ignore_patterns(FOLD_FOLDERS) if instant == SERVED else None
                shutil.copytree(work.fusion(surface), folder / "fusion" / surface, ignore=spared)
                surfaces[str(surface)] = read_json(folder / "fusion" / surface / CHOICE)
        if str(Surface.SEARCH) in surfaces and (work.query_encoder).is_dir():
            shutil.copytree(work.query_encoder, folder / ENCODER)
        if instant == SERVED:
            features = FeatureState.load(folder / "features")
            Prepared.of(features, searched=str(Surface.SEARCH) in surfaces).save(folder / PREPARED)
        for name, path in (extra or {}).items():
            shutil.copyfile(path, folder / name)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        manifest = {
            **about,
            "format": FORMAT,
            "instant": instant,
            "members": described,
            "surfaces": surfaces,
            "files": {path.relative_to(folder).as_posix(): file_sha256(path) for path in files},
        }
        manifest["id"] = value_sha256(manifest)[:16]
        write_json(folder / MANIFEST, manifest)
    return manifest
