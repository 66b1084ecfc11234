"""Arrays as files, one each, read memory-mapped: workers share their pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType

import numpy as np

from pipelines.errors import ArtifactError


def write_arrays(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write each array as ``<name>.npy`` (no pickles: a bundle is data, never code)."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)


def read_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Read every ``.npy`` of a folder, memory-mapped, so that workers share the pages."""
    return {path.stem: read_array(path) for path in sorted(folder.glob("*.npy"))}


_same: ContextVar[Mapping[Path, Path]] = ContextVar("_same", default=MappingProxyType({}))


@contextmanager
def same_files_once(folder: Path, digests: Mapping[str, str]) -> Iterator[None]:
    """Within, :func:`read_array` reads files of equal content from one of them, so that memory and caches hold one.

    Args:
        folder: what the files lie in.
        digests: of their content, by path below it.
    """
    first: dict[str, str] = {}
    for name in sorted(digests):
        first.setdefault(digests[name], name)
    token = _same.set({folder / name: folder / first[digest] for name, digest in digests.items()})
    try:
        yield
    finally:
        _same.reset(token)


def read_array(path: Path) -> np.ndarray:
    """Read one array memory-mapped and read-only."""
    try:
        return np.asarray(np.load(_same.get().get(path, path), mmap_mode="r", allow_pickle=False))
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist", do="run `dvc repro`") from None
    except (ValueError, EOFError, OSError) as error:
        raise ArtifactError(f"{path} is damaged", found=error, do="delete its folder and run `dvc repro`") from error
