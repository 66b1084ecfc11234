"""What a module of this repository brings along: every file of ours that it imports, directly or not.

Run it to see what the stages' ``deps`` in dvc.yaml lack, ready to paste, and which code they name in vain::

    python tests/architecture/closure.py            # every stage
    python tests/architecture/closure.py train      # one
"""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("pipelines", "serving", "expectations", "benchmarks")
LIBRARY = ("pipelines.", "expectations.")
"""What a stage may start by name; the service and the benchmarks are for others."""

KINDS = "pipelines.models."
"""Imported by name; a stage of one member runs the file of its own kind only."""

MODULE_OF_COMMAND = re.compile(r"-m\s+(pipelines\.stages\.\w+)")


@dataclass(frozen=True)
class Stage:
    """An entry of dvc.yaml with everything resolved; a stage over a list comes once for each of its values."""

    name: str
    command: str
    deps: frozenset[str]
    outs: frozenset[str]
    params: frozenset[str]

    @property
    def kind(self) -> str:
        """The name without the value after ``@``."""
        return self.name.split("@")[0]

    @property
    def member_kind(self) -> str | None:
        """The kind of the one member that the stage fits, or None."""
        found = [Path(dep).stem for dep in self.deps if dep.startswith(KINDS.replace(".", "/"))]
        return found[0] if len(found) == 1 else None

    @property
    def module(self) -> str | None:
        """The module that the command runs."""
        found = MODULE_OF_COMMAND.search(self.command)
        return found.group(1) if found else None


@functools.cache
def stages() -> tuple[Stage, ...]:
    """The stages as DVC itself reads them."""
    from dvc.dependency import ParamsDependency
    from dvc.repo import Repo

    found = []
    with Repo(str(ROOT)) as repo:
        for stage in repo.index.stages:
            params = [d for d in stage.deps if isinstance(d, ParamsDependency)]
            deps = [d for d in stage.deps if not isinstance(d, ParamsDependency)]
            found.append(
                Stage(
                    stage.addressing,
                    stage.cmd if isinstance(stage.cmd, str) else " && ".join(stage.cmd),
                    frozenset(Path(d.def_path).as_posix() for d in deps),
                    frozenset(Path(o.def_path).as_posix() for o in stage.outs),
                    frozenset(str(name) for d in params for name in d.params),
                )
            )
    return tuple(found)


def modules(*packages: str) -> list[str]:
    """Every module of these packages (default: all of ours), sorted."""
    files = [path for package in packages or PACKAGES for path in (ROOT / package).rglob("*.py")]
    return sorted(name_of(path) for path in files)


def name_of(path: Path) -> str:
    """Dotted name of a file's module."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def file_of(module: str) -> Path | None:
    """The file of a module of ours, or None."""
    if module.split(".", maxsplit=1)[0] not in PACKAGES:
        return None
    base = ROOT.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


@functools.cache
def imported(path: Path, *, lazy: bool = True, named: bool = True) -> frozenset[str]:
    """Dotted names that a file imports, ours and others'; without ``lazy`` only what importing it imports.

    ``from a import b`` gives ``a`` and ``a.b``. Beside import statements these count, as lazy: a string that is
    the name of a module of the library (started as a process), and an f-string that begins with a package of ours
    (imported by name): the whole package. Without ``named``, import statements alone.
    """
    names: set[str] = set()
    for node in _nodes(ast.parse(path.read_text(encoding="utf-8")), lazy=lazy):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif lazy and named and isinstance(node, ast.Constant) and isinstance(node.value, str):
            names |= {node.value} if node.value.startswith(LIBRARY) and file_of(node.value) else set()
        elif lazy and named and isinstance(node, ast.JoinedStr):
            names |= set(_package_by_name(node))
    return frozenset(names)


def _nodes(tree: ast.AST, *, lazy: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if not lazy and (isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or _for_types(node)):
            continue
        yield node
        yield from _nodes(node, lazy=lazy)


def _for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def _package_by_name(text: ast.JoinedStr) -> list[str]:
    head = text.values[0] if text.values else None
    if not isinstance(head, ast.Constant) or not str(head.value).endswith("."):
        return []
    package = str(head.value).rstrip(".")
    return modules(package.replace(".", "/")) if file_of(package) else []


@functools.cache
def data_beside(path: Path) -> frozenset[Path]:
    """Files and folders that are no modules, lie in a module's folder, and are named by a string in it."""
    strings = [n.value for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Constant)]
    names = {text for text in strings if isinstance(text, str) and re.fullmatch(r"[\w-]+(\.[\w.-]+)?", text)}
    beside = {path.parent / name for name in names if not name.endswith(".py") and not name.startswith("__")}
    found = {path for path in beside if path.exists()}
    return frozenset(p for p in found if not (p.is_dir() and (p / "__init__.py").exists()))


@functools.cache
def closure(module: str, *, lazy: bool = True, kind: str | None = None) -> frozenset[Path]:
    """Files of ours that a module brings along, itself and the ``__init__`` of its packages included.

    With ``kind``, of the kinds of base models only that one.
    """
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if kind is not None and name.startswith(KINDS) and not f"{name}.".startswith(f"{KINDS}{kind}."):
            continue
        waiting += [name.rsplit(".", 1)[0]] if "." in name else []
        path = file_of(name)
        if path is None or path in found:
            continue
        found.add(path)
        waiting += imported(path, lazy=lazy)
    return frozenset(found)


def needed(stage: Stage) -> set[str]:
    """Paths, relative to the root, of all code and packaged data that a stage depends on."""
    if stage.module is None:
        return set()
    files = closure(stage.module, kind=stage.member_kind)
    paths = files.union(*(data_beside(path) for path in files))
    empty = {path for path in files if path.name == "__init__.py" and not _says_something(path)}
    return {path.relative_to(ROOT).as_posix() for path in paths - empty}


def _says_something(path: Path) -> bool:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return any(not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in body)


def missing(stage: Stage) -> list[str]:
    """Code that a stage runs and its ``deps`` do not cover, sorted."""
    return sorted(path for path in needed(stage) if not any(_covers(dep, path) for dep in stage.deps))


def by_kind() -> dict[str, list[Stage]]:
    """The instances of every stage, by its name without the value after ``@``."""
    found: dict[str, list[Stage]] = {}
    for stage in stages():
        found.setdefault(stage.kind, []).append(stage)
    return found


def in_vain(instances: Sequence[Stage]) -> list[str]:
    """Code that the ``deps`` of a stage name and none of its instances runs, sorted."""
    code = {dep for stage in instances for dep in stage.deps if dep.split("/")[0] in PACKAGES}
    run = {path for stage in instances for path in needed(stage)}
    return sorted(dep for dep in code if not any(_covers(dep, path) for path in run))


def _covers(dep: str, path: str) -> bool:
    return path == dep or path.startswith(f"{dep}/")


def main(names: list[str]) -> int:
    """Print what is missing and what is in vain; 1 when something is missing."""
    lacking = 0
    for kind, instances in by_kind().items():
        if names and kind not in names:
            continue
        lacks = sorted({path for stage in instances for path in missing(stage)})
        useless = in_vain(instances)
        lacking += len(lacks)
        print(f"{kind}: {len(lacks)} missing, {len(useless)} in vain")
        print("".join(f"      - {path}\n" for path in lacks), end="")
        print("".join(f"      # in vain: {path}\n" for path in useless), end="")
    return int(bool(lacking))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
