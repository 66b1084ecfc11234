"""Ids become codes and come back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.ids import IdIndex

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)


@given(st.sets(text), st.lists(text))
def test_many_ids_have_the_codes_of_each_and_unknown_ones_none(known: set[str], asked: list[str]) -> None:
    index = IdIndex.of(known)
    asked = [*asked, *known]
    codes = index.codes(asked)
    assert codes.dtype == np.int64
    assert codes.tolist() == [index.code(item) for item in asked]
    assert [index[code] if code >= 0 else None for code in codes] == [item if item in known else None for item in asked]


def test_few_ids_of_many_have_the_same_codes_as_all_of_them_read_from_disk(tmp_path: Path) -> None:
    names = [f"item {n:04d}" for n in range(1000)]
    IdIndex.of(names).save(tmp_path, "ids")
    index = IdIndex.load(tmp_path, "ids")
    assert index.codes(names).tolist() == list(range(1000))
    assert index.codes(["item 0500", "nothing"]).tolist() == [500, -1]


def test_lists_of_ids_keep_their_lengths() -> None:
    index = IdIndex.of("abc")
    assert [codes.tolist() for codes in index.codes_of_each([["c", "x"], [], ["a"]])] == [[2, -1], [], [0]]
    assert index.codes_of_each([]) == []
    assert IdIndex.of([]).codes(["a"]).tolist() == [-1]
