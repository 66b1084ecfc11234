"""How one surface fuses, as it lies in a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.fusion import fuser as fusers
from pipelines.fusion.fuser import FittedFuser
from pipelines.storage import read_json

CHOICE = "choice.json"
FIRST, FOLD_FOLDERS = "first", "folds"
"""Folders of a search's fusion: what makes the shortlist, and for each part of the queries what judges it."""
SHORTLISTING = "convex"
"""The method that makes the shortlist of a search."""


@dataclass(frozen=True)
class SurfaceFusion:
    """How one surface fuses.

    Attributes:
        fuser: orders the candidates.
        depth: candidates that each member gives.
        first: where ``fuser`` orders a shortlist alone: what orders all candidates before.
        folds: by part of the queries (``search.labels``) the fusion that was learned without that part; empty where
            nothing was learned, and in a bundle that serves.
        spread: weight of ``fusion.spread`` against what sells anyway; 0: none.
    """

    fuser: FittedFuser
    depth: int
    first: FittedFuser | None = None
    folds: Mapping[int, SurfaceFusion] = field(default_factory=dict)
    spread: float = 0.0


def load_fusion(folder: Path, about: Mapping[str, Any]) -> SurfaceFusion:
    """Read a surface's fusion, with those of its folds."""
    first = fusers.method(SHORTLISTING).fitted.load(folder / FIRST) if (folder / FIRST).exists() else None
    parts = sorted((folder / FOLD_FOLDERS).iterdir()) if (folder / FOLD_FOLDERS).exists() else []
    folds = {int(part.name): load_fusion(part, read_json(part / CHOICE)) for part in parts}
    fuser = fusers.method(about["fuser"]).fitted.load(folder)
    return SurfaceFusion(fuser, int(about["depth"]), first, folds, float(about.get("spread", 0.0)))
