"""Which promoted bundles stay on disk, and the removal of the others."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pipelines import champion
from pipelines.storage import remove_unless_held

logger = logging.getLogger("fuseline.release")


def folder(home: Path) -> Path:
    """Where promoted bundles lie, one folder an id."""
    return home / "var" / "bundles"


def remove_old(home: Path, *, keep: int) -> list[str]:
    """Remove bundles that nobody goes back to; only while the champion is :func:`~pipelines.champion.locked`.

    What stays: the champion, the one before it, the ``keep`` newest promotions, whatever was stored since the
    oldest of these, and a bundle that a service is loading at this moment, which goes next time.

    Returns:
        The ids that were removed.
    """
    moves, now = champion.moves(home), champion.read(home)
    if now is None or not folder(home).is_dir():
        return []
    newest = _newest_promotions(moves, keep)
    kept = {now.bundle_id, *(str(move["bundle_id"]) for move in newest)}
    kept |= {str(move["bundle_id"]) for move in moves if move["version"] == now.previous}
    since = min((datetime.fromisoformat(move["at"]).timestamp() for move in newest), default=0.0)
    removed = []
    for one in sorted(folder(home).iterdir()):
        try:
            if one.name.startswith("."):
                shutil.rmtree(one, ignore_errors=True)  # half a copy of a promotion that was killed
            elif one.name not in kept and one.stat().st_mtime < since and remove_unless_held(one):
                removed.append(one.name)
        except OSError as error:
            logger.warning("%s could not be removed: %s; the next promotion tries again", one, error)
    return removed


def _newest_promotions(moves: Sequence[dict[str, Any]], keep: int) -> list[dict[str, Any]]:
    """The last promotion of each of the ``keep`` bundles that were promoted last."""
    found: dict[str, dict[str, Any]] = {}
    for move in reversed(moves):
        if move.get("action") == "promote" and len(found) < keep:
            found.setdefault(str(move["bundle_id"]), move)
    return list(found.values())
