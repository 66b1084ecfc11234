"""What is written about each item, as lexical search and spelling read it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pyarrow as pa

from pipelines.contracts import CATEGORY_PATH, MULTI_CATEGORY


def written(catalog: pa.Table, fields: Sequence[str]) -> list[str]:
    """The texts of some columns of the catalogue, one an item in its order, empty where there is nothing.

    Parts of category paths count as words of their own; of attributes the values do, their names do not.
    """
    columns = [[_plain(name, value) for value in catalog[name].to_pylist()] for name in fields]
    return [" \n ".join(filter(None, row)) for row in zip(*columns, strict=True)]


def _plain(name: str, value: str | None) -> str:
    if not value:
        return ""
    if name == "category":
        return value.replace(MULTI_CATEGORY, " ").replace(CATEGORY_PATH.strip(), " ")
    if name == "attributes":
        return " ".join(str(one) for one in json.loads(value).values() if isinstance(one, str | int | float))
    return value
