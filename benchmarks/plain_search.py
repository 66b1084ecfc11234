"""Plain search systems as anyone would begin, for the rows that a better one has to be compared with.

BM25 (k1 1.5, b .75, ``bm25s``) over words of two letters and more in Snowball's English stems: of brand and title, of
all fields, and their sum; and all-MiniLM-L6-v2 on brand and title by cosine. Nothing of the product's own analysis of
words, of its slips, negations or fusion is in them.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import Stemmer

from pipelines.adapters import onnx_export
from pipelines.adapters.encoder import TextEncoder
from pipelines.evaluation import metrics, protocol
from pipelines.evaluation.targets import Audience
from pipelines.features.state import FeatureState, UserHistory
from pipelines.model_api import Context, best
from pipelines.models.bm25 import LEGS, Bm25, Bm25Config, of_terms
from pipelines.search.documents import written
from pipelines.search.encoding import NetworkEncoder
from pipelines.search.query import Query

WORD = re.compile(r"(?u)\b\w\w+\b")

ROWS: dict[str, Bm25Config] = {
    "plain BM25, brand + title": Bm25Config(name=1, everything=0),
    "plain BM25, all fields": Bm25Config(name=0, everything=1),
    "sum of the two": Bm25Config(name=1, everything=1),
}
MEANING = "MiniLM on brand + title, cosine"
MAX_TOKENS = 64


def measured(features: FeatureState, audience: Audience) -> dict[str, dict[str, np.ndarray]]:
    """Metrics of every query by row."""
    stemmer = Stemmer.Stemmer("english")

    def terms(text: str) -> list[str]:
        stems: list[str] = stemmer.stemWords(WORD.findall(text.lower()))
        return stems

    legs = {name: [terms(text) for text in written(features.catalog, fields)] for name, fields in LEGS.items()}
    scorers = {name: _by_words(of_terms(config, legs), terms) for name, config in ROWS.items()}
    with tempfile.TemporaryDirectory() as scratch:
        encoder = NetworkEncoder(_network(Path(scratch) / "network"))
        items = np.stack([encoder.encode(text) for text in written(features.catalog, LEGS["name"])])
        scorers[MEANING] = lambda query: items @ encoder.encode(query)
        return {name: _scored(scorer, audience, features.n_items) for name, scorer in scorers.items()}


def _network(into: Path) -> Path:
    """all-MiniLM-L6-v2 as it is."""
    encoder = TextEncoder("all-MiniLM-L6-v2", MAX_TOKENS, batch_size=1)
    return onnx_export.write_exact(Path(encoder.source), into, max_tokens=MAX_TOKENS)


def _by_words(index: Bm25, terms: Callable[[str], list[str]]) -> Callable[[str], np.ndarray]:
    def score(query: str) -> np.ndarray:
        asked = Query(query, tuple(dict.fromkeys(terms(query))))
        return index.score_all(Context(UserHistory.empty(), "search", asked))

    return score


def _scored(scorer: Callable[[str], np.ndarray], audience: Audience, n_items: int) -> dict[str, np.ndarray]:
    codes = np.full((len(audience), metrics.SEARCH_LENGTH), -1, np.int64)
    for row, query in enumerate(audience.typed):
        found = best(scorer(query), metrics.SEARCH_LENGTH).codes
        codes[row, : len(found)] = found
    return protocol.scored(codes, audience, n_items)
