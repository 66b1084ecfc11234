"""Stage ``code``: what code each of the other stages runs, so that each depends on its own and on nothing else."""

from __future__ import annotations

from pathlib import Path

from pipelines.source_code import KINDS, SourceCode
from pipelines.stages.running import arguments, run
from pipelines.storage import file_sha256, replacing_folder, write_json
from pipelines.workspace import Workspace

STAGES = "pipelines.stages"
RUNNABLE = '__name__ == "__main__"'
PER_KIND = "train"
"""The stage that runs one kind of base model at a time."""


def main(argv: list[str] | None = None) -> None:
    """Write ``artifacts/code/<stage>.json`` and ``artifacts/code/train/<kind>.json``: files by path, with SHA-256."""
    told = arguments("Name the code that each stage runs.", argv)
    code = SourceCode(Path(__file__).resolve().parents[2])
    work = Workspace(told.artifacts)
    with replacing_folder(work.root / "code") as folder:
        for module in stages(code):
            if module == f"{STAGES}.{PER_KIND}":
                (folder / PER_KIND).mkdir()
                for name in kinds(code):
                    _write(folder / PER_KIND / f"{name}.json", code, code.run_by(module, kind=name))
            else:
                _write(folder / work.code(module.rpartition(".")[2]).name, code, code.run_by(module))


def stages(code: SourceCode) -> list[str]:
    """Modules that other stages run; what shares their folder and cannot be started is part of them."""
    files = {module: code.file_of(module) for module in code.modules(STAGES) if module != f"{STAGES}.code"}
    return [module for module, path in files.items() if path and RUNNABLE in path.read_text(encoding="utf-8")]


def kinds(code: SourceCode) -> list[str]:
    """Kinds of base models."""
    found = code.modules(KINDS.rstrip("."))
    return [module.removeprefix(KINDS) for module in found if module.startswith(KINDS)]


def _write(path: Path, code: SourceCode, files: list[Path]) -> None:
    write_json(path, {file.relative_to(code.root).as_posix(): file_sha256(file) for file in files})


if __name__ == "__main__":
    run(main)
