"""Lexical search: BM25 over what a product is called, and over everything that is written about it.

Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", section 3.3, in Lucene's variant,
with ``bm25s`` (Lù 2024, arXiv:2407.03618) as the index. The score is the weighted sum of two legs: title and brand
decide what a product is, the rest finds it at all; a single bag of words would let long descriptions hide titles.
What a term adds to an item's score does not depend on the query, so the sum is made once, in the index.

With ``k1`` 0 a term counts once, by its rarity alone: the share of the question that an item has (a coordination
factor). As a second member beside the usual one it keeps an item that repeats one word of four from the top.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import Field

from pipelines import native
from pipelines.arrays import read_array
from pipelines.contracts import Surface
from pipelines.model_api import Context, FittedModel, Kind, ModelConfig, Need, Proposal, TrainingData, leading
from pipelines.search.analysis import Analyzer
from pipelines.search.documents import written
from pipelines.storage import read_json, write_json

LEGS: dict[str, tuple[str, ...]] = {
    "name": ("brand", "title"),
    "everything": ("brand", "title", "category", "attributes", "description"),
}
"""Columns of the catalogue that each leg reads."""

INDEX, ABOUT = "index", "bm25.json"


class Bm25Config(ModelConfig):
    """Weights of the legs, and BM25's two parameters."""

    name: float = Field(1.0, ge=0, description="weight of title and brand")
    everything: float = Field(1.0, ge=0, description="weight of title, brand, category, attributes and description")
    k1: float = Field(1.5, ge=0, description="how soon further occurrences of a term stop to count")
    b: float = Field(0.75, ge=0, le=1, description="how much a long text counts less")


class Bm25(FittedModel):
    """One index; no opinion on items that share no term with the query."""

    def __init__(self, n_items: int, index: Any | None) -> None:
        """``index``: a ``bm25s.BM25``, of :func:`weighted_sum`; None where no item has a word."""
        super().__init__(n_items)
        self._index = index

    def score_all(self, context: Context) -> np.ndarray:
        """Weighted sum of the legs, float32 ``[n_items]``; NaN without a common term, and without a query."""
        return _said(self._sums(context))

    def propose(self, context: Context, n: int, allowed: np.ndarray | None = None) -> Proposal:
        """The best of the items that have a term; nothing is said of the others."""
        sums = self._sums(context)
        return Proposal(leading(sums, n, allowed, silent=0), lambda codes: _said_of(sums, codes))

    def _sums(self, context: Context) -> np.ndarray:
        """What the terms add up to, float32 ``[n_items]``; 0 without a common one, as every term adds something."""
        known: list[int] = []
        if context.query is not None and self._index is not None:
            places = self._index.vocab_dict
            known = [places[term] for term in context.query.wanted if term in places]
        if not known or self._index is None:
            return np.zeros(self.n_items, np.float32)
        if native.kernels is None:
            sums: np.ndarray = self._index.get_scores_from_ids(known)
            return sums
        out, index = np.empty(self.n_items, np.float32), self._index.scores
        native.kernels.posting_sums(index["indptr"], index["indices"], index["data"], np.array(known, np.int64), out)
        return out

    def save(self, folder: Path) -> None:
        """Write the index into ``index/``, and ``bm25.json``."""
        if self._index is not None:
            self._index.save(folder / INDEX, show_progress=False)
        write_json(folder / ABOUT, {"n_items": self.n_items, "index": self._index is not None})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote, memory-mapped; the two legs of an earlier version are added up."""
        about = read_json(folder / ABOUT)
        if "legs" in about:
            index = weighted_sum({name: _opened(folder / name) for name in about["legs"]}, about["weights"])
        else:
            index = _opened(folder / INDEX) if about["index"] else None
        if index is not None:
            # lexical members hold the same terms; only other ways to ask need the set
            index.vocab_dict = {sys.intern(term): place for term, place in index.vocab_dict.items()}
            index.unique_token_ids_set = set()
        return cls(about["n_items"], index)


def _said(sums: np.ndarray) -> np.ndarray:
    np.putmask(sums, sums == 0, np.float32(np.nan))
    return sums


def _said_of(sums: np.ndarray, codes: np.ndarray) -> np.ndarray:
    if native.kernels is None:
        return _said(sums[codes])
    out = np.empty(len(codes), np.float32)
    native.kernels.opinions(sums, np.ascontiguousarray(codes, np.int64), out)
    return out


def _opened(folder: Path) -> Any:
    import bm25s  # a bundle that does not search needs it not

    index = bm25s.BM25.load(folder, mmap=True, show_progress=False)
    # a slice of np.memmap, which is a class in Python, takes ten times as long as one of an array
    arrays = {name: read_array(folder / f"{name}.csc.index.npy") for name in ("data", "indices", "indptr")}
    index.scores = {**index.scores, **arrays}
    return index


def weighted_sum(legs: Mapping[str, Any], weights: Mapping[str, float]) -> Any | None:
    """One index that says of every term and item what the legs say together.

    Args:
        legs: a ``bm25s.BM25`` by name, of the same items; of those with weight 0 nothing is taken.
        weights: by name.

    Returns:
        A ``bm25s.BM25`` with the terms of all in their order; None where there is no leg with a weight.
    """
    counted = {name: index for name, index in legs.items() if weights[name]}
    if not counted:
        return None
    columns = {name: len(index.scores["indptr"]) - 1 for name, index in counted.items()}
    known = {  # the library may add the empty word behind all others, without a column
        name: [term for term, place in index.vocab_dict.items() if place < columns[name]]
        for name, index in counted.items()
    }
    vocabulary = {term: place for place, term in enumerate(sorted(set().union(*known.values())))}
    n_items = next(iter(counted.values())).scores["num_docs"]
    keys, values = [], []  # of a posting: place of the term times items plus item; what it adds
    for name, index in counted.items():
        places = np.zeros(columns[name], np.int64)
        places[[index.vocab_dict[term] for term in known[name]]] = [vocabulary[term] for term in known[name]]
        keys.append(np.repeat(places, np.diff(index.scores["indptr"])) * n_items + index.scores["indices"])
        values.append(index.scores["data"] * np.float32(weights[name]))
    key, value = np.concatenate(keys), np.concatenate(values)
    order = np.argsort(key, kind="stable")
    key = key[order]
    first = np.flatnonzero(np.diff(key, prepend=-1))
    terms, items = np.divmod(key[first], n_items)
    made = copy(next(reversed(counted.values())))
    made.vocab_dict, made.unique_token_ids_set = vocabulary, set()
    made.scores = {
        "data": np.add.reduceat(value[order], first),
        "indices": items.astype(np.int32),
        "indptr": np.searchsorted(terms, np.arange(len(vocabulary) + 1)),
        "num_docs": n_items,
    }
    return made


def fit(config: Bm25Config, data: TrainingData, *, seed: int) -> Bm25:
    """Index the catalogue as of the instant."""
    del seed  # nothing is drawn
    analyzer = Analyzer(data.features.language)
    terms = {
        name: [analyzer.terms(text) for text in written(data.features.catalog, fields)] for name, fields in LEGS.items()
    }
    return of_terms(config, terms)


def of_terms(config: Bm25Config, legs: Mapping[str, list[list[str]]]) -> Bm25:
    """Index analysed texts: by leg, the terms of every item in code order."""
    import bm25s
    from bm25s.tokenization import Tokenized

    indexes: dict[str, Any] = {}
    for name, terms in legs.items():
        if any(terms):
            indexes[name] = bm25s.BM25(k1=config.k1, b=config.b, method="lucene")
            # its own vocabulary comes in the order of a set, which differs from process to process
            vocabulary = {term: place for place, term in enumerate(sorted({term for row in terms for term in row}))}
            ids = [[vocabulary[term] for term in row] for row in terms]
            indexes[name].index(Tokenized(ids=ids, vocab=vocabulary), show_progress=False)
    n_items = max((len(terms) for terms in legs.values()), default=0)
    return Bm25(n_items, weighted_sum(indexes, {"name": config.name, "everything": config.everything}))


KIND = Kind(
    config=Bm25Config, fitted=Bm25, fit=fit, needs=frozenset({Need.ITEMS}), surfaces=frozenset({Surface.SEARCH})
)
