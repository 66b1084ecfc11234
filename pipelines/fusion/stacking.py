"""Stacking: a listwise neural ranker over the members' opinions and the candidates' features.

Every number is replaced by its quantile q on the training lists. Two ensembles of small perceptrons with a linear
path train in TensorFlow, and their scores are averaged. One learns from the labels: q enters as 2q - 1, its square and
a flag for "unknown", and pairs of a bought and another candidate are weighted by what swapping the two would change in
nDCG (LambdaRank: Burges 2010, "From RankNet to LambdaRank to LambdaMART", section 4). The other learns to rank as
boosted trees do that were taught on the same lists (distillation: Hinton et al. 2015): trees find steps and
interactions that few lists do not teach a perceptron. There q enters as ramps between equal steps (Gorishniy et al.
2022, "On Embeddings for Numerical Features in Tabular Deep Learning", piecewise linear encoding). With few lists there
are no trees.
While training, members are masked at random, so that one that fails while serving degrades the list and
does not break it. Scoring is numpy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field

from pipelines.arrays import read_arrays, write_arrays
from pipelines.fusion.candidates import CandidateList, ranks, standardised
from pipelines.fusion.features import FEATURES, Part
from pipelines.fusion.fuser import FittedFuser, FuserConfig, LabelledList, Method
from pipelines.storage import read_json, write_json

VIEWS = 3
"""Columns per member: score, place in its list, z-score within the list."""

SPREAD_ROWS = 100_000
"""Rows of the first lists that tell how far an ensemble's scores spread."""


class StackingConfig(FuserConfig):
    """Size and training of the ranker."""

    knots: int = Field(64, ge=2, description="quantiles kept per column")
    hidden: int = Field(32, ge=1, description="units in each of two layers of each perceptron")
    ensemble: int = Field(3, ge=1, description="perceptrons of an ensemble, whose scores are averaged")
    negatives: int = Field(300, ge=1, description="candidates that were not bought, kept per list")
    list_size: int = Field(64, ge=2, description="rows per list and step, bought ones first")
    batch_lists: int = Field(32, ge=1, description="lists per step")
    epochs: int = Field(16, ge=1)
    learning_rate: float = Field(3e-3, gt=0, description="peak; warm-up over a tenth, then cosine to 0")
    weight_decay: float = Field(1e-2, ge=0)
    dropout: float = Field(0.1, ge=0, lt=1)
    member_dropout: float = Field(0.1, ge=0, lt=1, description="chance that a member is masked in a list")
    window_decay: float = Field(0.9, gt=0, le=1, description="weight of a window relative to the next newer one")
    average: float = Field(0.99, ge=0, lt=1, description="momentum of the moving average of the weights")
    trees: int = Field(60, ge=0, description="boosted trees that teach the second ensemble; 0: there is none")
    fewest_lists: int = Field(500, ge=1, description="fewer lists than this teach no trees")
    leaves: int = Field(15, ge=2, description="of a tree")
    tree_rate: float = Field(0.15, gt=0, description="shrinkage of each tree")
    tree_l2: float = Field(50.0, ge=0, description="ridge on the leaves' values")
    tree_epochs: int = Field(8, ge=1, description="passes of the second ensemble: scores teach sooner than labels")
    ramps: int = Field(8, ge=1, description="steps between which a quantile enters the second ensemble")

    def plain(self) -> Self:
        """Without trees: their gain differs from shop to shop, and from one kind of list to another."""
        return self.model_copy(update={"trees": 0})


LABELS, TREES = "labels", "trees"
"""What an ensemble learned from."""


@dataclass(frozen=True)
class Ensemble:
    """Learned numbers of ``s`` perceptrons with ``h`` units over ``f`` columns, each as ``c`` numbers.

    ``first`` ``[c f, s h]``; ``first_bias`` ``[s h]``; ``second`` ``[s, h, h]``; ``second_bias`` ``[s, 1, h]``;
    ``last`` ``[s, h, 1]``; ``linear`` ``[c f, s]``. All float32. ``ramps``: of :func:`encode`.
    """

    ramps: int
    first: np.ndarray
    first_bias: np.ndarray
    second: np.ndarray
    second_bias: np.ndarray
    last: np.ndarray
    linear: np.ndarray

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What is learned, by name."""
        return {name: value for name, value in vars(self).items() if name != "ramps"}

    def score(self, levels: np.ndarray) -> np.ndarray:
        """Mean score, float32 ``[m]``, for quantiles ``[m, f]``, NaN unknown."""
        code = encode(levels, self.ramps)
        size, units, _ = self.second.shape
        hidden = code @ self.first
        hidden += self.first_bias
        hidden = np.maximum(hidden, 0.0, out=hidden).reshape(len(code), size, units).transpose(1, 0, 2)
        hidden = np.maximum(hidden @ self.second + self.second_bias, 0.0)
        out = (hidden @ self.last)[:, :, 0].T + code @ self.linear
        mean: np.ndarray = out.mean(axis=1).astype(np.float32)
        return mean

    def divided(self, scale: float) -> Ensemble:
        """The same with all its scores divided."""
        return replace(self, last=self.last / np.float32(scale), linear=self.linear / np.float32(scale))


@dataclass(frozen=True)
class Ranker:
    """Ensembles over ``f`` columns, by what they learned from, whose scores are averaged.

    ``knots`` ``[f, k]`` ascending values and ``levels`` ``[f, k]`` their quantiles in [0, 1], float32.
    """

    knots: np.ndarray
    levels: np.ndarray
    ensembles: Mapping[str, Ensemble]

    def score(self, columns: np.ndarray) -> np.ndarray:
        """Mean score of the ensembles, float32 ``[m]``, for columns ``[m, f]`` of :func:`columns_of`."""
        return self.score_levels(self.levels_of(columns, 0))

    def levels_of(self, columns: np.ndarray, first: int) -> np.ndarray:
        """:func:`quantiles` of the columns from ``first`` on, float32 ``[r, k]``."""
        several = slice(first, first + columns.shape[1])
        return quantiles(columns, self.knots[several], self.levels[several])

    def score_levels(self, levels: np.ndarray) -> np.ndarray:
        """Mean score of the ensembles, float32 ``[m]``, for quantiles ``[m, f]``, NaN unknown."""
        total = np.zeros(len(levels), np.float32)
        for one in self.ensembles.values():
            total += one.score(levels)
        return total / np.float32(len(self.ensembles))


def quantiles(columns: np.ndarray, knots: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Quantile of every number among the training lists, float32 ``[m, f]``; NaN stays."""
    out = np.empty(columns.shape[::-1], np.float32)
    for place, values in enumerate(columns.T):
        out[place] = np.interp(values, knots[place], levels[place])
    return out.T


def encode(levels: np.ndarray, ramps: int = 0) -> np.ndarray:
    """Quantiles as what a perceptron reads, float32 ``[m, c f]``; 0 where unknown, beside a flag that says so.

    Without ramps c = 3: 2q - 1, its square, the flag. With T of them c = T + 1: ramp t is -1 up to q = t / T, 1 from
    (t + 1) / T on, and straight between; then the flag.
    """
    count, width = levels.shape
    code = np.empty((count, ramps + 1 if ramps else 3, width), np.float32)
    unknown = np.isnan(levels)
    if ramps:
        steps = code[:, :ramps]
        twice = np.arange(0, 2 * ramps, 2, dtype=np.float32)
        np.subtract((levels * np.float32(2 * ramps) - 1)[:, None, :], twice[:, None], out=steps)
        np.clip(steps, -1, 1, out=steps)
        rows, columns = np.nonzero(unknown)
        steps[rows, :, columns] = 0
    else:
        centred = code[:, 0]
        np.multiply(levels, 2, out=centred)
        centred -= 1
        np.copyto(centred, 0, where=unknown)
        np.multiply(centred, centred, out=code[:, 1])
    code[:, -1] = unknown
    return code.reshape(count, -1)


def views(candidates: CandidateList, members: Sequence[str]) -> np.ndarray:
    """Scores, places and z-scores of the members, float32 ``[m, VIEWS n_members]``, NaN without an opinion.

    A member of the training that is missing here is unknown throughout.
    """
    scores = np.full((len(candidates.codes), len(members)), np.nan, np.float32)
    for column, name in enumerate(members):
        if name in candidates.members:
            scores[:, column] = candidates.scores[:, candidates.members.index(name)]
    scaled = np.where(np.isnan(scores), np.float32(np.nan), standardised(scores))
    return np.concatenate([scores.T, ranks(scores).T, scaled.T], dtype=np.float32).T


def columns_of(candidates: CandidateList, features: np.ndarray, members: Sequence[str]) -> np.ndarray:
    """What the ranker reads: three views of each member, then the features; float32 ``[m, f]``, NaN unknown."""
    return np.concatenate([views(candidates, members), features], axis=1, dtype=np.float32)


class Stacking(FittedFuser):
    """The ranker with the members it was taught on."""

    def __init__(self, ranker: Ranker, members: tuple[str, ...], importance: dict[str, float]) -> None:
        """``importance``: share of each member in the score's spread on the training lists, adding up to 1."""
        self._ranker = ranker
        self._members = members
        self._importance = importance
        self._kept: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def reads_features(self) -> bool:
        """True."""
        return True

    def score(self, candidates: CandidateList, features: np.ndarray | None) -> np.ndarray:
        """Float32 ``[m]``."""
        if features is None:
            raise ValueError("stacking scores with features")
        return self._ranker.score(columns_of(candidates, features, self._members))

    def score_parts(self, candidates: CandidateList, described: Sequence[Part]) -> np.ndarray:
        """As :meth:`score`; quantiles are looked up once for each different row."""
        seen = views(candidates, self._members)
        levels = np.empty((len(seen), len(self._ranker.knots)), np.float32)
        first = seen.shape[1]
        levels[:, :first] = self._ranker.levels_of(seen, 0)
        for part in described:
            found = self._kept_levels(part, first) if part.kept else self._ranker.levels_of(part.values, first)
            end = first + found.shape[1]
            levels[:, first:end] = found if part.rows is None else found[part.rows]
            first = end
        return self._ranker.score_levels(levels)

    def _kept_levels(self, part: Part, first: int) -> np.ndarray:
        """Quantiles of a part that stays the same, made once; as many bytes as the part."""
        kept = self._kept
        if kept is None or kept[0] is not part.values:
            kept = self._kept = part.values, np.ascontiguousarray(self._ranker.levels_of(part.values, first))
        return kept[1]

    def plain(self) -> FittedFuser:
        """The ensemble taught by labels, alone."""
        if TREES not in self._ranker.ensembles:
            return self
        ranker = replace(self._ranker, ensembles={LABELS: self._ranker.ensembles[LABELS]})
        return Stacking(ranker, self._members, self._importance)

    def weights(self, members: Sequence[str], bounded: frozenset[str] = frozenset()) -> dict[str, float]:
        """How much the scores move when a member is masked, as shares."""
        total = sum(self._importance.get(name, 0.0) for name in members) or 1.0
        return {name: round(self._importance.get(name, 0.0) / total, 6) for name in members}

    def save(self, folder: Path) -> None:
        """Write the arrays, those of each ensemble in a folder of its own, and ``stacking.json``."""
        write_arrays(folder, {"knots": self._ranker.knots, "levels": self._ranker.levels})
        for name, one in self._ranker.ensembles.items():
            write_arrays(folder / name, one.arrays)
        write_json(
            folder / "stacking.json",
            {
                "members": list(self._members),
                "importance": self._importance,
                "features": list(FEATURES),
                "ensembles": {name: one.ramps for name, one in self._ranker.ensembles.items()},
            },
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote; bundles of before have one ensemble, taught by labels, in this folder."""
        about = read_json(folder / "stacking.json")
        arrays = _arrays(folder)
        knots, levels = arrays.pop("knots"), arrays.pop("levels")
        if "ensembles" in about:
            ensembles = {name: Ensemble(ramps, **_arrays(folder / name)) for name, ramps in about["ensembles"].items()}
        else:
            ensembles = {LABELS: Ensemble(0, **arrays)}
        ranker = Ranker(knots, levels, ensembles)
        return cls(ranker, tuple(about["members"]), about["importance"])


def _arrays(folder: Path) -> dict[str, np.ndarray]:
    return {name: np.asarray(array) for name, array in read_arrays(folder).items()}


def fit(config: StackingConfig, lists: Sequence[LabelledList], members: Sequence[str], *, seed: int) -> Stacking:
    """Train the ensembles on the lists; the same seed gives the same weights on the same machine."""
    from pipelines.learners.listwise import TrainingLists, train

    draw = np.random.default_rng(seed)
    newest = {name: age for age, name in enumerate(sorted({one.window for one in lists}, key=_order, reverse=True))}
    parts = []
    for one in lists:
        if not one.relevant.any():
            continue
        losers = np.flatnonzero(~one.relevant)
        kept = draw.permutation(losers)[: config.negatives]
        rows = np.concatenate([np.flatnonzero(one.relevant), np.sort(kept)])
        columns = columns_of(one.candidates, one.features, members)[rows]
        parts.append((columns, one.gains[rows], config.window_decay ** newest[one.window]))
    data = TrainingLists.of(parts)
    knots, levels = quantile_knots(data.columns, config.knots, draw)
    groups = np.full(data.columns.shape[1], -1)
    groups[: VIEWS * len(members)] = np.tile(np.arange(len(members)), VIEWS)
    as_quantiles = replace(data, columns=np.ascontiguousarray(quantiles(data.columns, knots, levels)))
    settings = config.model_dump()
    taught: dict[str, tuple[int, np.ndarray | None]] = {LABELS: (0, None)}
    if config.trees and len(parts) >= config.fewest_lists:
        from pipelines.learners.boosting import boosted_scores

        taught[TREES] = (config.ramps, boosted_scores(data, config=settings, seed=seed))
    ensembles = {}
    for name, (ramps, scores) in taught.items():
        passes = config.epochs if scores is None else config.tree_epochs
        told = settings | {"epochs": passes}
        learned = train(as_quantiles, groups, config=told, seed=seed, ramps=ramps, scores=scores)
        ensembles[name] = _of_unit_spread(Ensemble(ramps, **learned), as_quantiles.columns, data.start)
    ranker = Ranker(knots, levels, ensembles)
    return Stacking(ranker, tuple(members), _importance(ranker, data.columns, members, draw))


def _of_unit_spread(ensemble: Ensemble, levels: np.ndarray, start: np.ndarray) -> Ensemble:
    """The ensemble with scores that spread by 1 within a list, so that an average counts each alike."""
    rows = slice(0, int(start[np.searchsorted(start, SPREAD_ROWS, "right") - 1]) or int(start[1]))
    scores = ensemble.score(levels[rows])
    first = start[start < rows.stop]
    size = np.diff(np.append(first, rows.stop))
    centred = scores - np.repeat(np.add.reduceat(scores, first) / size, size)
    return ensemble.divided(max(float(np.sqrt((centred**2).mean())), 1e-6))


def _order(window: str) -> tuple[int, str]:
    return (int(window.rsplit("_", 1)[-1]), window) if window.rsplit("_", 1)[-1].isdigit() else (0, window)


def quantile_knots(columns: np.ndarray, count: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Values and their quantiles per column, float32 ``[f, count + 1]``, from a sample of the known numbers.

    Equal values share the middle of their quantiles; the spare places at the end repeat the last knot.
    """
    sample = columns[draw.permutation(len(columns))[:100_000]]
    knots = np.zeros((columns.shape[1], count + 1), np.float32)
    levels = np.full((columns.shape[1], count + 1), 0.5, np.float32)
    for column in range(columns.shape[1]):
        known = sample[:, column][~np.isnan(sample[:, column])]
        if not len(known):
            continue
        at = np.quantile(known, np.linspace(0, 1, count + 1)).astype(np.float32)
        values = np.unique(at)
        middle = (np.searchsorted(at, values, "left") + np.searchsorted(at, values, "right") - 1) / 2 / count
        knots[column], levels[column] = values[-1], middle[-1]
        knots[column, : len(values)], levels[column, : len(values)] = values, middle
    return knots, levels


def _importance(
    ranker: Ranker, columns: np.ndarray, members: Sequence[str], draw: np.random.Generator
) -> dict[str, float]:
    sample = columns[draw.permutation(len(columns))[:5000]]
    base = ranker.score(sample)
    moved = {}
    for place, name in enumerate(members):
        masked = sample.copy()
        masked[:, place : len(members) * VIEWS : len(members)] = np.nan
        moved[name] = float(np.abs(ranker.score(masked) - base).mean())
    total = sum(moved.values()) or 1.0
    return {name: round(value / total, 6) for name, value in moved.items()}


METHOD = Method(config=StackingConfig, fitted=Stacking, fit=fit)
