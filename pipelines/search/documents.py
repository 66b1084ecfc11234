"""What the catalogue says of each item, as search reads it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipelines.contracts import CATEGORY_PATH, MULTI_CATEGORY


def written(catalog: pa.Table, fields: Sequence[str]) -> list[str]:
    """The texts of some columns of the catalogue, one an item in its order, empty where there is nothing.

    Parts of category paths count as words of their own; of attributes the values do, their names do not.
    """
    columns = [[_plain(name, value) for value in catalog[name].to_pylist()] for name in fields]
    return [" \n ".join(filter(None, row)) for row in zip(*columns, strict=True)]


def first_categories(catalog: pa.Table) -> tuple[np.ndarray, int]:
    """Number of each item's first category, int32 ``[n_items]``, -1 without one; and how many there are."""
    paths = [(value or "").split(MULTI_CATEGORY)[0].strip() for value in catalog["category"].to_pylist()]
    number = {path: place for place, path in enumerate(sorted(set(paths) - {""}))}
    return np.array([number.get(path, -1) for path in paths], np.int32), len(number)


def _plain(name: str, value: str | None) -> str:
    if not value:
        return ""
    if name == "category":
        return value.replace(MULTI_CATEGORY, " ").replace(CATEGORY_PATH.strip(), " ")
    if name == "attributes":
        return " ".join(str(one) for one in json.loads(value).values() if isinstance(one, str | int | float))
    return value
