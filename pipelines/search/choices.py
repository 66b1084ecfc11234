"""What people chose after searches, by query: evidence that nobody decides alone.

Evidence of a query for a code is the number of people who chose it after the query, each counting for at most 1
(``features.history.chosen_after_searches``). What was chosen after a query of nearly the same terms counts with the
square of the Jaccard index of the terms; of several such queries the strongest counts, so that one person, who may
search in many ways, still counts for at most 1.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np

from pipelines.arrays import read_arrays, write_arrays
from pipelines.storage import read_json, write_json

QUERIES = "queries.json"


class Choices:
    """Read-only, thread-safe."""

    def __init__(self, n_codes: int, terms: Sequence[Sequence[str]], rows: dict[str, np.ndarray]) -> None:
        """Put the evidence together.

        Args:
            n_codes: codes of what can be chosen lie in [0, n_codes).
            terms: distinct terms of each query.
            rows: ``pointer`` int64 ``[len(terms) + 1]`` into ``codes`` int32 and ``evidence`` float32, by query.
        """
        self.n_codes = n_codes
        self._terms = [list(one) for one in terms]
        self._rows = rows
        self._by_term: dict[str, list[int]] = defaultdict(list)
        for query, words in enumerate(self._terms):
            for word in words:
                self._by_term[word].append(query)

    @classmethod
    def of(cls, n_codes: int, keys: Sequence[str], codes: np.ndarray, evidence: np.ndarray) -> Self:
        """From rows of (terms joined by blanks, code, evidence); rows of the same query are adjacent."""
        queries = list(dict.fromkeys(keys))
        place = {query: row for row, query in enumerate(queries)}
        counts = np.bincount([place[query] for query in keys], minlength=len(queries))
        rows: dict[str, np.ndarray] = {
            "pointer": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            "codes": codes.astype(np.int32),
            "evidence": evidence.astype(np.float32),
        }
        return cls(n_codes, [query.split(" ") for query in queries], rows)

    def shares(self, terms: Sequence[str], *, prior: float, likeness: float) -> np.ndarray:
        """Share of the people who chose each code, float32 ``[n_codes]`` in [0, 1), NaN for what nobody chose.

        Args:
            terms: of the query, distinct.
            prior: people who count as having chosen nothing; one person moves a share by at most 1 / (prior + 1).
            likeness: least Jaccard index of queries that are alike.
        """
        evidence = np.zeros(self.n_codes, np.float64)
        for query, weight in self._alike(terms, likeness):
            span = slice(int(self._rows["pointer"][query]), int(self._rows["pointer"][query + 1]))
            codes = self._rows["codes"][span]
            evidence[codes] = np.maximum(evidence[codes], weight * self._rows["evidence"][span])
        shares = np.full(self.n_codes, np.nan, np.float32)
        chosen = evidence > 0
        shares[chosen] = evidence[chosen] / (prior + evidence.sum())
        return shares

    def _alike(self, terms: Sequence[str], likeness: float) -> list[tuple[int, float]]:
        """Queries of nearly the same terms, in order, with the square of their Jaccard index."""
        common: dict[int, int] = defaultdict(int)
        for term in terms:
            for query in self._by_term.get(term, ()):
                common[query] += 1
        found = []
        for query in sorted(common):
            index = common[query] / (len(terms) + len(self._terms[query]) - common[query])
            if index >= likeness:
                found.append((query, index * index))
        return found

    def save(self, folder: Path) -> None:
        """Write the arrays and :data:`QUERIES`."""
        write_arrays(folder, self._rows)
        write_json(folder / QUERIES, {"n_codes": self.n_codes, "terms": self._terms})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote."""
        about = read_json(folder / QUERIES)
        return cls(about["n_codes"], about["terms"], read_arrays(folder))
