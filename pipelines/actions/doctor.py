"""Is everything there that a run needs? Looks only; nothing is changed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import yaml

from pipelines import champion, exclusions, native
from pipelines import params as parameters
from pipelines.errors import FuselineError
from pipelines.manifest import MANIFEST, check_files
from pipelines.params import AllParams
from pipelines.storage import is_locked, read_json

State = Literal["ok", "warn", "fail"]
PYTHON = ((3, 11), (3, 13))
"""First version that works, and the first that no longer does: TF-Recommenders and Airflow meet in between."""
LOCK = "requirements/all.txt"
GIGABYTE = 10**9
ENOUGH_DISK, TOO_LITTLE_DISK = 5 * GIGABYTE, GIGABYTE


@dataclass(frozen=True)
class Check:
    """One line: what was looked at, what was found, and the next move when it is not well."""

    name: str
    state: State
    found: str
    do: str = ""


def examine(*, root: Path, home: Path, params_file: Path) -> list[Check]:
    """Every check, in the order in which one would put things right."""
    checked, params = _params(params_file)
    return [
        _python(sys.version_info[:2]),
        _lock(root / LOCK),
        _native(native.kernels is not None, native.state),
        _modules(kept=not sys.dont_write_bytecode),
        checked,
        *([_data(root, params)] if params else []),
        _disk(home),
        _git(root),
        _dvc(root),
        _champion(home),
        *_release(home),
        *_erasures(home, now=datetime.now(UTC)),
    ]


def _python(version: tuple[int, int]) -> Check:
    found = ".".join(map(str, version))
    if PYTHON[0] <= version < PYTHON[1]:
        return Check("python", "ok", found)
    return Check("python", "fail", found, "run `make env`, which looks for Python 3.11")


def _modules(*, kept: bool) -> Check:
    """Whether Python keeps the modules that it compiles; ``make`` lets it, images of containers often forbid it."""
    if kept:
        return Check("modules", "ok", "Python keeps what it compiles")
    do = "unset PYTHONDONTWRITEBYTECODE: `bentoml serve` then starts in half the time"
    return Check("modules", "warn", "Python compiles all modules at every start", do)


def _lock(path: Path) -> Check:
    """Whether the installed packages are the pinned ones; markers for other systems are not read."""
    if not path.exists():
        return Check("lock", "warn", f"{path} does not exist", "run from the project's root")
    pinned = [line.split(";")[0].strip() for line in path.read_text(encoding="utf-8").splitlines() if "==" in line]
    wrong = []
    for name, _, version in (line.partition("==") for line in pinned if not line.startswith("#")):
        try:
            installed = importlib.metadata.version(name.split("[")[0])
        except importlib.metadata.PackageNotFoundError:
            installed = "not installed"
        if installed != version:
            wrong.append(f"{name} {installed}, not {version}")
    if not wrong:
        return Check("lock", "ok", f"{len(pinned)} packages as pinned")
    shown = "; ".join(wrong[:3]) + ("; …" if len(wrong) > 3 else "")
    return Check("lock", "warn", f"{len(wrong)} of {len(pinned)} packages differ: {shown}", "run `make env`")


def _native(built: bool, state: str) -> Check:  # noqa: FBT001 - what was found
    """Whether searches run by compiled loops; without them they find the same, half as fast."""
    if built:
        return Check("native", "ok", "compiled loops of a search are in use")
    do = "install a C compiler and Python's headers (Debian: gcc python3.11-dev); `rm .venv/.installed-*; make env`"
    return Check("native", "warn", f"searches take twice as long: compiled loops are {state}", do)


def _params(path: Path) -> tuple[Check, AllParams | None]:
    try:
        params = parameters.load(path)
        for name, entry in params.models.items():
            from pipelines import model_registry

            model_registry.config(name, entry)
    except FuselineError as error:
        return Check("params", "fail", str(error.found or error.problem), error.do or f"edit {path}"), None
    return Check("params", "ok", f"{path}: {len(params.models)} models"), params


def _data(root: Path, params: AllParams) -> Check:
    path = root / params.data.path
    if not path.is_dir():
        return Check("data", "fail", f"data.path {path} is no folder", "set data.path in params.yaml")
    files = sum(1 for one in path.rglob("*") if one.suffix in {".parquet", ".csv", ".jsonl"})
    if not files:
        return Check("data", "fail", f"no .parquet, .csv or .jsonl under {path}", "put the export there")
    return Check("data", "ok", f"{files} files under {path}, adapter {params.data.adapter}")


def _disk(home: Path) -> Check:
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    found = f"{free / GIGABYTE:.1f} GB free for {home}"
    if free < TOO_LITTLE_DISK:
        return Check("disk", "fail", found, "free some space, or point FUSELINE_HOME elsewhere")
    return Check(
        "disk", "ok" if free >= ENOUGH_DISK else "warn", found, "" if free >= ENOUGH_DISK else "free some space"
    )


def _git(root: Path) -> Check:
    git = shutil.which("git")
    if git is None:
        return Check("git", "fail", "git is not installed", "install git")
    answer = subprocess.run([git, "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)  # noqa: S603 - a path
    if answer.returncode:
        return Check("git", "warn", "no commit here", "run in a clone: bundles cannot name their revision")
    return Check("git", "ok", f"at {answer.stdout.strip()[:12]}")


def _dvc(root: Path) -> Check:
    if importlib.util.find_spec("dvc") is None:
        return Check("dvc", "fail", "dvc is not installed", "run `make env`")
    if not (root / ".dvc").is_dir():
        return Check("dvc", "fail", f"{root} is no DVC project", "run from the project's root")
    if not (root / "dvc.yaml").exists():
        return Check("dvc", "fail", "there is no dvc.yaml", "check it out again")
    if torn := remove_torn_files(root):
        return Check("dvc", "ok", f"removed what a killed run had half written: {', '.join(torn)}")
    return Check("dvc", "ok", "dvc.yaml and .dvc are there")


def remove_torn_files(root: Path) -> list[str]:
    """Remove DVC's own records when they cannot be read; their names.

    DVC writes its list of running commands and ``dvc.lock`` in place, so a ``kill -9`` at that moment leaves
    them torn, and every later command refuses to start. Neither holds results: DVC makes both anew, and
    finds the outputs of unchanged stages in its run cache. While a DVC holds its lock nothing is touched:
    what looks torn may be half written.
    """
    if _dvc_at_work(root):
        return []
    readers: dict[str, Callable[[str], object]] = {".dvc/tmp/rwlock": json.loads, "dvc.lock": _lockfile}
    torn = []
    for name, reader in readers.items():
        path = root / name
        try:
            reader(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except ValueError:
            path.unlink()
            torn.append(name)
    return torn


def _dvc_at_work(root: Path) -> bool:
    """Whether a process holds the lock that DVC writes its records under; it goes with the process."""
    return is_locked(root / ".dvc" / "tmp" / "lock")


def lock_is_readable(lock: Path) -> bool:
    """Whether DVC could read this ``dvc.lock``."""
    try:
        _lockfile(lock.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True


def _lockfile(text: str) -> None:
    """ValueError when DVC could not read this ``dvc.lock``: every stage needs a command, every file a path."""
    try:
        stages = yaml.safe_load(text)["stages"].values()
        entries = [entry for stage in stages for entry in [*stage.get("deps", ()), *stage.get("outs", ())]]
        complete = all(stage["cmd"] for stage in stages) and all(entry["path"] for entry in entries)
    except (yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(str(error)) from error
    if not complete:
        raise ValueError("a stage without its command, or a file without its path")


def _champion(home: Path) -> Check:
    """Whether the pointer can be read and every file of what it points to is whole."""
    try:
        now = champion.read(home)
        if now is None:
            return Check("champion", "warn", "none yet", "run `dvc repro`, then `fuseline promote`")
        for folder in (now.bundle, now.judged):
            if folder is not None:
                check_files(folder, read_json(folder / MANIFEST))
        if (found := read_json(now.bundle / MANIFEST)["id"]) != now.bundle_id:
            return Check("champion", "fail", f"bundle {found}, not {now.bundle_id}", "run `fuseline rollback`")
    except FuselineError as error:
        return Check("champion", "fail", str(error), "run `fuseline rollback --version N`")
    return Check("champion", "ok", f"version {now.version}, bundle {now.bundle_id}")


def _release(home: Path) -> list[Check]:
    """Whether the registry says what the pointer says; none where nothing was promoted yet.

    Both move under one lock, so that a difference means that a command was cut off in between.
    """
    try:
        now = champion.read(home)
    except FuselineError:
        return []
    if now is None or not (os.environ.get("MLFLOW_TRACKING_URI") or (home / "var" / "mlflow.db").exists()):
        return []
    if champion.busy(home):
        return [Check("registry", "ok", "a promotion or rollback is under way")]
    if (wanted := champion.intended(home)) is not None:
        found = f"a rollback to version {wanted} was cut off; version {now.version} serves"
        return [Check("registry", "warn", found, "run `fuseline rollback` again, which finishes it")]
    from pipelines.adapters.tracking import CHALLENGER, CHAMPION, PREVIOUS, Registry

    try:
        aliases = Registry.open(home).aliases()
    except Exception as error:  # noqa: BLE001 - whatever the registry's client raises, it is the finding
        said = (str(error) or repr(error)).splitlines()[0]
        return [Check("registry", "fail", f"it does not answer: {said}", "start it, or correct MLFLOW_TRACKING_URI")]
    told = {CHAMPION: now.version, PREVIOUS: now.previous}
    wrong = [
        f"{name} is {aliases.get(name)}, not {version}"
        for name, version in told.items()
        if aliases.get(name) != version
    ]
    if wrong:
        found = f"a promotion was cut off before version {now.version} gave way: {'; '.join(wrong)}"
        do = f"run `fuseline promote` again, or `fuseline rollback --version {now.version}`, which sets them back"
        return [Check("registry", "warn", found, do)]
    if (waiting := aliases.get(CHALLENGER)) is not None:
        found = f"version {waiting} is registered and was not made the champion"
        return [Check("registry", "warn", found, "run `fuseline promote` again, or leave it")]
    return [Check("registry", "ok", f"champion {now.version}, before it {now.previous}")]


def _erasures(home: Path, *, now: datetime) -> list[Check]:
    """Whether the champion has learned from users who were erased; nothing to say where nobody was."""
    try:
        listed, serving = exclusions.read(home), champion.read(home)
        if not listed.entries or serving is None:
            return []
        remark = listed.remark(serving.bundle, now=now)
    except FuselineError as error:
        return [Check("erasures", "fail", str(error), "restore var/feedback/_excluded.json")]
    if not remark:
        return [Check("erasures", "ok", f"the champion has learned from none of {len(listed.entries)} erased ids")]
    state: State = "fail" if remark.endswith("OVERDUE") else "warn"
    return [Check("erasures", state, f"erased users in the champion: {remark}", "run `dvc repro`, `fuseline promote`")]
