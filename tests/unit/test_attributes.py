"""What a shop writes of its items beside the usual columns can be filtered and counted by."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipelines.attributes import LONGEST, Attributes, value_text

ITEMS = [
    {"color": "Red", "size": 12, "new": True},
    {"color": ["red ", "Blue", "red"], "size": 12.0},
    {"color": "\uff22\uff2c\uff35\uff25", "note": "x" * (LONGEST + 1), "nested": {"a": 1}, "empty": "", "none": None},
    None,
    {"color": "red", "size": 4.5, "new": False},
]


@pytest.fixture(scope="module")
def attributes() -> Attributes:
    return Attributes.of([one and json.dumps(one) for one in ITEMS])


def having(attributes: Attributes, name: str, *values: str) -> list[int]:
    return np.flatnonzero(attributes.having(name, values)).tolist()


def test_what_was_saved_filters_and_counts_the_same(attributes: Attributes, tmp_path: Path) -> None:
    attributes.save(tmp_path)
    again = Attributes.load(tmp_path)
    assert again.names == attributes.names
    for name in attributes.names:
        inside = np.array([True, True, False, True, True])
        assert again.counted(name, inside) == attributes.counted(name, inside)
        for value in ("RED", "blue", "12", "4.5", "true", "nothing"):
            assert having(again, name, value) == having(attributes, name, value)


def test_a_catalogue_without_attributes_is_saved_too(tmp_path: Path) -> None:
    Attributes.of([None, None]).save(tmp_path)
    again = Attributes.load(tmp_path)
    assert again.names == ()
    assert having(again, "color", "red") == []


def test_names_are_those_that_have_a_value(attributes: Attributes) -> None:
    assert attributes.names == ("color", "new", "size")


def test_a_value_is_known_however_it_is_spelt_and_of_several_one_is_enough(attributes: Attributes) -> None:
    assert having(attributes, "color", "RED") == [0, 1, 4]
    assert having(attributes, "color", "blue") == [1, 2]
    assert having(attributes, "color", "blue", "red") == [0, 1, 2, 4]
    assert having(attributes, "size", "12") == [0, 1]
    assert having(attributes, "new", "true") == [0]


def test_what_nobody_has_nobody_has(attributes: Attributes) -> None:
    assert (
        having(attributes, "color", "green") == having(attributes, "weight", "1") == having(attributes, "color") == []
    )


def test_an_item_counts_once_for_each_of_its_values_under_the_usual_spelling(attributes: Attributes) -> None:
    everything = np.ones(len(ITEMS), np.bool_)
    assert attributes.counted("color", everything) == {"red": 3, "Blue": 2}
    assert attributes.counted("size", everything) == {"12": 2, "4.5": 1}
    assert attributes.counted("color", ~everything) == {}


@pytest.mark.parametrize(
    ("value", "text"), [(True, "true"), (3, "3"), (3.0, "3"), (0.5, "0.5"), (" a ", "a"), (float("inf"), "inf")]
)
def test_values_are_texts(value: float | str, text: str) -> None:
    assert value_text(value) == text


@pytest.mark.parametrize("written", [[], [None], ["[]", "3", "null"]])
def test_a_catalogue_without_attributes_has_none(written: list[str | None]) -> None:
    assert Attributes.of(written).names == ()
