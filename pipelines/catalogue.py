"""The catalogue of a bundle as requests see it: which items pass a filter, and how many there are of each value."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence

import numpy as np

from pipelines.attributes import Attributes
from pipelines.contracts import CATEGORY_PATH, MULTI_CATEGORY
from pipelines.features.state import FeatureState
from pipelines.ranking import Filter

FACETS: tuple[str, ...] = ("brand", "category", "available", "price")
"""What the items of any catalogue can be counted by; beside it its own attributes, see :attr:`Catalogue.fields`."""

ATTRIBUTE = "attributes."
"""Stands before the name of an attribute."""

MOST_VALUES = 50
"""Values of an attribute that a count gives."""

PRICE_STEPS = (1.0, 2.0, 5.0)
"""Bounds of price ranges are these times a power of ten."""

MOST_RANGES = 6


class Catalogue:
    """Columns of the items in the form that filters and counts need, each made at its first use."""

    def __init__(self, features: FeatureState, attributes: Attributes | None = None) -> None:
        """``features``: items as of the instant; ``attributes``: of them, where they are made already."""
        self._features = features
        if attributes is not None:
            self.attributes = attributes
        available = features.catalog["available"].fill_null(True)  # noqa: FBT003 - positional in Arrow
        self._available = available.to_numpy(zero_copy_only=False).astype(np.bool_)
        self._available.flags.writeable = False
        self._all_available = bool(self._available.all())

    def passing(self, wanted: Filter) -> np.ndarray:
        """Items that pass a filter, bool ``[n_items]``, not to be changed; the common filter costs nothing."""
        mask = self._available if wanted.available else np.ones(self._features.n_items, np.bool_)
        if wanted.brand is not None:
            mask = mask & (self._brands == wanted.brand)
        if wanted.category is not None:
            parts = [part.strip() for part in wanted.category.split(CATEGORY_PATH.strip())]
            mask = mask & self.within([CATEGORY_PATH.join(parts)])
        price = self._features.items["price"]
        if wanted.price_min is not None:
            mask = mask & (price >= wanted.price_min)
        if wanted.price_max is not None:
            mask = mask & (price <= wanted.price_max)
        for name, values in wanted.attributes:
            mask = mask & self.attributes.having(name, values)
        return mask

    def all_of(self, mask: np.ndarray) -> bool:
        """Whether a mask, bool ``[n_items]``, holds all items; of that of the common filter it is known."""
        return self._all_available if mask is self._available else bool(mask.all())

    @functools.cached_property
    def best_selling(self) -> np.ndarray:
        """All codes, what sells best now first, ties by code; int64."""
        items = self._features.items
        codes = np.arange(self._features.n_items)
        return np.lexsort((codes, -items["bought"], -items["bought_decay30"]))

    def within(self, categories: Sequence[str]) -> np.ndarray:
        """Items in any of these categories or below, bool ``[n_items]``."""
        mask = np.zeros(self._features.n_items, np.bool_)
        for name in categories:
            mask[self._categories.get(name, np.zeros(0, np.int64))] = True
        return mask

    def of_brands(self, brands: Sequence[str]) -> np.ndarray:
        """Items of any of these brands, bool ``[n_items]``."""
        mask = np.zeros(self._features.n_items, np.bool_)
        for brand in brands:
            mask |= self._brands == brand
        return mask

    def paths_of(self, codes: np.ndarray) -> list[str]:
        """The categories that most of these items stand in, without ancestors; several where they are as many."""
        column = self._features.catalog["category"]
        return _most([CATEGORY_PATH.join(parts) for code in codes.tolist() for parts in _paths(column[code].as_py())])

    def brands_of(self, codes: np.ndarray) -> list[str]:
        """The brands that most of these items are of."""
        return _most([brand for brand in self._brands[codes].tolist() if brand])

    def facets(self, codes: np.ndarray, fields: Sequence[str]) -> dict[str, list[tuple[str, int]]]:
        """How many of the items have each value of the fields, most frequent first, ties by name.

        Args:
            codes: int64 ``[m]``, distinct.
            fields: of :attr:`fields`. An item counts for each of its categories and all their ancestors; prices
                count by range, ``5-10``: from 5 on and below 10; of an attribute the :data:`MOST_VALUES` most
                frequent values are given.
        """
        return {field: self._counted(codes, field) for field in fields}

    def _counted(self, codes: np.ndarray, field: str) -> list[tuple[str, int]]:
        if field == "price":
            return self._price_ranges(codes)
        if field == "available":
            found = Counter("true" if self._available[code] else "false" for code in codes.tolist())
        elif field == "brand":
            found = Counter(brand for brand in self._brands[codes].tolist() if brand)
        else:
            inside = np.zeros(self._features.n_items, np.bool_)
            inside[codes] = True
            found = Counter(self._inside(inside, field))
        most = MOST_VALUES if field.startswith(ATTRIBUTE) else None
        return sorted(found.items(), key=lambda one: (-one[1], one[0]))[:most]

    def _inside(self, inside: np.ndarray, field: str) -> dict[str, int]:
        if field.startswith(ATTRIBUTE):
            return self.attributes.counted(field.removeprefix(ATTRIBUTE), inside)
        items, places = self._in_categories
        counts = np.bincount(places[inside[items]], minlength=len(self._categories))
        return {name: count for name, count in zip(self._categories, counts.tolist(), strict=True) if count}

    @property
    def fields(self) -> tuple[str, ...]:
        """What the items of this catalogue can be counted by."""
        return (*FACETS, *(f"{ATTRIBUTE}{name}" for name in self.attributes.names))

    @functools.cached_property
    def attributes(self) -> Attributes:
        """The items' attributes by name and value."""
        return Attributes.of(self._features.catalog["attributes"].to_pylist())

    def _price_ranges(self, codes: np.ndarray) -> list[tuple[str, int]]:
        """Ranges with round bounds from the least to the highest price, in ascending order."""
        prices = self._features.items["price"][codes]
        prices = prices[np.isfinite(prices) & (prices > 0)]
        if not len(prices):
            return []
        tens = range(int(np.floor(np.log10(prices.min()))) - 1, int(np.ceil(np.log10(prices.max()))) + 2)
        bounds = [step * 10.0**power for power in tens for step in PRICE_STEPS]
        low = max(bound for bound in bounds if bound <= prices.min())
        high = min(bound for bound in bounds if bound > prices.max())
        inner = [bound for bound in bounds if low <= bound <= high]
        while len(inner) > MOST_RANGES + 1:
            inner = [*inner[:-1:2], inner[-1]]
        counts, _ = np.histogram(prices, inner)
        spans = zip(inner[:-1], inner[1:], counts.tolist(), strict=True)
        return [(f"{start:g}-{end:g}", count) for start, end, count in spans if count]

    @functools.cached_property
    def _brands(self) -> np.ndarray:
        return np.array(self._features.catalog["brand"].to_pylist(), dtype=object)

    @functools.cached_property
    def _in_categories(self) -> tuple[np.ndarray, np.ndarray]:
        """Codes of items, and beside each the place in ``_categories`` of one that it is in."""
        members = list(self._categories.values())
        places = np.repeat(np.arange(len(members)), [len(one) for one in members])
        return np.concatenate([np.zeros(0, np.int64), *members]), places.astype(np.int64)

    @functools.cached_property
    def _categories(self) -> dict[str, np.ndarray]:
        """Codes by category path, ancestors included."""
        found: dict[str, list[int]] = {}
        for code, written in enumerate(self._features.catalog["category"].to_pylist()):
            for name in _with_ancestors(written):
                found.setdefault(name, []).append(code)
        return {name: np.array(codes, np.int64) for name, codes in found.items()}


@functools.lru_cache(maxsize=10_000)
def _with_ancestors(written: str | None) -> tuple[str, ...]:
    """The distinct categories that an item stands in, and all above them; items of one category write it alike."""
    paths = _paths(written)
    names = (CATEGORY_PATH.join(parts[:depth]) for parts in paths for depth in range(1, len(parts) + 1))
    return tuple(dict.fromkeys(names))


def _paths(written: str | None) -> list[list[str]]:
    """The categories that an item stands in, each as the parts of its path."""
    paths = (path.split(CATEGORY_PATH.strip()) for path in (written or "").split(MULTI_CATEGORY))
    return [parts for path in paths if (parts := [part.strip() for part in path if part.strip()])]


def _most(values: Sequence[str]) -> list[str]:
    """The values that occur most often, in the order of their first occurrence."""
    counts = Counter(values)
    return [value for value, count in counts.items() if count == max(counts.values())]
