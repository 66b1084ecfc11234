"""The folder that a run works in: the commit's files, the checkout's parameters and data, DVC's shared cache."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from configparser import ConfigParser
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from pipelines.actions.doctor import lock_is_readable
from pipelines.errors import ArtifactError, ParamsError
from pipelines.feedback import FEEDBACK
from pipelines.storage import unpack, write_text

CACHE = Path("var") / "dvc"
"""Below ``FUSELINE_HOME``, where .dvc/config does not say otherwise."""

PARAMS = "params.yaml"

METRICS = Path("artifacts") / "evaluation" / "metrics.json"

BY_HAND = "reference"
"""The stage that looks at the champion of the moment, which DVC cannot see: no run takes it over from another."""


def git(root: Path, *arguments: str) -> str:
    """Run git without hooks; what it printed.

    Raises:
        ArtifactError: when it fails; says its last words.
    """
    command = ["git", "-C", str(root), "-c", "core.hooksPath=/dev/null", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed words and paths
    if done.returncode:
        said = " ".join(done.stderr.split()) or "no message"
        raise ArtifactError(f"git {arguments[0]} failed in {root}", found=said, do="`fuseline doctor` may know more")
    return done.stdout.strip()


def revision_of(checkout: Path) -> str:
    """The commit that a run of this checkout takes.

    Raises:
        ArtifactError: outside a git repository, or before its first commit.
        ParamsError: when dvc.yaml differs from the commit's: the run would not have the stages that one sees.
    """
    revision = git(checkout, "rev-parse", "--verify", "HEAD")
    if git(checkout, "status", "--porcelain", "--", "dvc.yaml"):
        raise ParamsError(
            "dvc.yaml has changes that are not committed", wanted="the stages of a commit", do="commit, or take it back"
        )
    return revision


def uncommitted_code(checkout: Path) -> list[str]:
    """Tracked files of code that differ from the commit, so that a run will not see the difference."""
    changed = git(checkout, "diff", "--name-only", "HEAD", "--", "pipelines", "expectations", "serving", "requirements")
    return changed.splitlines()


def export_commit(checkout: Path, target: Path, *paths: str) -> None:
    """Lay these paths of the commit into a folder, without a worktree."""
    packed = target / ".commit.tar"
    git(checkout, "archive", "--output", str(packed), "HEAD", "--", *paths)
    with tarfile.open(packed) as tar:
        unpack(tar, target)
    packed.unlink()


def add(checkout: Path, workspace: Path, revision: str) -> None:
    """Lay out the commit; what an interrupted attempt left goes first."""
    remove(checkout, workspace)
    workspace.parent.mkdir(parents=True, exist_ok=True)
    git(checkout, "worktree", "add", "--detach", "--quiet", str(workspace), revision)


def remove(checkout: Path, workspace: Path) -> None:
    """Remove the folder, and git's note of it; no error when there is neither."""
    shutil.rmtree(workspace, ignore_errors=True)
    git(checkout, "worktree", "prune")


def lay_params(checkout: Path, workspace: Path, *, as_of: datetime | None) -> dict[str, Any]:
    """Copy params.yaml as it lies in the checkout, with another ``as_of`` if one is given; its values.

    An export beside the checkout is named by its absolute path: the way there from the worktree is another.
    """
    text = (checkout / PARAMS).read_text(encoding="utf-8")
    values: dict[str, Any] = yaml.safe_load(text)
    other = {} if as_of is None else {"as_of": as_of.isoformat()}
    if not _inside(values["data"]["path"]):
        other["path"] = str((checkout / values["data"]["path"]).resolve())
    if other:
        values["data"] = values["data"] | other
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    (workspace / PARAMS).write_text(text, encoding="utf-8")
    return values


def lay_shop(checkout: Path, folder: Path, **data: Any) -> None:
    """Lay out the checkout's commit with its params.yaml for another shop's data.

    A folder that is laid out already keeps its commit and its results, and gets the parameters anew.

    Args:
        checkout: the repository's root.
        folder: where the worktree lies, or will.
        data: what stands in the section ``data`` in the place of the checkout's values.
    """
    if not (folder / PARAMS).exists():
        add(checkout, folder, revision_of(checkout))
    values: dict[str, Any] = yaml.safe_load((checkout / PARAMS).read_text(encoding="utf-8"))
    values["data"] = values["data"] | data
    write_text(folder / PARAMS, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def lay_data(checkout: Path, workspace: Path, *, path: str, home: Path) -> None:
    """Mirror the export and the feedback partitions, which may change while the run is at work."""
    if _inside(path) and (checkout / path).is_dir():
        mirror(checkout / path, workspace / path)
    while True:
        record = _record(home / FEEDBACK)
        mirror(home / FEEDBACK, workspace / FEEDBACK)
        if record == _record(home / FEEDBACK):
            return  # else a collection went on meanwhile: its partitions and its record must be of one moment


def _record(feedback: Path) -> dict[str, bytes]:
    """What the folder says of its partitions, in files marked with ``_``."""
    return {path.name: path.read_bytes() for path in feedback.glob("_*")}


def _inside(path: str) -> bool:
    """Whether a path of the parameters is a folder within the checkout."""
    parts = Path(path).parts
    return bool(parts) and not Path(path).is_absolute() and ".." not in parts


def mirror(source: Path, target: Path) -> None:
    """Make ``target`` the folder that ``source`` is now: hard links, or copies on another file system.

    Whoever writes the files of a shop or of the feedback renames whole files into place, so a link keeps
    the content that was there; hidden files are left out.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in sorted(source.rglob("*")):
        inside = path.relative_to(source)
        if path.is_file() and not any(part.startswith(".") for part in inside.parts):
            (target / inside).parent.mkdir(parents=True, exist_ok=True)
            _link_or_copy(path, target / inside)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except FileNotFoundError:
        return  # it was taken away since it was listed
    except OSError as error:
        if error.errno not in {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP}:
            raise
        shutil.copy2(source, target)


def configure_dvc(checkout: Path, workspace: Path, *, home: Path) -> None:
    """Point the worktree's DVC at the shared cache; remotes that a person set up for the checkout come along."""
    config, local = ConfigParser(), checkout / ".dvc" / "config.local"
    config.read(local, encoding="utf-8")
    for section in ("cache", "core"):
        if not config.has_section(section):
            config.add_section(section)
    config.set("cache", "dir", str(shared_cache(checkout, home)))
    # DVC empties a file of the cache in place before it adds equal content, as another run may do at any moment: a link
    # would be emptied with it. Where a file system can share blocks between copies, DVC's copies do.
    config.set("cache", "type", "copy")
    config.set("core", "site_cache_dir", str(workspace / ".dvc" / "tmp" / "site"))
    with (workspace / ".dvc" / "config.local").open("w", encoding="utf-8") as stream:
        config.write(stream)


def shared_cache(checkout: Path, home: Path) -> Path:
    """``FUSELINE_HOME/var/dvc``, or what the checkout's configuration names in the place of its own ``var/dvc``."""
    found = configured(checkout, "cache", "dir")
    named = CACHE if found is None else Path(os.path.normpath(checkout / ".dvc" / found))
    return home / CACHE if named in {CACHE, checkout / CACHE} else named


def configured(root: Path, section: str, name: str) -> str | None:
    """A setting of the project's DVC, or None; what a person set for this machine goes before what is committed."""
    found: str | None = None
    for file in ("config", "config.local"):
        config = ConfigParser()
        config.read(root / ".dvc" / file, encoding="utf-8")
        found = config.get(section, name, fallback=found)
    return found


def take_over(lock: Path, metrics: Path, workspace: Path, *, environment: Mapping[str, str]) -> bool:
    """Lay an earlier ``dvc.lock`` and the outputs that it names into the worktree; whether that was possible.

    Outputs that the cache no longer has are left out: their stages run again. ``metrics`` are the metrics of
    that run, which DVC leaves out of its cache.
    """
    if not lock.exists() or not lock_is_readable(lock):
        return False
    values = yaml.safe_load(lock.read_text(encoding="utf-8"))
    values["stages"].pop(BY_HAND, None)
    (workspace / "dvc.lock").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    if metrics.exists():
        (workspace / METRICS).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(metrics, workspace / METRICS)
    dvc(workspace, ["checkout", "--quiet", "--force", "--allow-missing"], environment=environment)
    return True


def dvc(
    workspace: Path, arguments: Sequence[str], *, environment: Mapping[str, str], inherit: Sequence[int] = ()
) -> tuple[int, str]:
    """Run DVC in the worktree, its output passed on as it comes; its exit status and the end of what it said."""
    command = [sys.executable, "-m", "dvc", *arguments]
    said: list[str] = []
    with subprocess.Popen(  # noqa: S603 - our own words
        command,
        cwd=workspace,
        env=dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        pass_fds=tuple(inherit),
    ) as child:
        for line in child.stdout or ():
            with contextlib.suppress(BrokenPipeError):  # whoever listened was killed; the stage goes on
                print(line, end="", file=sys.stderr, flush=True)
            said = [*said[-39:], line]
    return child.returncode, "".join(said)
