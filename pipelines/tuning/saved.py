"""The tuned encoder of queries as of an instant, as it lies among the artifacts and in a member.

::

    about.json            reason: why there is none, or null
    encoder/              the graph that takes additions, and the tokenizer (``search.encoding``)
    <version>.down.npy    additions of the version that serves (``all``), and of one for each part of the queries
    <version>.up.npy      (``search.labels``) that learned nothing of that part
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.arrays import read_array
from pipelines.search.encoding import ABOUT, DOWN, ENCODER, UP, Additions
from pipelines.storage import read_json, write_json

ALL = "all"
"""Name of the version that learned from all labels."""


def write_none(folder: Path, reason: str) -> None:
    """Say in an existing folder why there is no tuned encoder."""
    write_json(folder / ABOUT, {"reason": reason})


def write(folder: Path, encoder: Path, versions: Mapping[str, Additions], about: Mapping[str, Any]) -> None:
    """Write into an existing folder.

    Args:
        folder: where to.
        encoder: folder of the exported graph, copied.
        versions: additions by the name of the version; :data:`ALL` is among them.
        about: further facts.
    """
    shutil.copytree(encoder, folder / ENCODER)
    for name, additions in versions.items():
        for part, values in additions.items():
            np.save(folder / f"{name}.{part}.npy", values, allow_pickle=False)
    write_json(folder / ABOUT, {"reason": None, **about})


def reason(folder: Path | None) -> str | None:
    """Why there is no tuned encoder, or None when there is one."""
    if folder is None or not (folder / ABOUT).is_file():
        return "the text encoder was not tuned"
    found: str | None = read_json(folder / ABOUT)["reason"]
    return found


def read(folder: Path) -> dict[str, Additions]:
    """The versions by name, memory-mapped."""
    names = sorted(path.name.removesuffix(f".{DOWN}.npy") for path in folder.glob(f"*.{DOWN}.npy"))
    return {name: {part: read_array(folder / f"{name}.{part}.npy") for part in (DOWN, UP)} for name in names}
