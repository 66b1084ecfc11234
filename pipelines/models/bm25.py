"""Lexical search: BM25 over what a product is called, and over everything that is written about it.

Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", section 3.3, in Lucene's variant,
with ``bm25s`` (Lù 2024, arXiv:2407.03618) as the index. The score is the weighted sum of two legs: title and brand
decide what a product is, the rest finds it at all; a single bag of words would let long descriptions hide titles.

With ``k1`` 0 a term counts once, by its rarity alone: the share of the question that an item has (a coordination
factor). As a second member beside the usual one it keeps an item that repeats one word of four from the top.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import Field

from pipelines.contracts import Surface
from pipelines.model_api import Context, FittedModel, Kind, ModelConfig, Need, TrainingData
from pipelines.search.analysis import Analyzer
from pipelines.search.documents import written
from pipelines.storage import read_json, write_json

LEGS: dict[str, tuple[str, ...]] = {
    "name": ("brand", "title"),
    "everything": ("brand", "title", "category", "attributes", "description"),
}
"""Columns of the catalogue that each leg reads."""


class Bm25Config(ModelConfig):
    """Weights of the legs, and BM25's two parameters."""

    name: float = Field(1.0, ge=0, description="weight of title and brand")
    everything: float = Field(1.0, ge=0, description="weight of title, brand, category, attributes and description")
    k1: float = Field(1.5, ge=0, description="how soon further occurrences of a term stop to count")
    b: float = Field(0.75, ge=0, le=1, description="how much a long text counts less")


class Bm25(FittedModel):
    """An index a leg; no opinion on items that share no term with the query."""

    def __init__(self, n_items: int, legs: Mapping[str, Any], weights: Mapping[str, float]) -> None:
        """``legs``: a ``bm25s.BM25`` by name of :data:`LEGS`; those whose fields hold no word are left out."""
        super().__init__(n_items)
        self._legs = dict(legs)
        self._weights = dict(weights)

    def score_all(self, context: Context) -> np.ndarray:
        """Weighted sum of the legs, float32 ``[n_items]``; NaN without a common term, and without a query."""
        scores: np.ndarray | None = None
        terms = () if context.query is None else context.query.wanted
        for name, index in self._legs.items():
            known = [index.vocab_dict[term] for term in terms if term in index.vocab_dict]
            if known and self._weights[name]:
                leg = index.get_scores_from_ids(known)
                leg *= np.float32(self._weights[name])
                scores = leg if scores is None else np.add(scores, leg, out=leg)
        if scores is None:
            return np.full(self.n_items, np.nan, np.float32)
        np.putmask(scores, scores == 0, np.float32(np.nan))
        return scores

    def save(self, folder: Path) -> None:
        """Write each leg's index into a folder of its own, and ``bm25.json``."""
        for name, index in self._legs.items():
            index.save(folder / name, show_progress=False)
        write_json(folder / "bm25.json", {"n_items": self.n_items, "legs": list(self._legs), "weights": self._weights})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote, memory-mapped."""
        import bm25s  # takes scipy along where that is installed; a bundle that does not search needs neither

        about = read_json(folder / "bm25.json")
        legs = {name: bm25s.BM25.load(folder / name, mmap=True, show_progress=False) for name in about["legs"]}
        for index in legs.values():
            # a slice of np.memmap, which is a class in Python, takes ten times as long as one of an array
            mapped = {name: np.asarray(part) for name, part in index.scores.items() if isinstance(part, np.memmap)}
            index.scores = {**index.scores, **mapped}
            # both legs of all lexical members hold nearly the same terms; only other ways to ask need the set
            index.vocab_dict = {sys.intern(term): place for term, place in index.vocab_dict.items()}
            index.unique_token_ids_set = set()
        return cls(about["n_items"], legs, about["weights"])


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
    return Bm25(n_items, indexes, {"name": config.name, "everything": config.everything})


KIND = Kind(
    config=Bm25Config, fitted=Bm25, fit=fit, needs=frozenset({Need.ITEMS}), surfaces=frozenset({Surface.SEARCH})
)
