"""What people chose after the same search, or one like it: the graph that choices draw between queries and items.

Craswell and Szummer 2007, "Random Walks on the Click Graph", with one step to queries of nearly the same terms. The
score is a share with a prior, ``e_i / (prior + sum_j e_j)`` with ``e_i = max over alike queries q of J(q)^2 w(q, i)``,
w the evidence of ``features.history.chosen_after_searches`` and J the Jaccard index of the terms. It lies in [0, 1),
and one person, who counts for at most 1 in every w, lifts it by at most ``1 / (prior + 1)``.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from pydantic import Field

from pipelines.contracts import Surface
from pipelines.model_api import Context, FittedModel, Kind, ModelConfig, Need, TrainingData
from pipelines.search.analysis import Analyzer
from pipelines.storage import read_arrays, read_json, write_arrays, write_json


class ClickGraphConfig(ModelConfig):
    """How much it takes to be believed, and how far a query reaches."""

    prior: float = Field(5.0, gt=0, description="people's choices that count as having said nothing")
    days: float = Field(90.0, gt=0, description="time constant of the decay")
    likeness: float = Field(0.6, gt=0, le=1, description="least Jaccard index of the terms of queries that are alike")


class ClickGraph(FittedModel):
    """Choices by query; no opinion on what was never chosen after a query like this."""

    BOUNDED: ClassVar[bool] = True

    def __init__(
        self, n_items: int, terms: list[list[str]], choices: dict[str, np.ndarray], config: ClickGraphConfig
    ) -> None:
        """Put the graph together.

        Args:
            n_items: of the instant.
            terms: distinct terms of each query.
            choices: ``pointer`` int64 ``[len(terms) + 1]`` into ``items`` int32 and ``evidence`` float32, by query.
            config: of the kind.
        """
        super().__init__(n_items)
        self._terms = terms
        self._choices = choices
        self._config = config
        self._by_term: dict[str, list[int]] = defaultdict(list)
        for query, words in enumerate(terms):
            for word in words:
                self._by_term[word].append(query)

    def score_all(self, context: Context) -> np.ndarray:
        """Shares, float32 ``[n_items]``; NaN for items that nobody chose, and without a query."""
        scores = np.full(self.n_items, np.nan, np.float32)
        if context.query is None or not context.query.terms:
            return scores
        evidence = np.zeros(self.n_items, np.float64)
        for query, weight in self._alike(context.query.terms):
            span = slice(int(self._choices["pointer"][query]), int(self._choices["pointer"][query + 1]))
            items = self._choices["items"][span]
            evidence[items] = np.maximum(evidence[items], weight * self._choices["evidence"][span])
        chosen = evidence > 0
        scores[chosen] = evidence[chosen] / (self._config.prior + evidence.sum())
        return scores

    def _alike(self, terms: tuple[str, ...]) -> list[tuple[int, float]]:
        """Queries of nearly the same terms, in order, with the square of their Jaccard index."""
        common: dict[int, int] = defaultdict(int)
        for term in terms:
            for query in self._by_term.get(term, ()):
                common[query] += 1
        found = []
        for query in sorted(common):
            index = common[query] / (len(terms) + len(self._terms[query]) - common[query])
            if index >= self._config.likeness:
                found.append((query, index * index))
        return found

    def save(self, folder: Path) -> None:
        """Write the arrays and ``click_graph.json``."""
        write_arrays(folder, self._choices)
        about = {"n_items": self.n_items, "terms": self._terms, "config": self._config.model_dump()}
        write_json(folder / "click_graph.json", about)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote."""
        about = read_json(folder / "click_graph.json")
        return cls(about["n_items"], about["terms"], read_arrays(folder), ClickGraphConfig(**about["config"]))


def fit(config: ClickGraphConfig, data: TrainingData, *, seed: int) -> ClickGraph:
    """Count what was chosen after each search; queries with the same terms are one."""
    from pipelines.features import history  # the table engine, which a service has not

    del seed  # nothing is drawn
    analyzer = Analyzer(data.features.language)

    def key(query: str) -> str:
        return " ".join(sorted(set(analyzer.terms(query))))

    keys, items, evidence = history.chosen_after_searches(data.features, key, days=config.days)
    queries = list(dict.fromkeys(keys))
    place = {query: row for row, query in enumerate(queries)}
    counts = np.bincount([place[query] for query in keys], minlength=len(queries))
    choices: dict[str, np.ndarray] = {
        "pointer": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        "items": items.astype(np.int32),
        "evidence": evidence.astype(np.float32),
    }
    return ClickGraph(data.features.n_items, [query.split(" ") for query in queries], choices, config)


KIND = Kind(
    config=ClickGraphConfig,
    fitted=ClickGraph,
    fit=fit,
    needs=frozenset({Need.SEARCHES}),
    surfaces=frozenset({Surface.SEARCH}),
)
