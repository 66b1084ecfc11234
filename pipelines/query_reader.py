"""From what is typed to a query, and from the beginning of one to what may be meant: all that a catalogue teaches."""

from __future__ import annotations

import functools

import numpy as np

from pipelines.catalogue import Catalogue
from pipelines.features.state import FeatureState
from pipelines.model_api import first_allowed
from pipelines.ranking import Filter
from pipelines.recent import Recent
from pipelines.search.analysis import Analyzer, normalised
from pipelines.search.encoding import QueryEncoder
from pipelines.search.naming import Names
from pipelines.search.negation import parted
from pipelines.search.query import Negation, Query
from pipelines.search.spelling import Speller, words_of
from pipelines.search.suggestions import Beginnings, Suggester, Suggestion, entries

OFFERED_ITEMS = 20_000
"""Items that may be suggested while somebody types: those that sell best."""

KEPT = 10_000
"""Recent queries that are kept as they were read, with their vectors; about 2.5 kB each at 384 numbers."""


class QueryReader:
    """Reads queries by what one catalogue says; thread-safe, each part made at its first use.

    What was read is kept: people ask the same again, and encoding a query is a large part of answering it.
    """

    def __init__(
        self,
        features: FeatureState,
        catalogue: Catalogue,
        encoder: QueryEncoder | None,
        beginnings: Beginnings | None = None,
    ) -> None:
        """Name the parts.

        Args:
            features: as of an instant.
            catalogue: of the same.
            encoder: None where queries have no vector.
            beginnings: of all that may be suggested, where they are made already.
        """
        if beginnings is not None:
            self.beginnings = beginnings
        self._features = features
        self._catalogue = catalogue
        self._encoder = encoder
        self._kept: Recent[tuple[str, str | None], Query] = Recent(KEPT)

    def read(self, text: str) -> Query:
        """What was typed, its slips corrected, analysed as the catalogue was."""
        rewritten = self._speller.corrected(text)
        return self._understood(rewritten or normalised(text), rewritten)

    def relaxed(self, query: Query) -> Query | None:
        """The query with looser words; None when there are none."""
        looser = self._speller.relaxed(query.text)
        return None if looser is None else self._understood(looser, looser)

    def suggestions(self, typed: str, n: int) -> list[Suggestion]:
        """What to offer while somebody types, the most likely first."""
        return self._suggester.complete(typed, n)

    def _understood(self, plain: str, rewritten: str | None) -> Query:
        return self._kept.get((plain, rewritten), lambda: self._analysed(plain, rewritten))

    def _analysed(self, plain: str, rewritten: str | None) -> Query:
        negation = self._negation(plain)
        meant = plain if negation is None else negation.meant
        frequent = [self._features.variants[word] for word in words_of(meant) if word in self._features.variants]
        vector = self._encoder.encode(" ".join([meant, *frequent])) if self._encoder is not None and meant else None
        if vector is not None and not vector.any():  # no word of it has a vector
            vector = None
        terms, named = self._terms(plain), self._names.named_in(meant)
        beside = tuple(term for term in self._terms(" ".join(frequent)) if term not in terms) if frequent else ()
        return Query(plain, terms, vector, rewritten, *named, negation=negation, beside=beside)

    def _negation(self, plain: str) -> Negation | None:
        """What shall not be there; a brand that is called so (``Men Without Hats``) rules nothing out."""
        parts = parted(plain, self._features.language)
        if parts is None:
            return None
        named, beside = self._names.named_in(plain).brands, [self._names.named_in(part).brands for part in parts]
        if set(named) - set().union(*beside):
            return None
        wanted, refused = map(self._terms, parts)
        unwanted = tuple(term for term in refused if term not in wanted)
        return Negation(parts[0], wanted, unwanted) if wanted and unwanted else None

    def _terms(self, text: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self._analyzer.terms(text)))

    @functools.cached_property
    def _analyzer(self) -> Analyzer:
        return Analyzer(self._features.language)

    @functools.cached_property
    def _speller(self) -> Speller:
        return Speller(self._features.words, self._analyzer)

    @functools.cached_property
    def _names(self) -> Names:
        counts = self._catalogue.facets(np.arange(self._features.n_items), ("brand", "category"))
        return Names(dict(counts["brand"]), dict(counts["category"]), self._features.words, self._analyzer)

    @functools.cached_property
    def _suggester(self) -> Suggester:
        return Suggester(self.beginnings, self._speller)

    @functools.cached_property
    def beginnings(self) -> Beginnings:
        """Of all that may be suggested."""
        allowed = self._catalogue.passing(Filter())
        counts = self._catalogue.facets(np.flatnonzero(allowed), ("brand", "category"))
        best = first_allowed(self._catalogue.best_selling, OFFERED_ITEMS, allowed)
        titles = self._features.catalog["title"].take(best).to_pylist()
        items = zip(self._features.item_ids.ids(best.tolist()), titles, strict=True)
        brands, categories = dict(counts["brand"]), dict(counts["category"])
        weighted = entries(
            brands=brands,
            categories=categories,
            phrases=self._features.phrases,
            searched=self._features.searched,
            items=items,
        )
        return Beginnings.of(weighted)
