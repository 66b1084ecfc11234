"""What a base model is: the protocol between members, fusion, bundle and service.

A kind is one file of ``pipelines/models/``. It holds a configuration (:class:`ModelConfig`), a fitted
state that scores (:class:`FittedModel`) and a function ``fit`` that makes the one from the other, tied
together by a module-level ``KIND = Kind(...)``.

Codes. Everything inside one instant (features, members, bundle) numbers items alike: the code of an
item is its row in ``FeatureState.item_ids``, sorted by UTF-8 bytes. Codes of two instants do not match.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, NamedTuple, Self

import numpy as np
from pydantic import BaseModel, ConfigDict

from pipelines import native
from pipelines.contracts import Surface
from pipelines.features.state import FeatureState, UserHistory
from pipelines.search.query import Query


class ModelConfig(BaseModel):
    """Base of a kind's configuration: each field with bound, default and meaning; extras forbidden."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Need(StrEnum):
    """What a kind cannot do without; the reason for ``not_applicable`` when it is missing."""

    INTERACTIONS = "interactions of known users"
    TEXT = "text vectors"
    SEARCHES = "choices after a search"
    ITEMS = "items"


RECOMMENDING: frozenset[Surface] = frozenset({Surface.RECOMMEND, Surface.RECOMMEND_NEW})
"""Surfaces without a query."""


class Context(NamedTuple):
    """Whom a list is for, and what was asked.

    ``history`` has finished per-item aggregates, empty for an unknown user; ``query`` is None but on ``search``.
    """

    history: UserHistory
    surface: str
    query: Query | None = None


class Candidates(NamedTuple):
    """``codes`` int64 ``[m]``, ``scores`` float32 ``[m]``, best first, ties by lower code, no duplicates."""

    codes: np.ndarray
    scores: np.ndarray


class Proposal(NamedTuple):
    """``codes`` of :class:`Candidates` in any order; ``score``: the member's scores of any codes in this context."""

    codes: np.ndarray
    score: Callable[[np.ndarray], np.ndarray]


class FittedModel(ABC):
    """A member at one instant: read-only, thread-safe, numpy only.

    ``score_all`` is all that a kind must write; one with a cheaper way to its best or to few items
    overrides the others, with equal results (the conformance suite checks it).

    ``BOUNDED``: scores lie in [-1, 1] and say as much in one list as in another, so a fuser without labels adds them as
    they are; others it scales to the least and best of each list.
    """

    BOUNDED: ClassVar[bool] = False
    by_meaning: ClassVar[bool] = False
    """Whether an opinion does not say that an item has a word of the query: that it is near, or lacks something."""

    def __init__(self, n_items: int) -> None:
        """``n_items``: number of items of the instant; scores are aligned with their codes."""
        self.n_items = n_items

    @abstractmethod
    def score_all(self, context: Context) -> np.ndarray:
        """Scores of all items, float32 ``[n_items]``, higher is better; NaN: no opinion on that item."""

    def score(self, context: Context, codes: np.ndarray) -> np.ndarray:
        """Scores of these items, float32 ``[len(codes)]``; NaN: no opinion."""
        scores: np.ndarray = self.score_all(context)[codes]
        return scores

    def candidates(self, context: Context, n: int, allowed: np.ndarray | None = None) -> Candidates:
        """The best ``n`` items that the member has an opinion on, fewer when it has fewer.

        Args:
            context: whom the list is for.
            n: at most this many.
            allowed: bool ``[n_items]``, or None for all; others never appear.
        """
        return best(self.score_all(context), n, allowed)

    def propose(self, context: Context, n: int, allowed: np.ndarray | None = None) -> Proposal:
        """Candidates together with a way to score others, for the price of one pass over the items."""
        dense = self.score_all(context)
        return Proposal(leading(dense, n, allowed), dense.__getitem__)

    def similar(self, code: int, n: int) -> Candidates | None:
        """Items most like one item, itself excluded; None when the kind has no notion of it."""
        return None

    def judging(self, fold: int) -> FittedModel:
        """The model as it would be without the labels of a part of the queries (``search.labels``).

        A kind that learns from judgments keeps one for each part, so that every judged query can be judged on a model
        that never saw it; others are the same without.
        """
        del fold
        return self

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write ``.npy`` and ``.json`` files (no pickles) into an existing folder."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote; the copy scores the same to the bit."""


class Speechless(FittedModel):
    """A member that could not be fitted at an instant: no opinion on anything; is neither saved nor loaded."""

    def score_all(self, context: Context) -> np.ndarray:
        """NaN for every item."""
        del context
        return np.full(self.n_items, np.nan, np.float32)

    def save(self, folder: Path) -> None:
        """There is nothing to save."""
        raise NotImplementedError

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Nor to load."""
        raise NotImplementedError


class SpeechlessShare(Speechless):
    """The same in the place of a member whose scores are shares."""

    BOUNDED: ClassVar[bool] = True


def silence(codes: np.ndarray) -> np.ndarray:
    """Scores of a member without an opinion: NaN for each of these codes."""
    return np.full(len(codes), np.nan, np.float32)


def best(scores: np.ndarray, n: int, allowed: np.ndarray | None = None) -> Candidates:
    """The top ``n`` of a dense score array, NaN left out, ties by lower code."""
    codes = leading(scores, n, allowed)
    kept = scores[codes]
    order = np.lexsort((codes, -kept))
    return Candidates(codes[order], kept[order].astype(np.float32))


def leading(
    scores: np.ndarray, n: int, allowed: np.ndarray | None = None, *, silent: float = float("nan")
) -> np.ndarray:
    """Codes of :func:`best`, ascending, int64: for those who put them in another order, a third cheaper.

    ``silent``: the score that is no opinion: NaN, or 0 where all others are higher.
    """
    if native.kernels is not None and scores.dtype == np.float32:
        out = np.empty(min(n, len(scores)), np.int64)
        silence_at = None if np.isnan(silent) else silent
        may = None if allowed is None else np.ascontiguousarray(allowed)
        return out[: native.kernels.leading(np.ascontiguousarray(scores), may, silence_at, out)]
    codes = _reaching(scores, n, allowed, silent=silent)
    if codes is None:
        known = _known(scores, silent)
        codes = (known if allowed is None else known & allowed).nonzero()[0]
        codes = codes[_near_the_best(scores[codes], n)]
    codes.sort()  # _reaching has put ties behind the others
    if len(codes) <= n:
        return codes
    kept = scores[codes]
    ascending = kept.copy()
    ascending.sort()  # few are left, and often many of them equal, which a partition is slow with
    least = ascending[len(kept) - n] if n else np.inf
    above = kept > least
    ties = (kept == least).nonzero()[0]  # lower codes first
    above[ties[: n - int(np.count_nonzero(above))]] = True
    found: np.ndarray = codes[above]
    return found


def first_allowed(order: np.ndarray, n: int, allowed: np.ndarray | None = None) -> np.ndarray:
    """The first ``n`` allowed codes of a fixed order; reads little more of it than it returns."""
    if allowed is None:
        return order[:n]
    end = 2 * n
    while True:
        head = order[:end]
        found: np.ndarray = head[allowed[head]]
        if len(found) >= n or end >= len(order):
            return found[:n]
        end *= 4


MINIMUM_BLOCK = 4


def _near_the_best(scores: np.ndarray, n: int) -> np.ndarray | slice:
    """Rows among which the best ``n`` of scores without NaN are, in their order; few others where there are many.

    The n-th largest of the maxima of 3 n blocks is reached by n rows. It is cheaper to find than the n-th largest of
    all, above all where many are equal, which a partition is slow with.
    """
    blocks = 3 * n
    size = len(scores) // blocks if n else 0
    if size < 2:
        return slice(None)
    maxima = scores[: size * blocks].reshape(size, blocks).max(axis=0)
    return np.flatnonzero(scores >= np.partition(maxima, blocks - n)[blocks - n])


def _known(scores: np.ndarray, silent: float) -> np.ndarray:
    found: np.ndarray = ~np.isnan(scores) if np.isnan(silent) else scores > silent
    return found


def _reaching(scores: np.ndarray, n: int, allowed: np.ndarray | None, *, silent: float) -> np.ndarray | None:
    """Codes of allowed items among which the best ``n`` are, ties at the least score cut by lower code.

    Every item falls into one of 4 n blocks, or fewer where they would be too small; as many blocks as are wanted hold
    an item that reaches the n-th largest of the blocks' maxima. That is two passes over the scores instead of a
    partition of all of them, which is what a long catalogue needs. None when there are few items, or few of the best
    are allowed.
    """
    wanted = n if allowed is None else 2 * n  # as many again may turn out not to be allowed
    blocks = min(4 * wanted, len(scores) // MINIMUM_BLOCK)
    if blocks < 3 * wanted or not n:
        return None
    size = len(scores) // blocks
    # items of a block lie `blocks` apart: the reduction then runs along memory
    maxima = np.fmax.reduce(scores[: size * blocks].reshape(size, blocks), axis=0)
    maxima = maxima[_known(maxima, silent)]
    if len(maxima) < wanted:
        return None
    maxima.partition(len(maxima) - wanted)
    floor = maxima[len(maxima) - wanted]

    def among(rows: np.ndarray) -> np.ndarray:
        codes: np.ndarray = rows.nonzero()[0]
        return codes if allowed is None else codes[allowed[codes]]

    codes = among(scores > floor)
    if len(codes) < n:  # ties at the floor fill up, lower codes first
        codes = np.concatenate([codes, among(scores == floor)[: n - len(codes)]])
    return codes if len(codes) >= n else None


@dataclass(frozen=True)
class TrainingData:
    """What a member may learn from: everything before one instant, and nothing else.

    Attributes:
        features: the aggregates, items and users as of the instant.
        parent: the same member fitted at an earlier instant, for a warm start, or None.
        parent_features: the features of the parent's instant (for mapping its codes), or None.
    """

    features: FeatureState
    parent: FittedModel | None = None
    parent_features: FeatureState | None = None


FitFunction = Callable[..., FittedModel]


@dataclass(frozen=True)
class Kind:
    """A kind of base model.

    Attributes:
        config: its configuration class.
        fitted: its fitted class.
        fit: ``fit(config, data, *, seed) -> FittedModel``; pure: same arguments, same bytes.
        needs: what it cannot do without.
        surfaces: on which lists it has something to say; on others it is not asked.
        warm_start: whether ``fit`` uses ``data.parent``.
        refusing: says why it cannot be fitted although nothing is missing, or None.
    """

    config: type[ModelConfig]
    fitted: type[FittedModel]
    fit: FitFunction
    needs: frozenset[Need] = frozenset({Need.INTERACTIONS})
    warm_start: bool = False
    surfaces: frozenset[Surface] = RECOMMENDING
    refusing: Callable[[FeatureState], str | None] = lambda _: None

    REGISTERED_AS: ClassVar[str] = "KIND"

    def not_applicable(self, features: FeatureState) -> str | None:
        """Why this kind cannot be fitted on these data, or None when it can."""
        missing: Sequence[Need] = sorted(self.needs - available(features))
        return f"the data have no {' and no '.join(missing)}" if missing else self.refusing(features)


def available(features: FeatureState) -> frozenset[Need]:
    """What these data offer."""
    offered = {Need.ITEMS} if features.n_items else set()
    if len(features.user_items.items):
        offered.add(Need.INTERACTIONS)
    if features.text is not None:
        offered.add(Need.TEXT)
    if features.n_searches:
        offered.add(Need.SEARCHES)
    return frozenset(offered)
