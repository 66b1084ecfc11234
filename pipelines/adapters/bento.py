"""The Bento ``fuseline``: service, library, lock and one bundle in a package that runs on its own.

BentoML runs in a process of its own: building imports the service and changes the working directory.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from pipelines import native
from pipelines.errors import ArtifactError
from pipelines.manifest import MANIFEST
from pipelines.service_process import SERVICE
from pipelines.storage import read_json, write_json

NAME = "fuseline"
LOCK = "requirements/serving.txt"
PACKED = "packed"
"""Folder in the Bento with ``bundle/`` and ``about.json``; ``serving.bundle_choice`` looks for it."""

SOURCES = (("serving", "*.py"), ("serving", "*.html"), ("pipelines", "*.py"))
ROOT = Path(__file__).resolve().parents[2]


def store(home: Path) -> Path:
    """The Bento store, ``BENTOML_HOME``, of a ``FUSELINE_HOME``."""
    return home / "var" / "bentoml"


def environment(home: Path) -> dict[str, str]:
    """The environment under which ``bentoml`` sees that store and reports to nobody."""
    return {**os.environ, "BENTOML_HOME": str(store(home)), "BENTOML_DO_NOT_TRACK": "True"}


def build_bento(bundle_folder: Path, *, version: str, home: Path) -> str:
    """Build the Bento of a registered version; a Bento of the same version and bundle is left as it is.

    Args:
        bundle_folder: the bundle that goes in.
        version: the registry's version, also the Bento's.
        home: ``FUSELINE_HOME``; the Bento goes into its store.

    Returns:
        The tag, ``fuseline:<version>``.

    Raises:
        ArtifactError: when the bundle or the serving lock is missing, or BentoML refuses; says its last words.
    """
    tag = f"{NAME}:{version}"
    about = {"version": str(version), "bundle_id": read_json(bundle_folder / MANIFEST)["id"]}
    built = store(home) / "bentos" / NAME / str(version)
    if (packed := built / "src" / PACKED / "about.json").exists() and read_json(packed) == about:
        return tag
    with tempfile.TemporaryDirectory(prefix="fuseline-bento-") as folder:
        context = Path(folder)
        _gather(context, bundle_folder, about)
        shutil.rmtree(built, ignore_errors=True)
        _run_build(context, version=str(version), home=home)
    return tag


def _gather(context: Path, bundle_folder: Path, about: dict[str, str]) -> None:
    """Lay out what goes into the package: sources, lock, bundle, and BentoML's build file."""
    for top, pattern in SOURCES:
        for path in sorted((ROOT / top).rglob(pattern)):
            _copy(path, context / path.relative_to(ROOT))
    if native.kernels is not None and native.kernels.__file__:  # which may lie in the checkout of this worktree
        built = Path(native.kernels.__file__)
        _copy(built, context / "pipelines" / "native" / built.name)
    if not (ROOT / LOCK).exists():
        raise ArtifactError(f"{ROOT / LOCK} does not exist", do="check the file out again")
    _copy(ROOT / LOCK, context / LOCK)
    shutil.copytree(bundle_folder, context / PACKED / "bundle")
    write_json(context / PACKED / "about.json", about)
    build = {
        "service": SERVICE,
        "name": NAME,
        "description": f"Fuseline, version {about['version']}, bundle {about['bundle_id']}",
        "labels": {"bundle": about["bundle_id"]},
        "include": ["serving/", "pipelines/", "requirements/", f"{PACKED}/"],
        # the lock is complete: nothing is resolved over the network
        "python": {"requirements_txt": LOCK, "lock_packages": False},
        "docker": {"python_version": "3.11"},
    }
    (context / "bentofile.yaml").write_text(yaml.safe_dump(build, sort_keys=False), encoding="utf-8")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _run_build(context: Path, *, version: str, home: Path) -> None:
    command = [sys.executable, "-m", "bentoml", "build", str(context), "--version", version, "--output", "tag"]
    environ = environment(home) | {"PYTHONPATH": ""}
    store(home).mkdir(parents=True, exist_ok=True)
    done = subprocess.run(command, cwd=context, env=environ, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise ArtifactError("the Bento could not be built", found=" / ".join(said), do="see `bentoml build --verbose`")
