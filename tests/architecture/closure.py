"""The stages as DVC reads them, and what the modules of this repository import."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path

from pipelines.source_code import SourceCode

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("pipelines", "serving", "expectations", "benchmarks")
SOURCE = SourceCode(ROOT)

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
    return SOURCE.modules(*(packages or PACKAGES))


def file_of(module: str) -> Path | None:
    """The file of a module of ours, or None."""
    return SOURCE.file_of(module) if module.split(".", maxsplit=1)[0] in PACKAGES else None
