"""Titles say which phrases people will type; what only stands between words is none."""

from __future__ import annotations

from pipelines.search.phrases import LONGEST, counted

TITLES = [
    "Stainless Steel Water Bottle, 1 l",
    "Water bottle with straw (stainless steel)",
    "Kids water bottle with straw",
    "Red coffee mug with handle",
    "Coffee mug with lid",
    "Coffee Mug, white",
]


def test_words_that_often_stand_together_are_a_phrase_with_its_count() -> None:
    found = counted(TITLES)
    assert found["water bottle"] == found["coffee mug"] == 3
    assert found["stainless steel"] == 2
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_what_is_said_once_is_none() -> None:
    assert not {"handle", "kids water bottle", "red coffee mug"} & set(counted(TITLES))


def test_a_phrase_neither_begins_nor_ends_with_what_only_joins_words() -> None:
    titles = [f"{thing} with {part}" for thing in ("mug", "cup", "jug", "pot") for part in ("lid", "handle", "foot")]
    found = counted([*titles, *(f"box of {n} {thing}s" for n in "abcd" for thing in ("mug", "cup", "jug", "pot"))])
    assert "mug with lid" not in found  # once
    assert not [phrase for phrase in found if phrase.split()[0] == "with" or phrase.split()[-1] in {"with", "of"}]


def test_a_part_that_never_stands_alone_is_a_fragment() -> None:
    found = counted([f"tray {n} iced lolly moulds" for n in "abc"])
    assert "iced lolly moulds" in found
    assert not {"iced lolly", "lolly moulds"} & set(found)


def test_marks_end_a_phrase_and_the_same_title_counts_once() -> None:
    found = counted(["Mug, red", "MUG, RED", "Mug - red", "mug (red)"])
    assert "mug red" not in found
    assert found["mug"] == 3


def test_numbers_alone_and_long_runs_are_none_and_any_script_is_read() -> None:
    found = counted(["набор красных чашек 12", "набор красных чашек 24", "चाय कप 12", "चाय कप 12 लाल", ""])
    assert found["набор красных чашек"] == 2
    assert found["चाय कप"] == 2
    assert not [phrase for phrase in found if phrase[-1].isdigit() or len(phrase.split()) > LONGEST]


def test_no_titles_no_phrases() -> None:
    assert counted([]) == {}
