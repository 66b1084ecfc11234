"""Fitting the query tower at an instant: both tasks together, then what judgments teach its side of the query."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from pipelines.features.state import FeatureState
from pipelines.learners.query_tower_examples import hard_negatives, searches
from pipelines.learners.query_tower_tfrs import SHARPNESS, QueryTower, SearchLessons, train_both
from pipelines.learners.two_tower_fit import START_INPUT, Prepared, assemble, prepare, schedule_of
from pipelines.learners.two_tower_tfrs import Parameters
from pipelines.model_api import best
from pipelines.models.query_tower import FOLDED, JUDGED, QueryTowerConfig, of_fold
from pipelines.search.encoding import QueryEncoder
from pipelines.search.labels import FOLDS, LabelledQuery, fold_of, read_judgments
from pipelines.tuning.examples import Candidates, candidates, padded

LOG = logging.getLogger(__name__)
START_LOGIT = 15.0
"""What a query counts for an item of the same text before anything is learned."""
START_PERSONAL = 0.1
FAR = -1e9


def learn(
    config: QueryTowerConfig,
    features: FeatureState,
    parent: Parameters | None,
    parent_features: FeatureState | None,
    *,
    seed: int,
) -> Parameters:
    """The fitted arrays as of the features' instant.

    Those of ``two_tower_fit.assemble``; ``query`` ``[e, d]`` and ``query_bias`` ``[d]``, and where judgments are known
    both again for each part of the queries (``models.query_tower.of_fold``); ``personal``, ``popularity`` ``[1]``.
    """
    assert features.encoder is not None  # noqa: S101 - the kind refuses without
    assert features.text is not None  # noqa: S101 - the kind needs it
    tf.config.experimental.enable_op_determinism()
    rng = np.random.default_rng(seed)
    if parent is not None and (parent_features is None or parent["user"].shape[0] != config.dimension):
        parent = None
    given = prepare(config, features, rng=rng, parent=parent, parent_features=parent_features)
    found = searches(config, features)
    encoder = QueryEncoder.load(features.encoder)
    assert encoder is not None  # noqa: S101 - the kind refuses without
    width = features.text.shape[1]
    model = QueryTower(_start(given, width, parent, rng), given.frozen.text, given.frozen.price)
    if found.queries:  # those of years ago weigh nothing
        vectors = np.stack([encoder.encode(text) for text in found.queries])
        negatives = hard_negatives(features, found, config.hard_negatives)
        lessons = SearchLessons.of(found, vectors, negatives, each=config.negatives, n_items=features.n_items)
        epochs = config.epochs if parent is None else config.warm_epochs
        every = given.weight > 0
        train_both(
            model,
            (schedule_of(config, given.weight[every], epochs), given.lessons(every)) if every.any() else None,
            (schedule_of(config, found.weight, epochs), lessons),
            rng=rng,
            report=lambda n, bought, chosen: LOG.info(
                "epoch %d of %d: loss of histories %.4f, of searches %.4f", n + 1, epochs, bought, chosen
            ),
        )
    learned = model.parameters()
    learned["query"], learned["query_bias"] = SHARPNESS * learned["query"], SHARPNESS * learned["query_bias"]
    arrays = assemble(learned, given.frozen, given.sold)
    if features.judgments is None:
        return arrays
    judged = _judged(arrays, features, encoder, read_judgments(features.judgments), config.hard_negatives)
    return arrays | taught_by_judgments(config, arrays, judged, parent)


def _start(given: Prepared, width: int, parent: Parameters | None, rng: np.random.Generator) -> Parameters:
    """First values: a query is near the items whose texts mean the same."""
    start = dict(given.start)
    components, d = given.frozen.text.shape[1], start["user"].shape[0]
    if parent is None:
        # orthogonal rows: the inner product of two texts is that of their vectors
        directions, _ = np.linalg.qr(rng.normal(size=(max(components, d), min(components, d))))
        rows = directions if components >= d else directions.T
        start["inputs"][:components] = START_INPUT * rows[:components]
    if parent is not None and "query" in parent and parent["query"].shape == (width, d):
        own = {name: np.array(parent[name]) for name in ("query", "query_bias")}
        own = {name: value / SHARPNESS for name, value in own.items()}
        own |= {name: np.array(parent[name]) for name in ("personal", "popularity")}
    else:
        tied = given.frozen.basis["text_basis"] @ start["inputs"][:components]
        own = {
            "query": START_LOGIT / (SHARPNESS * START_INPUT**2) * tied,
            "query_bias": np.zeros(d),
            "personal": np.array([START_PERSONAL]),
            "popularity": np.zeros(1),
        }
    return start | {name: np.asarray(value, np.float32) for name, value in own.items()}


@dataclass(frozen=True)
class Judged:
    """Judged queries, with the items that are told apart for each, and their ``vectors``, float32 ``[q, e]``."""

    queries: list[Candidates]
    vectors: np.ndarray

    def keep(self, rows: np.ndarray) -> Judged:
        """Only these queries, int64 ``[m]``."""
        return Judged([self.queries[row] for row in rows.tolist()], self.vectors[rows])


def _judged(
    arrays: Parameters, features: FeatureState, encoder: QueryEncoder, labels: Sequence[LabelledQuery], n: int
) -> Judged:
    """Judged items of the catalogue, and below them what the tower itself finds first and nobody judged."""
    queries, vectors = [], []
    for one in labels:
        codes = features.item_ids.codes(list(one.gains)).tolist()
        gains = {code: gain for code, gain in zip(codes, one.gains.values(), strict=True) if code >= 0}
        if max(gains.values(), default=0) > 0:
            vectors.append(encoder.encode(one.key))
            queries.append(candidates(one.key, gains, [best(_scores(arrays, vectors[-1]), n).codes]))
    return Judged(queries, np.array(vectors, np.float32).reshape(-1, arrays["query"].shape[0]))


def taught_by_judgments(
    config: QueryTowerConfig, arrays: Parameters, judged: Judged, parent: Parameters | None
) -> Parameters:
    """What replaces the query's side, and the same without each part of the queries.

    The tower of items stays as it is, so that only a small part of the model is learned once a part of the queries.
    Kept only where the versions order the queries that they have not seen better than the untaught does, by twice the
    standard error; a child of such a fit does as its parent.
    """
    untaught = {JUDGED: np.zeros(1, np.float32)}
    decided = None if parent is None else parent.get(JUDGED)
    if len(judged.queries) < config.least_judged or (decided is not None and not decided.any()):
        return untaught
    taught = _listwise(config, arrays, judged) | {JUDGED: np.ones(1, np.float32)}
    if decided is not None:
        return taught
    folds = np.array([fold_of(query.text) for query in judged.queries])
    gain = []
    for fold in range(FOLDS):
        own = judged.keep(np.flatnonzero(folds == fold))
        version = _listwise(config, arrays, judged.keep(np.flatnonzero(folds != fold)))
        taught |= {of_fold(name, fold): version[name] for name in FOLDED}
        gain.append(_quality(arrays | version, own) - _quality(arrays, own))
    every = np.concatenate(gain)
    error = every.std(ddof=1) / np.sqrt(len(every))
    LOG.info("judgments: nDCG@10 %+.4f (standard error %.4f) on queries that were left out", every.mean(), error)
    return taught if every.mean() > 2 * error else untaught


def _listwise(config: QueryTowerConfig, arrays: Parameters, judged: Judged) -> Parameters:
    """The query's side after steps of Adam on the cross-entropy of the scores' softmax with shares of the gain."""
    codes, shares = padded(judged.queries, np.arange(len(arrays["vectors"])))
    items, asked = tf.constant(arrays["vectors"][codes]), tf.constant(judged.vectors)
    fixed = tf.constant(arrays["popularity"] * arrays["bias"][codes] + FAR * (codes < 0), tf.float32)
    values = {name: tf.Variable(arrays[name]) for name in FOLDED}
    optimizer = tf.keras.optimizers.legacy.Adam(config.judged_rate * float(np.abs(arrays["query"]).mean()))

    @tf.function  # type: ignore[untyped-decorator]
    def step() -> None:
        with tf.GradientTape() as tape:
            vectors = asked @ values["query"] + values["query_bias"]
            logits = tf.einsum("qd,qcd->qc", vectors, items) + fixed
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(shares, logits))
        gradients = tape.gradient(loss, list(values.values()))
        optimizer.apply_gradients(zip(gradients, values.values(), strict=True))

    for _ in range(config.judged_steps):
        step()
    return {name: np.array(value.numpy()) for name, value in values.items()}


def _quality(arrays: Parameters, judged: Judged) -> np.ndarray:
    """nDCG@10 of each judged query over the whole catalogue, float64 ``[q]``."""
    discount = 1 / np.log2(np.arange(2, 12))
    found = np.zeros(len(judged.queries))
    for row, (vector, one) in enumerate(zip(judged.vectors, judged.queries, strict=True)):
        worth = dict(zip(one.codes.tolist(), one.gains.tolist(), strict=True))
        reached = [worth.get(code, 0.0) for code in best(_scores(arrays, vector), 10).codes.tolist()]
        ideal = np.sort(one.gains)[::-1][:10]
        found[row] = discount[: len(reached)] @ np.array(reached) / (discount[: len(ideal)] @ ideal)
    return found


def _scores(arrays: Parameters, vector: np.ndarray) -> np.ndarray:
    """Of all items for a query of a stranger, float32 ``[n_items]``."""
    asked = vector @ arrays["query"] + arrays["query_bias"]
    scores: np.ndarray = arrays["vectors"] @ asked + arrays["popularity"] * arrays["bias"]
    return scores
