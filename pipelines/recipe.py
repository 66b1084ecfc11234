"""The identity of a recipe: what turns data into a bundle, whatever the data.

A recipe is the parameters that shape the bundle and the library code that reads them. Two bundles of one
recipe differ by their data alone; the gate then asks for no loss. Another recipe must show a gain over the
old one refitted on the same data, for which a judged bundle carries its own source (``source.tar.gz``).
"""

from __future__ import annotations

import gzip
import io
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipelines.errors import ArtifactError
from pipelines.params import AllParams
from pipelines.source_code import SourceCode
from pipelines.storage import file_sha256, replacing_file, unpack, value_sha256

ID_LENGTH = 16
ROOT = Path(__file__).resolve().parents[1]
"""Folder of the source that runs: a checkout, or what :func:`unpack_source` made."""
SOURCE = "source.tar.gz"
"""Name of the packed source in a judged bundle."""
SHAPING_STAGES = (
    "snapshot", "ingest", "split", "encode", "encode_queries", "features", "features_served", "tune",
    "train", "refresh", "fuse", "judge", "assemble",
)  # fmt: skip
"""Stages whose output, in the end, is the bundle; the others look at it."""
NOT_SHAPING = frozenset({"gate", "evaluation", "training", "schedule", "release", "monitoring"})
NOT_SHAPING_DATA = frozenset({"path", "as_of"})


def recipe_of(params: AllParams, source_root: Path) -> dict[str, Any]:
    """``{"id", "params", "code", "revision"}`` of the code under ``source_root`` with these parameters.

    ``id`` changes with anything that can change a bundle besides the data. ``revision`` says where to look
    the code up and is no part of the id: the git commit, or None where there is no repository.
    """
    shaping = value_sha256(shaping_params(params))
    code = code_sha256(SourceCode(source_root), shaping_modules(source_root, params))
    return {
        "id": value_sha256([shaping, code])[:ID_LENGTH],
        "params": shaping,
        "code": code,
        "revision": revision(source_root),
    }


def shaping_params(params: AllParams) -> dict[str, Any]:
    """The parameters that shape a bundle, as JSON: all but where the data lie and how they are judged."""
    values = params.model_dump(mode="json", exclude=set(NOT_SHAPING))
    values["data"] = {name: value for name, value in values["data"].items() if name not in NOT_SHAPING_DATA}
    return values


def code_sha256(code: SourceCode, modules: Iterable[str]) -> str:
    """Hash of all source that these modules can run, names and contents; kinds and adapters only where named."""
    files = code.closure(modules, packages=False)
    return value_sha256({str(path.relative_to(code.root)): file_sha256(path) for path in sorted(files)})


def shaping_modules(source_root: Path, params: AllParams) -> list[str]:
    """The stages that make a bundle, and what they find by name: kinds, adapter, fusers.

    Kinds and adapters that the parameters do not name shape nothing, so a new file changes no recipe.
    """
    library = source_root / "pipelines"
    if not library.is_dir():
        raise ArtifactError(
            f"{source_root} holds no source", wanted="a folder pipelines/", do="give the project's root"
        )
    names = [f"pipelines.stages.{name}" for name in SHAPING_STAGES]
    names += [f"pipelines.models.{entry.kind}" for entry in params.models.values()]
    names += [f"pipelines.ingestion.{params.data.adapter}"]
    names += [f"pipelines.fusion.{path.stem}" for path in (library / "fusion").glob("*.py")]
    code = SourceCode(source_root)
    return sorted({name for name in names if code.file_of(name)})


def revision(source_root: Path) -> str | None:
    """The git commit that is checked out, or None without git, without a repository or without a commit."""
    command = ["git", "-C", str(source_root), "rev-parse", "--verify", "--quiet", "HEAD"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)  # noqa: S603 - fixed words and a path
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None


def pack_source(source_root: Path, target_tar: Path, *, params_file: Path | None = None) -> Path:
    """Pack the library, its parameters and the pinned requirements; equal content gives equal bytes.

    Returns the path written.

    Args:
        source_root: folder that holds ``pipelines/``.
        target_tar: the ``.tar.gz`` to write.
        params_file: the parameters that were used; ``params.yaml`` of the root when None.
    """
    library = sorted(p for p in (source_root / "pipelines").rglob("*") if p.is_file() and _is_source(p))
    members = [(str(path.relative_to(source_root)), path) for path in library]
    members.append(("params.yaml", params_file or source_root / "params.yaml"))
    members += [(f"requirements/{p.name}", p) for p in sorted((source_root / "requirements").glob("*.txt"))]
    with (
        replacing_file(target_tar) as aside,
        aside.open("wb") as stream,
        gzip.GzipFile(filename="", mode="wb", fileobj=stream, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, path in sorted(members):
            content = path.read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    return target_tar


def unpack_source(source_tar: Path, target: Path) -> None:
    """Unpack what :func:`pack_source` wrote into an existing folder; nothing can land outside of it."""
    try:
        with tarfile.open(source_tar, "r:gz") as tar:
            unpack(tar, target)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise ArtifactError(f"{source_tar} cannot be unpacked", found=error, do="promote a fresh bundle") from error


def _is_source(path: Path) -> bool:
    return "__pycache__" not in path.parts and not path.name.startswith(".")
