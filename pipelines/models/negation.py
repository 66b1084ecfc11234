"""What a search rules out: items whose title has it go down, those that say they lack it come up.

``belt without buckle`` is searched as ``belt`` (``pipelines.search.negation``); this member says of what was found
whether the title speaks of a buckle. A title that is silent is no opinion.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from pydantic import Field

from pipelines.arrays import read_arrays, write_arrays
from pipelines.contracts import Surface
from pipelines.features.state import FeatureState
from pipelines.ids import IdIndex
from pipelines.model_api import (
    Candidates,
    Context,
    FittedModel,
    Kind,
    ModelConfig,
    Need,
    Proposal,
    TrainingData,
    silence,
)
from pipelines.search.analysis import Analyzer
from pipelines.search.documents import written
from pipelines.search.negation import LANGUAGES, Reader
from pipelines.storage import read_json, write_json

TERMS, ABOUT, TITLES = "terms", "negation.json", "titles"


class NegationConfig(ModelConfig):
    """How loud it is beside a fused score, which spans 1.5 from the least to the best of a list."""

    lift: float = Field(0.3, gt=0, description="what a title with all of the unwanted loses, and one without gains")


class Negation(FittedModel):
    """Terms of titles with the items that have or lack them; scores lie in [-lift, lift].

    A score is ``lift`` times the mean over the unwanted terms of -1 (the title has it), 1 (the title says that it lacks
    it) and 0 (it is silent), weighted by how rare a term is.
    """

    BOUNDED: ClassVar[bool] = True
    by_meaning: ClassVar[bool] = True

    def __init__(self, n_items: int, terms: IdIndex, titles: dict[str, np.ndarray], config: NegationConfig) -> None:
        """Name the index.

        Args:
            n_items: of the instant.
            terms: of all titles.
            titles: ``pointer`` int64 ``[n_terms + 1]`` into ``items`` int32 and ``says`` int8, 1 where the item lacks
                the term and -1 where it has it.
            config: of the kind.
        """
        super().__init__(n_items)
        self._terms = terms
        self._titles = titles
        self._config = config

    def score_all(self, context: Context) -> np.ndarray:
        """Float32 ``[n_items]``; NaN where the title is silent, and where nothing is ruled out."""
        scores = np.full(self.n_items, np.nan, np.float32)
        total = np.float32(0.0)
        for term in context.query.unwanted if context.query is not None else ():
            code = self._terms.code(term)
            low, high = self._titles["pointer"][code : code + 2].tolist() if code >= 0 else (0, 0)
            weight = np.float32(np.log((self.n_items + 1) / (high - low + 1)))
            items = self._titles["items"][low:high]
            scores[items] = np.nan_to_num(scores[items]) + weight * self._titles["says"][low:high]
            total += weight
        if total:
            scores *= np.float32(self._config.lift) / total
        return scores

    def candidates(self, context: Context, n: int, allowed: np.ndarray | None = None) -> Candidates:
        """Nothing: to lack something is no reason to be found."""
        del context, n, allowed
        return Candidates(np.zeros(0, np.int64), np.zeros(0, np.float32))

    def propose(self, context: Context, n: int, allowed: np.ndarray | None = None) -> Proposal:
        """No candidate, and an opinion on those of others where something is ruled out."""
        del n, allowed
        says = context.query is not None and context.query.unwanted
        return Proposal(np.zeros(0, np.int64), self.score_all(context).__getitem__ if says else silence)

    def save(self, folder: Path) -> None:
        """Write the terms, ``titles/`` and ``negation.json``."""
        self._terms.save(folder, TERMS)
        (folder / TITLES).mkdir()
        write_arrays(folder / TITLES, self._titles)
        write_json(folder / ABOUT, {"n_items": self.n_items, **self._config.model_dump()})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote, memory-mapped."""
        about = read_json(folder / ABOUT)
        n_items = about.pop("n_items")
        return cls(n_items, IdIndex.load(folder, TERMS), read_arrays(folder / TITLES), NegationConfig(**about))


def fit(config: NegationConfig, data: TrainingData, *, seed: int) -> Negation:
    """Read the titles of the catalogue as of the instant."""
    del seed  # nothing is drawn
    reader = Reader.of(Analyzer(data.features.language))
    said: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for item, title in enumerate(written(data.features.catalog, ["title"])):
        for term, has in reader.has(title).items():
            said[term].append((item, -1 if has else 1))
    terms = IdIndex.of(said)
    postings = [said[term] for term in terms.ids()]
    pointer = np.cumsum([0, *map(len, postings)], dtype=np.int64)
    flat = np.array([pair for one in postings for pair in one], np.int32).reshape(-1, 2)
    titles: dict[str, np.ndarray] = {"pointer": pointer, "items": flat[:, 0].copy(), "says": flat[:, 1].astype(np.int8)}
    return Negation(data.features.n_items, terms, titles, config)


def _refused(features: FeatureState) -> str | None:
    if features.language in LANGUAGES:
        return None
    return f"text.language is {features.language}; negations are known in {', '.join(LANGUAGES)}"


KIND = Kind(
    config=NegationConfig,
    fitted=Negation,
    fit=fit,
    needs=frozenset({Need.ITEMS}),
    surfaces=frozenset({Surface.SEARCH}),
    refusing=_refused,
)
