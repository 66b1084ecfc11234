"""What requests need of a bundle's catalogue, made once with the bundle and not by each worker at its start.

A catalogue of 43,000 products takes a worker .8 s for its attributes and its suggestions; read back they take .1.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Self

from pipelines.attributes import Attributes
from pipelines.catalogue import Catalogue
from pipelines.features.state import FeatureState
from pipelines.query_reader import QueryReader
from pipelines.search.suggestions import Beginnings

FOLDER = "prepared"
"""Within a bundle; one of an earlier version has none, and its workers make it."""

ATTRIBUTES, SUGGESTIONS = "attributes", "suggestions"


class Prepared(NamedTuple):
    """Made from the features alone, so that it is of one instant with them; no suggestions where nobody searches."""

    attributes: Attributes
    beginnings: Beginnings | None

    @classmethod
    def of(cls, features: FeatureState, *, searched: bool) -> Self:
        """Make it. ``searched``: whether the bundle searches."""
        catalogue = Catalogue(features)
        return cls(catalogue.attributes, QueryReader(features, catalogue, None).beginnings if searched else None)

    def save(self, folder: Path) -> None:
        """Write a folder each."""
        self.attributes.save(folder / ATTRIBUTES)
        if self.beginnings is not None:
            self.beginnings.save(folder / SUGGESTIONS)

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """Read what :meth:`save` wrote, memory-mapped; None where there is none."""
        if not folder.is_dir():
            return None
        suggestions = folder / SUGGESTIONS
        beginnings = Beginnings.load(suggestions) if suggestions.is_dir() else None
        return cls(Attributes.load(folder / ATTRIBUTES), beginnings)
