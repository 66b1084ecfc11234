"""What a module of a source brings along: every file that it imports or starts, directly or not.

Files are parsed and never run, so the source of another version can be read.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

KINDS = "pipelines.models."
"""Kinds of base models are found by name; what fits one member runs the file of its own kind only."""

STARTED = ("pipelines.", "expectations.")
"""What a module may start by name; the service and the benchmarks are for others."""

FILE_NAME = re.compile(r"[\w-]+(\.[\w.-]+)?")


class SourceCode:
    """The packages in a folder; an instance reads every file once, and knows nothing of later changes."""

    def __init__(self, root: Path) -> None:
        """``root``: the folder that holds ``pipelines/``."""
        self.root = root
        self._trees: dict[Path, ast.Module] = {}
        self._imported: dict[tuple[Path, bool, bool, bool], frozenset[str]] = {}
        self._files: dict[str, Path | None] = {}
        self._beside: dict[Path, frozenset[Path]] = {}

    def closure(
        self, modules: Iterable[str], *, lazy: bool = True, packages: bool = True, kind: str | None = None
    ) -> frozenset[Path]:
        """Files of this source that modules bring along, themselves and the ``__init__`` of their packages included.

        Args:
            modules: dotted names; those of other libraries bring nothing.
            lazy: with what is imported in functions and started as processes; without, what importing them imports.
            packages: an f-string that begins with the name of a package stands for all its modules.
            kind: of the kinds of base models only this one.
        """
        found: set[Path] = set()
        waiting = list(modules)
        while waiting:
            name = waiting.pop()
            if kind is not None and name.startswith(KINDS) and not f"{name}.".startswith(f"{KINDS}{kind}."):
                continue
            waiting += [name.rpartition(".")[0]] if "." in name else []
            path = self.file_of(name)
            if path is not None and path not in found:
                found.add(path)
                waiting += self.imported(path, lazy=lazy, packages=packages)
        return frozenset(found)

    def run_by(self, module: str, *, kind: str | None = None) -> list[Path]:
        """Code and packaged data that a module needs to run, sorted; a file that says nothing is not among them."""
        files = self.closure([module], kind=kind)
        data = {path for name in files for path in self.data_beside(name)}
        return sorted(data | {path for path in files if path.name != "__init__.py" or self._says_something(path)})

    def file_of(self, module: str) -> Path | None:
        """The file of a module of this source, or None."""
        if module not in self._files:
            base = self.root.joinpath(*module.split("."))
            both = (base.with_suffix(".py"), base / "__init__.py")
            self._files[module] = next((path for path in both if path.is_file()), None)
        return self._files[module]

    def modules(self, *packages: str) -> list[str]:
        """Every module of these packages, given as dotted names, sorted."""
        files = [path for package in packages for path in self.root.joinpath(*package.split(".")).rglob("*.py")]
        return sorted(self.name_of(path) for path in files)

    def name_of(self, path: Path) -> str:
        """Dotted name of a file's module."""
        parts = list(path.relative_to(self.root).with_suffix("").parts)
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def imported(self, path: Path, *, lazy: bool = True, packages: bool = True, strings: bool = True) -> frozenset[str]:
        """Dotted names that a file imports, of this source and of libraries.

        ``from a import b`` gives ``a`` and ``a.b``. With ``lazy`` and ``strings`` also a string that is the name of a
        module of this source, which is started as a process; of ``packages`` see :meth:`closure`.
        """
        asked = (path, lazy, packages, strings)
        if asked not in self._imported:
            names: set[str] = set()
            around = list(path.relative_to(self.root).parent.parts)
            for node in _nodes(self._tree(path), lazy=lazy):
                if isinstance(node, ast.Import):
                    names |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    outer = around[: len(around) + 1 - node.level] if node.level else []
                    module = ".".join([*outer, *([node.module] if node.module else [])])
                    names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
                elif lazy and strings:
                    names |= self._named(node, packages=packages)
            self._imported[asked] = frozenset(names)
        return self._imported[asked]

    def data_beside(self, path: Path) -> frozenset[Path]:
        """Files that are no modules, lie in a module's folder, and are named, or their folder, by a string in it."""
        if path not in self._beside:
            self._beside[path] = self._named_beside(path)
        return self._beside[path]

    def _named_beside(self, path: Path) -> frozenset[Path]:
        strings = [node.value for node in ast.walk(self._tree(path)) if isinstance(node, ast.Constant)]
        names = {text for text in strings if isinstance(text, str) and FILE_NAME.fullmatch(text)}
        beside = {path.parent / name for name in names if not name.endswith(".py") and not name.startswith("__")}
        folders = {found for found in beside if found.is_dir() and not (found / "__init__.py").exists()}
        inside = {one for folder in folders for one in folder.rglob("*") if one.is_file()}
        return frozenset({found for found in beside if found.is_file()} | inside)

    def _named(self, node: ast.AST, *, packages: bool) -> set[str]:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(STARTED):
            return {node.value} if self.file_of(node.value) else set()
        if packages and isinstance(node, ast.JoinedStr) and node.values and isinstance(node.values[0], ast.Constant):
            head = str(node.values[0].value)
            if head.endswith(".") and self.file_of(head.rstrip(".")):
                return set(self.modules(head.rstrip(".")))
        return set()

    def _tree(self, path: Path) -> ast.Module:
        if path not in self._trees:
            self._trees[path] = ast.parse(path.read_bytes())
        return self._trees[path]

    def _says_something(self, path: Path) -> bool:
        body = self._tree(path).body
        return any(not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in body)


def _nodes(tree: ast.AST, *, lazy: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if not lazy and (isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or _for_types(node)):
            continue
        yield node
        yield from _nodes(node, lazy=lazy)


def _for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
