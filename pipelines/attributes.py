"""Attributes of the items by name and value, as filters and facets ask for them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from pipelines.arrays import read_arrays, write_arrays
from pipelines.search.analysis import normalised
from pipelines.storage import read_json, write_json

LONGEST = 200
"""Characters of a value; longer ones are texts and not values."""


@dataclass(frozen=True)
class Attribute:
    """Who has which value of one attribute; an item may have several.

    Attributes:
        shown: the values as most items write them, by code.
        codes: code of each value by its normalised text.
        items: int32 ``[n]``.
        values: int32 ``[n]``, codes of the items' values.
    """

    shown: tuple[str, ...]
    codes: Mapping[str, int]
    items: np.ndarray
    values: np.ndarray


class Attributes:
    """All attributes of a catalogue; eight bytes for each value of an item."""

    def __init__(self, by_name: Mapping[str, Attribute], n_items: int) -> None:
        """``by_name``: in the order of the alphabet."""
        self._by_name = dict(by_name)
        self._n_items = n_items

    @classmethod
    def of(cls, written: Sequence[str | None]) -> Self:
        """From the JSON objects of the items, in code order; nested objects are left out."""
        rows: dict[str, tuple[list[int], list[str]]] = {}
        for code, one in enumerate(written):
            for name, value in _pairs(one):
                items, texts = rows.setdefault(name, ([], []))
                items.append(code)
                texts.append(value)
        return cls({name: _attribute(*rows[name]) for name in sorted(rows)}, len(written))

    def save(self, folder: Path) -> None:
        """Write ``attributes.json``, and ``items`` and ``values`` of one attribute after those of another."""
        several = self._by_name.values()
        nothing = np.zeros(0, np.int32)
        arrays = {
            "items": np.concatenate([nothing, *(one.items for one in several)]),
            "values": np.concatenate([nothing, *(one.values for one in several)]),
        }
        write_arrays(folder, arrays)
        about = {name: [len(one.items), one.shown, list(one.codes)] for name, one in self._by_name.items()}
        write_json(folder / "attributes.json", {"n_items": self._n_items, "attributes": about})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote; who has which value stays memory-mapped."""
        about, arrays = read_json(folder / "attributes.json"), read_arrays(folder)
        by_name, start = {}, 0
        for name, (n, shown, keys) in about["attributes"].items():
            span = slice(start, start := start + n)
            codes = {key: code for code, key in enumerate(keys)}
            by_name[name] = Attribute(tuple(shown), codes, arrays["items"][span], arrays["values"][span])
        return cls(by_name, about["n_items"])

    @property
    def names(self) -> tuple[str, ...]:
        """Of the attributes, in the order of the alphabet."""
        return tuple(self._by_name)

    def having(self, name: str, values: Iterable[str]) -> np.ndarray:
        """Items with any of these values, however they are spelt in case and width, bool ``[n_items]``."""
        mask = np.zeros(self._n_items, np.bool_)
        if (one := self._by_name.get(name)) is not None:
            wanted = [one.codes.get(normalised(value), -1) for value in values]
            mask[one.items[np.isin(one.values, wanted)]] = True
        return mask

    def counted(self, name: str, inside: np.ndarray) -> dict[str, int]:
        """How many of the items that ``inside`` marks, bool ``[n_items]``, have each value; none without an item."""
        one = self._by_name[name]
        counts = np.bincount(one.values[inside[one.items]], minlength=len(one.shown))
        return {one.shown[code]: int(counts[code]) for code in np.flatnonzero(counts).tolist()}


def value_text(value: str | float) -> str:
    """A value as text: ``true``, ``12``, ``4.5``, ``red``."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value.strip()
    return str(int(value)) if float(value).is_integer() else repr(value)


def _pairs(written: str | None) -> Iterator[tuple[str, str]]:
    """Distinct names and values of one item."""
    about: Any = json.loads(written) if written else {}
    for name, value in about.items() if isinstance(about, dict) else ():
        several = value if isinstance(value, list) else [value]
        texts = (value_text(one) for one in several if isinstance(one, str | int | float))
        yield from ((name, text) for text in dict.fromkeys(texts) if 0 < len(text) <= LONGEST)


def _attribute(items: Sequence[int], texts: Sequence[str]) -> Attribute:
    """From codes of items and, beside each, a value as it is written."""
    written = Counter(texts)  # in the order of their first occurrence
    spelt: dict[str, list[str]] = {}
    for text in written:
        spelt.setdefault(normalised(text), []).append(text)
    codes = {key: code for code, key in enumerate(spelt)}
    code_of = {text: code for code, several in enumerate(spelt.values()) for text in several}
    values = np.fromiter(map(code_of.__getitem__, texts), np.int64, len(texts))
    pairs = np.unique(np.asarray(items, np.int64) * len(codes) + values)
    shown = tuple(max(several, key=written.__getitem__) for several in spelt.values())
    return Attribute(shown, codes, *(part.astype(np.int32) for part in divmod(pairs, len(codes))))
