"""The graph of stages as dvc.yaml and params.yaml say it, without importing DVC.

Reads what our dvc.yaml uses: stages, ``foreach`` over a list or mapping, ``${...}`` from params.yaml. A
test holds it equal to ``dvc dag`` on the real file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

NAMED = re.compile(r"\$\{\s*([\w.\-]+)\s*\}")
UNKNOWN = {"matrix", "wdir", "vars"}
"""What DVC knows and this reader does not: better an import error in the UI than a wrong graph."""


@dataclass(frozen=True)
class Stage:
    """One instance: ``train@ease`` is the entry ``train`` for the value ``ease``.

    Attributes:
        name: as DVC says it.
        description: for people.
        deps: paths that it reads.
        outs: paths that it writes.
    """

    name: str
    description: str
    deps: frozenset[PurePosixPath]
    outs: frozenset[PurePosixPath]

    @property
    def task_id(self) -> str:
        """The name in Airflow's alphabet."""
        return self.name.replace("@", ".")

    @property
    def group(self) -> str | None:
        """The entry's name, when it stands for several instances."""
        return self.name.partition("@")[0] if "@" in self.name else None

    def reads(self, other: Stage) -> bool:
        """Whether a dependency is, contains or lies in an output of the other."""
        return any(_overlap(dep, out) for dep in self.deps for out in other.outs)


def read(root: Path) -> list[Stage]:
    """All instances, in the order of dvc.yaml."""
    values = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    entries = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    return [stage for name, entry in entries.items() for stage in _instances(name, entry, values)]


def edges(stages: list[Stage]) -> set[tuple[str, str]]:
    """Names of pairs (before, after)."""
    return {(a.name, b.name) for a in stages for b in stages if a is not b and b.reads(a)}


def direct(edges: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those that no longer way implies: the same order, and a graph that one can read (transitive reduction)."""
    after: dict[str, set[str]] = {}
    for before, name in edges:
        after.setdefault(before, set()).add(name)

    def reached(names: set[str]) -> set[str]:
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            for name in after.get(waiting.pop(), set()) - found:
                found.add(name)
                waiting.append(name)
        return found

    return {(before, name) for before, names in after.items() for name in names - reached(names)}


def _instances(name: str, entry: Mapping[str, Any], values: Mapping[str, Any]) -> Iterator[Stage]:
    over = entry.get("foreach")
    if over is None:
        yield _stage(name, entry, values)
        return
    found = _resolved(over, values) if isinstance(over, str) else over
    pairs = found.items() if isinstance(found, Mapping) else ((str(one), one) for one in found)
    for key, item in pairs:
        yield _stage(f"{name}@{key}", entry["do"], {**values, "key": key, "item": item})


def _stage(name: str, entry: Mapping[str, Any], values: Mapping[str, Any]) -> Stage:
    if unknown := UNKNOWN & set(entry):
        raise ValueError(f"dvc.yaml: stage {name} uses {', '.join(sorted(unknown))}, which this reader does not know")
    outs = [path for kind in ("outs", "metrics", "plots") for path in _paths(entry.get(kind, ()), values)]
    return Stage(
        name, entry.get("desc", name), frozenset(_paths(entry.get("deps", ()), values)), frozenset(outs)
    )  # fmt: skip


def _paths(entries: Any, values: Mapping[str, Any]) -> Iterator[PurePosixPath]:
    for entry in entries:
        path = next(iter(entry)) if isinstance(entry, Mapping) else entry
        yield PurePosixPath(NAMED.sub(lambda name: str(_resolved(name.group(0), values)), path))


def _resolved(text: str, values: Mapping[str, Any]) -> Any:
    name = NAMED.fullmatch(text.strip())
    if name is None:
        raise ValueError(f"dvc.yaml: {text!r} is no name from params.yaml like ${{models}}")
    place: Any = values
    for part in name.group(1).split("."):
        place = place[part]
    return place


def _overlap(one: PurePosixPath, other: PurePosixPath) -> bool:
    return one == other or one in other.parents or other in one.parents
