"""Files that are whole or absent: everything is written aside and renamed.

A process killed in the middle of a write leaves the previous good output in place, and at most
a hidden ``.*.partial`` sibling that the next write of the same path removes.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from pipelines.errors import ArtifactError


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``target``; on success it takes target's place, on error it goes."""
    aside = target.parent / f".{target.name}.partial"
    old = target.parent / f".{target.name}.old.partial"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        yield aside
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    aside.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def is_locked(file: Path) -> bool:
    """Whether some process holds the kernel's lock on a file at this moment; no file, no lock."""
    try:
        with file.open("rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep :func:`remove_unless_held` away from a folder while it is being read; many may hold it.

    The kernel's lock on the folder itself: it goes with the process, and leaves no file behind.

    Raises:
        ArtifactError: when the folder is not there.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ArtifactError(f"{folder} cannot be read", found=error.strerror, do="promote again") from error
    try:
        with suppress(OSError):  # a file system without locks is read without one
            fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


def remove_unless_held(folder: Path) -> bool:
    """Remove a folder whole, unless somebody holds a folder right below it; tells whether it is gone."""
    with ExitStack() as handles:
        for below in (path for path in folder.iterdir() if path.is_dir()):
            handle = os.open(below, os.O_RDONLY | os.O_DIRECTORY)
            handles.callback(os.close, handle)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        aside = folder.parent / f".{folder.name}.old.partial"
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)
    return True


@contextmanager
def replacing_file(target: Path) -> Iterator[Path]:
    """Yield a path beside ``target`` to write to; on success it is renamed over target."""
    aside = target.parent / f".{target.name}.partial"
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield aside
        with aside.open("rb") as written:
            os.fsync(written.fileno())
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write text atomically as UTF-8."""
    with replacing_file(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, keys sorted, so that equal values are equal bytes."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON, or say which file is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist", do="run `dvc repro`") from None
    except ValueError as error:
        raise ArtifactError(f"{path} is not JSON", found=error, do="delete it and run `dvc repro`") from error


def unpack(archive: tarfile.TarFile, target: Path) -> None:
    """Unpack an archive of plain files and folders into an existing folder; nothing can land outside of it.

    Raises:
        tarfile.TarError: naming what is something else, or would; nothing is unpacked then.
    """
    inside, members = target.resolve(), archive.getmembers()
    for one in members:
        if not (one.isfile() or one.isdir()) or not (inside / one.name).resolve().is_relative_to(inside):
            raise tarfile.TarError(f"{one.name!r} is no file within the folder")
    # the library's own filter exists from Python 3.11.4 on; Debian 12 has 3.11.2
    archive.extraction_filter = getattr(tarfile, "data_filter", None)
    archive.extractall(target, members)  # noqa: S202 - looked at above


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def value_sha256(value: Any) -> str:
    """SHA-256 of a JSON-able value in canonical form, as hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
