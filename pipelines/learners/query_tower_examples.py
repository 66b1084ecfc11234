"""What the query tower is taught: (a query, what a history held before it, the item chosen after it)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from pipelines.features import history
from pipelines.features.state import FeatureState
from pipelines.learners.two_tower_examples import SECONDS_A_DAY, Bags, examples
from pipelines.model_api import best
from pipelines.models.query_tower import QueryTowerConfig
from pipelines.search.analysis import Analyzer, normalised
from pipelines.search.documents import written

NAMES = ("title", "brand")
"""Columns of the catalogue that hard negatives are found in."""
MOST_OF_ONE = 20.0
"""Choices that a history counts for at most, however much it searches; those without a history are one."""


@dataclass(frozen=True)
class Searches:
    """Choices after searches, as examples.

    Attributes:
        queries: what was asked, normalised, distinct.
        bags: by pair of a moment and a query: the history strictly before the moment, empty for strangers.
        query: query of each pair, int64 ``[n_pairs]``.
        pair: of each example, ascending, int64 ``[n]``.
        item: chosen, int64 ``[n]``.
        weight: of the example, float64 ``[n]``, > 0.
    """

    queries: list[str]
    bags: Bags
    query: np.ndarray
    pair: np.ndarray
    item: np.ndarray
    weight: np.ndarray


def searches(config: QueryTowerConfig, features: FeatureState) -> Searches:
    """Cut the log into examples.

    A history counts once for a query and an item, by its strongest event: the root of the strength (a purchase 1, a
    look .32), decayed by age; and all that it chose for at most :data:`MOST_OF_ONE`. Of too many queries the rarest go.
    """
    rows, typed = history.interactions_with_queries(features)
    texts = [normalised(text) for text in typed]
    places = {text: place for place, text in enumerate(sorted({text for text in texts if text}))}
    code = np.array([places.get(text, -1) for text in texts] + [-1])  # the last is for rows without a query
    query = code[rows["query"]]
    strangers = np.where(rows["user"] < 0, features.n_users + np.arange(len(query)), rows["user"])
    cut = examples(
        rows | {"user": strangers},
        features.time.timestamp(),
        history_items=config.history_items,
        history_days=config.history_decay_days,
        example_days=config.search_decay_days,
        teaching=(query >= 0) & (rows["strength"] > 0),
        strangers=True,
    )
    age = (features.time.timestamp() - rows["time"][cut.row]) / SECONDS_A_DAY
    weight = np.sqrt(rows["strength"][cut.row].astype(np.float64)) * np.exp(-age / config.search_decay_days)
    asked, person = query[cut.row], rows["user"][cut.row]
    kept = _strongest(person, asked, cut.item, weight)
    weight[kept] *= np.minimum(1.0, MOST_OF_ONE / np.bincount(person[kept] + 1, weight[kept])[person[kept] + 1])
    total = np.bincount(asked[kept], weight[kept], len(places))
    frequent = np.lexsort((np.arange(len(places)), -total))[: config.max_queries]
    kept = kept[np.isin(asked[kept], frequent)]
    pairs, pair = np.unique(cut.context[kept] * len(places) + asked[kept], return_inverse=True)
    order = np.argsort(pair, kind="stable")
    kept, pair = kept[order], pair[order]
    left, query_of_pair = np.unique(pairs % max(len(places), 1), return_inverse=True)
    names = list(places)
    return Searches(
        [names[place] for place in left],
        cut.bags.take(pairs // max(len(places), 1)),
        query_of_pair,
        pair,
        cut.item[kept],
        weight[kept],
    )


def _strongest(person: np.ndarray, query: np.ndarray, item: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Rows with the largest weight of each person, query and item, ascending."""
    order = np.lexsort((-weight, item, query, person))
    columns = np.stack([person, query, item])[:, order]
    first = np.append(True, (columns[:, 1:] != columns[:, :-1]).any(axis=0))[: len(order)]
    return np.sort(order[first])


@dataclass(frozen=True)
class HardNegatives:
    """Items that words find for a query and that nobody chose: ``items`` int64 by ``pointer`` int64 ``[q + 1]``."""

    pointer: np.ndarray
    items: np.ndarray

    def draw(self, query: np.ndarray, each: int, rng: np.random.Generator) -> np.ndarray:
        """``each`` an example with replacement, int64 ``[<= each * b]``; none where a query has none."""
        asked = np.repeat(query, each)
        count = np.diff(self.pointer)[asked]
        drawn = self.pointer[asked] + (rng.random(len(asked)) * count).astype(np.int64)
        found: np.ndarray = self.items[drawn[count > 0]]
        return found

    def expected(self, weight: np.ndarray, each: int, n_items: int) -> np.ndarray:
        """How often each item is drawn for an example, float64 ``[n_items]``; ``weight`` of each query ``[q]``."""
        count = np.diff(self.pointer)
        of_item = np.repeat(weight / max(weight.sum(), 1e-12) / np.maximum(count, 1), count)
        drawn: np.ndarray = each * np.bincount(self.items, of_item, n_items)
        return drawn


def hard_negatives(features: FeatureState, given: Searches, n: int) -> HardNegatives:
    """The first ``n`` that the words of titles and brands find for each query, without what was chosen after it."""
    import bm25s

    analyzer = Analyzer(features.language)
    index = bm25s.BM25(method="lucene")
    index.index([analyzer.terms(text) for text in written(features.catalog, NAMES)], show_progress=False)
    chosen = defaultdict(set)
    for query, item in zip(given.query[given.pair].tolist(), given.item.tolist(), strict=True):
        chosen[query].add(item)
    found = [np.zeros(0, np.int64)]
    for place, text in enumerate(given.queries):
        known = [index.vocab_dict[term] for term in dict.fromkeys(analyzer.terms(text)) if term in index.vocab_dict]
        scores = index.get_scores_from_ids(known) if known else np.zeros(features.n_items, np.float32)
        codes = best(np.where(scores > 0, scores, np.float32(np.nan)), n).codes
        found.append(codes[~np.isin(codes, list(chosen[place]))])
    return HardNegatives(np.cumsum([len(codes) for codes in found]), np.concatenate(found))
