"""A bundle's manifest, and whether its files are those that it names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.errors import ArtifactError
from pipelines.storage import file_sha256

MANIFEST = "manifest.json"


def check_files(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Compare a bundle's files with its manifest.

    Raises:
        ArtifactError: naming the first file that is missing or not what the manifest says.
    """
    for name, wanted in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise ArtifactError(f"{path} is missing from the bundle", do="run `dvc repro`, or promote again")
        if (found := file_sha256(path)) != wanted:
            raise ArtifactError(
                f"{path} is damaged", found=found[:16], wanted=wanted[:16], do="run `dvc repro`, or promote again"
            )
