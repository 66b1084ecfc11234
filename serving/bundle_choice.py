"""Which bundle to serve, and where the service keeps its state.

``FUSELINE_BUNDLE``, else the champion's pointer under ``FUSELINE_HOME``, else the bundle packed into the
Bento. This module reads small files only, so that asking again (when the pointer moves) is cheap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines import champion as champions
from pipelines import feedback
from pipelines.errors import ArtifactError
from pipelines.manifest import MANIFEST, check_files
from pipelines.storage import read_json

ROOT = Path(__file__).resolve().parents[1]
PACKED = ROOT / "packed"
"""Exists inside a Bento only: ``bundle/`` and ``about.json`` with the registered version."""
ORDERS = "FUSELINE_ORDERS"
"""Names the folder of :func:`shared_orders`; ``serving.start.share`` makes one where nothing is named."""


@dataclass(frozen=True)
class BundleChoice:
    """A folder, and the registry's version of it when there is one."""

    folder: Path
    version: str | None
    source: str


def home(environ: Mapping[str, str]) -> Path:
    """``FUSELINE_HOME``; by default the checkout, and for a Bento a folder beside the Bentos."""
    if environ.get("FUSELINE_HOME"):
        return Path(environ["FUSELINE_HOME"]).absolute()
    if PACKED.exists():
        store = environ.get("BENTOML_HOME")
        return (Path(store) if store else Path.home() / "bentoml") / "fuseline"
    return ROOT


def events_url(environ: Mapping[str, str]) -> str:
    """SQLAlchemy URL of the event store."""
    return feedback.events_url(home(environ), environ)


def shared_orders(environ: Mapping[str, str]) -> Path | None:
    """The folder in which workers keep orders of searches for one another; None: each keeps its own."""
    return Path(environ[ORDERS]) if environ.get(ORDERS) else None


class NoBundleYet(ArtifactError):
    """Nothing was promoted so far, and nothing is named or packed."""


def choose(environ: Mapping[str, str]) -> BundleChoice:
    """The bundle to serve now.

    Raises:
        NoBundleYet: when there is none, saying what to run.
        ArtifactError: when the pointer is damaged.
    """
    if environ.get("FUSELINE_BUNDLE"):
        return BundleChoice(Path(environ["FUSELINE_BUNDLE"]).absolute(), None, "FUSELINE_BUNDLE")
    champion = champions.read(home(environ))
    if champion is not None:
        return BundleChoice(home(environ) / champion.bundle, str(champion.version), f"champion {champion.version}")
    if PACKED.exists():
        about = read_json(PACKED / "about.json")
        return BundleChoice(PACKED / "bundle", str(about["version"]), "the bundle inside the Bento")
    raise NoBundleYet(
        "there is no bundle to serve",
        found=f"no FUSELINE_BUNDLE and no champion in {champions.folder(home(environ))}",
        do="run `make demo`, or `dvc repro` and `fuseline promote`",
    )


def verify(choice: BundleChoice, *, threads: int = 1) -> None:
    """Compare the bundle's files with its manifest; ``threads`` read at the same time.

    Raises:
        ArtifactError: naming the first file that is missing or damaged.
    """
    if not (choice.folder / MANIFEST).is_file():
        raise ArtifactError(
            f"{choice.folder} holds no bundle", found=f"named by {choice.source}", wanted=MANIFEST, do="promote again"
        )
    check_files(choice.folder, read_json(choice.folder / MANIFEST), threads=threads)
