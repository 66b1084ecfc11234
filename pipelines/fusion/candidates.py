"""What a fuser sees: the union of the members' candidates with everybody's scores on each."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from pipelines import native
from pipelines.model_api import Context, FittedModel

SEARCHED = 1000
"""Candidates asked of each member for a search, whichever page is wanted: so that pages fit together."""


@dataclass(frozen=True)
class CandidateList:
    """Candidates of one request.

    Attributes:
        codes: int64 ``[m]``, ascending.
        members: names, in the order of the columns of ``scores``.
        scores: float32 ``[m, n_members]``; NaN where a member has no opinion.
        context: whom the list is for.
        bounded: names of the members whose scores are shares (``FittedModel.BOUNDED``).
    """

    codes: np.ndarray
    members: tuple[str, ...]
    scores: np.ndarray
    context: Context
    bounded: frozenset[str] = frozenset()

    def of(self, *, bounded: bool) -> list[int]:
        """Columns of ``scores`` whose members are bounded, or are not."""
        return [column for column, name in enumerate(self.members) if (name in self.bounded) == bounded]

    @functools.cached_property
    def scaled(self) -> np.ndarray:
        """The columns that are not bounded, by :func:`scaled`; fusion and its features both read them."""
        return scaled(self.scores[:, self.of(bounded=False)])

    def keep(self, rows: np.ndarray) -> CandidateList:
        """The same list with only these rows."""
        return replace(self, codes=self.codes[rows], scores=self.scores[rows])


def gather(
    members: Mapping[str, FittedModel], context: Context, *, depth: int, allowed: np.ndarray | None
) -> CandidateList:
    """Union of each member's best ``depth`` items, scored by all members.

    Args:
        members: fitted members by name.
        context: whom the list is for.
        depth: candidates asked of each member.
        allowed: bool ``[n_items]``, or None for all; others never appear.
    """
    names = tuple(members)
    if not names:
        return CandidateList(np.zeros(0, np.int64), names, np.zeros((0, 0), np.float32), context)
    proposals = [member.propose(context, depth, allowed) for member in members.values()]
    codes = _distinct([proposal.codes for proposal in proposals], next(iter(members.values())).n_items)
    columns = np.empty((len(names), len(codes)), np.float32)
    for column, proposal in zip(columns, proposals, strict=True):
        column[:] = proposal.score(codes)
    return CandidateList(codes, names, columns.T, context, bounded_of(members))


def _distinct(proposed: list[np.ndarray], n_items: int) -> np.ndarray:
    """The different ones of codes, int64, ascending."""
    codes = np.concatenate(proposed)
    if native.kernels is not None:
        out = np.empty(len(codes), np.int64)
        return out[: native.kernels.distinct(codes, n_items, out)]
    codes.sort()
    first = np.ones(len(codes), np.bool_)
    np.not_equal(codes[1:], codes[:-1], out=first[1:])
    return codes[first]


def opinions(members: Mapping[str, FittedModel], context: Context, codes: np.ndarray) -> CandidateList:
    """Given items, int64 ``[m]`` ascending, with everybody's scores of them."""
    scores = np.stack([member.score(context, codes) for member in members.values()], axis=1)
    return CandidateList(codes, tuple(members), scores, context, bounded_of(members))


def bounded_of(members: Mapping[str, FittedModel]) -> frozenset[str]:
    """Names of the members whose scores are shares."""
    return frozenset(name for name, member in members.items() if member.BOUNDED)


def ranks(scores: np.ndarray) -> np.ndarray:
    """Place of each item in each member's list, from 1, float32 ``[m, n_members]``; NaN without an opinion.

    Equal scores share the better place, so that a constant score says nothing.
    """
    negated = np.negative(scores.T, order="C")
    best_first = np.sort(negated, axis=1)  # NaN comes last
    out = np.empty(negated.shape, np.float32)
    for member, values in enumerate(negated):
        out[member] = np.searchsorted(best_first[member], values, side="left")
    out += 1
    out[np.isnan(negated)] = np.nan
    return out.T


def standardised(scores: np.ndarray) -> np.ndarray:
    """Z-scores within the list per member, clipped to [-5, 5], 0 where there is no opinion."""
    with np.errstate(invalid="ignore"):
        known = ~np.isnan(scores)
        count = np.maximum(known.sum(axis=0), 1)
        filled = np.where(known, scores, 0.0)
        mean = filled.sum(axis=0) / count
        centred = np.where(known, scores - mean, 0.0)
        spread = np.sqrt((centred**2).sum(axis=0) / count)
    scores_of: np.ndarray = np.clip(centred / np.maximum(spread, 1e-9), -5, 5).astype(np.float32)
    return scores_of


def scaled(scores: np.ndarray) -> np.ndarray:
    """Each column moved to 0 (its least, and no opinion) to 1 (its best), float32 ``[m, n]``."""
    columns = np.ascontiguousarray(scores.T)  # along memory a reduction takes a fifth of the time
    if native.kernels is not None and columns.dtype == np.float32:
        out = np.empty(scores.shape, np.float32)
        native.kernels.scaled(columns, len(columns), out)
        return out
    low, high = (ends.reduce(columns, axis=1, initial=np.nan)[:, None] for ends in (np.fmin, np.fmax))
    with np.errstate(invalid="ignore"):
        moved = columns - low
        moved /= high - low
        moved += 0  # -0 becomes 0
    moved[(high == low)[:, 0]] = 1.0
    np.copyto(moved, 0.0, where=np.isnan(columns))
    return np.ascontiguousarray(moved.T, np.float32)
