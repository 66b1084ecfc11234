"""Arrays as files, one each, read memory-mapped: workers share their pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

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


class _SameOnce:
    """Which file stands for each of equal content, and the arrays that were read of those so far."""

    def __init__(self, folder: Path, digests: Mapping[str, str]) -> None:
        """As :func:`same_files_once`."""
        first: dict[str, str] = {}
        for name in sorted(digests):
            first.setdefault(digests[name], name)
        self._first = {folder / name: folder / first[digest] for name, digest in digests.items()}
        self._read: dict[Path, np.ndarray] = {}

    def read(self, path: Path) -> np.ndarray:
        """The array of a file, or that of an equal one which was read before."""
        first = self._first.get(path)
        if first is None:
            return _mapped(path)
        if first not in self._read:
            self._read[first] = _mapped(first)
        return self._read[first]


_same: ContextVar[_SameOnce | None] = ContextVar("_same", default=None)


@contextmanager
def same_files_once(folder: Path, digests: Mapping[str, str]) -> Iterator[None]:
    """Within, :func:`read_array` maps files of equal content once: memory, caches and page tables hold one.

    Args:
        folder: what the files lie in.
        digests: of their content, by path below it.
    """
    token = _same.set(_SameOnce(folder, digests))
    try:
        yield
    finally:
        _same.reset(token)


def read_array(path: Path) -> np.ndarray:
    """Read one array memory-mapped and read-only."""
    same = _same.get()
    return _mapped(path) if same is None else same.read(path)


def _mapped(path: Path) -> np.ndarray:
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist", do="run `dvc repro`") from None
    except (ValueError, EOFError, OSError) as error:
        raise ArtifactError(f"{path} is damaged", found=error, do="delete its folder and run `dvc repro`") from error
