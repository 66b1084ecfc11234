"""Lists that an earlier evaluation made of the same bundle: they depend on its content and the request alone.

So what a day adds to a holdout costs the lists of new users, and windows that did not move cost nothing. A file holds
the lists of one system; files appear whole, and of two evaluations at once the later one wins. They name users, so an
erasure removes all of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from pipelines.storage import replacing_file, value_sha256

FOLDER = Path("var") / "lists_cache"
KEPT = 256
"""Files: a few evaluations of all systems, surfaces and instants."""


@dataclass(frozen=True)
class Lists:
    """One system's lists: ``codes`` int64 ``[users, k]``, -1 for an empty place; ``scores`` float64, NaN there.

    ``fallbacks``: per user why the answer is simpler than the fusion, or None.
    """

    codes: np.ndarray
    scores: np.ndarray
    fallbacks: tuple[str | None, ...]

    @classmethod
    def of(
        cls, rows: Sequence[tuple[Sequence[int] | np.ndarray, Sequence[float] | np.ndarray, str | None]], length: int
    ) -> Lists:
        """Pad lists of different lengths to equal ones."""
        codes = np.full((len(rows), length), -1, np.int64)
        scores = np.full(codes.shape, np.nan)
        for row, (items, values, _) in enumerate(rows):
            codes[row, : len(items)], scores[row, : len(items)] = items, values
        return cls(codes, scores, tuple(fallback for _, _, fallback in rows))

    def at(self, rows: Sequence[int]) -> Lists:
        """Those of some users."""
        return Lists(self.codes[rows], self.scores[rows], tuple(self.fallbacks[row] for row in rows))

    def then(self, other: Lists) -> Lists:
        """These users, then those."""
        codes, scores = (np.concatenate(pair) for pair in ((self.codes, other.codes), (self.scores, other.scores)))
        return Lists(codes, scores, self.fallbacks + other.fallbacks)


class KeptLists:
    """Lists by system and user in a folder, which is made when the first are kept."""

    def __init__(self, home: Path, *, code: str) -> None:
        """``home``: ``FUSELINE_HOME``; ``code``: hash of all code that makes lists and asks for them."""
        self.folder = home / FOLDER
        self._code = code

    def completed(self, system: Sequence[str], asked: Sequence[str], make: Callable[[list[int]], Lists]) -> Lists:
        """Lists of all that ask, in their order.

        Args:
            system: all that the lists depend on beside who asks; equal words, equal lists.
            asked: who asks, distinct.
            make: makes the lists of these rows of ``asked``; not called when all are kept.
        """
        path = self.folder / f"{value_sha256([self._code, *system])[:32]}.npz"
        known, kept = self._read(path)
        place = {name: row for row, name in enumerate(known)}
        missing = [row for row, name in enumerate(asked) if name not in place]
        if missing or kept is None:
            made = make(missing)
            kept = made if kept is None else kept.then(made)
            known = [*known, *(asked[row] for row in missing)]
            place = {name: row for row, name in enumerate(known)}
            self._write(path, known, kept)
        else:
            os.utime(path)
        return kept.at([place[name] for name in asked])

    def forget(self) -> None:
        """Remove all but the :data:`KEPT` files used last."""
        files = sorted(self.folder.glob("*.npz"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in files[KEPT:]:
            path.unlink(missing_ok=True)

    def _read(self, path: Path) -> tuple[list[str], Lists | None]:
        try:
            with np.load(path, allow_pickle=False) as kept:
                fallbacks = tuple(str(why) or None for why in kept["fallbacks"])
                return [str(name) for name in kept["asked"]], Lists(kept["codes"], kept["scores"], fallbacks)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return [], None  # nothing there, or torn: it is made again

    def _write(self, path: Path, asked: Sequence[str], lists: Lists) -> None:
        fallbacks = [why or "" for why in lists.fallbacks]
        with replacing_file(path) as aside, aside.open("wb") as stream:
            np.savez(
                stream,
                asked=np.array(asked, np.str_),
                codes=lists.codes,
                scores=lists.scores,
                fallbacks=np.array(fallbacks, np.str_),
            )
