"""A bundle's manifest, and whether its files are those that it names."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pipelines.errors import ArtifactError
from pipelines.storage import file_sha256

MANIFEST = "manifest.json"


def check_files(folder: Path, manifest: Mapping[str, Any], *, threads: int = 1) -> None:
    """Compare a bundle's files with its manifest.

    Args:
        folder: of the bundle.
        manifest: its manifest.
        threads: that read at the same time, where nobody else needs the cores.

    Raises:
        ArtifactError: naming the first file that is missing or not what the manifest says.
    """
    paths = [folder / name for name in manifest["files"]]
    if missing := next((path for path in paths if not path.is_file()), None):
        raise ArtifactError(f"{missing} is missing from the bundle", do="run `dvc repro`, or promote again")
    with ThreadPoolExecutor(threads) as pool:
        for path, wanted, found in zip(paths, manifest["files"].values(), pool.map(file_sha256, paths), strict=True):
            if found != wanted:
                raise ArtifactError(
                    f"{path} is damaged", found=found[:16], wanted=wanted[:16], do="run `dvc repro`, or promote again"
                )
