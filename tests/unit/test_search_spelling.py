"""A slip is corrected by the catalogue's own words; what the catalogue has is never touched."""

from __future__ import annotations

import random

import pytest
from rapidfuzz.distance import OSA

from pipelines.search.analysis import Analyzer
from pipelines.search.item_words import ItemWords
from pipelines.search.spelling import Speller, counted

NAMES = ["Kitchen scissors", "Kitchen towel, red", "Basketball", "Kettle", "Kitten bowl", "Café mug"]
EVERYTHING = [*NAMES, "A stainles thing", "dishwasher safe", "safe in the dishwasher"]


@pytest.fixture(scope="module")
def speller() -> Speller:
    return Speller(counted(NAMES, ItemWords.of(EVERYTHING).counts), Analyzer("english"))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("kichen towel", "kitchen towel"),
        ("kitchne scissors", "kitchen scissors"),
        ("Kitchen Scisssors", "kitchen scissors"),
        ("baskeetbal", "basketball"),
        ("dishwaser", "dishwasher"),
        ("itchen", "kitchen"),
    ],
)
def test_a_slip_is_corrected(speller: Speller, typed: str, meant: str) -> None:
    assert speller.corrected(typed) == meant


@pytest.mark.parametrize(
    "typed",
    ["kitchen towels", "kettle", "kitten", "xyz", "red", "12oz", "iphone15", "", "\x00", "красный", "zzzzzzzzzz"],
)
def test_what_is_known_short_or_like_nothing_stays(speller: Speller, typed: str) -> None:
    assert speller.corrected(typed) is None


def test_numbers_and_the_other_words_stay_as_they_are(speller: Speller) -> None:
    assert speller.corrected("2-in-1 kichen towel 12oz") == "2-in-1 kitchen towel 12oz"


def test_a_word_written_once_in_a_description_is_no_word_to_correct_to_nor_to_keep() -> None:
    counts = counted(NAMES, ItemWords.of(EVERYTHING).counts)
    assert "stainles" not in counts
    assert counts["dishwasher"] == 2


def test_two_errors_need_the_right_beginning() -> None:
    speller = Speller({"lipstick": 1}, Analyzer("english"))
    assert speller.corrected("lipstikc") == "lipstick"
    assert speller.corrected("firestick") is None


def test_of_equally_near_words_the_frequent_one_is_meant() -> None:
    speller = Speller({"mark": 9, "mare": 1, "park": 99}, Analyzer("english"))
    assert speller.corrected("marx") == "mark"


def test_without_a_catalogue_nothing_is_corrected() -> None:
    assert Speller({}, Analyzer(None)).corrected("anything") is None


def test_words_that_were_run_together_are_taken_apart(speller: Speller) -> None:
    assert speller.corrected("kitchentowel") == "kitchen towel"
    assert speller.corrected("redkettle") == "red kettle"
    assert speller.corrected("kitchenqqq") is None


@pytest.mark.parametrize(
    ("typed", "looser"),
    [
        ("kitche sciss", "kitchen scissors"),
        ("Kitchenware xyzzy 12oz", "kitchen 12oz"),
        ("kitchen towel", None),
        ("xyzzy", None),
        ("xyzzy 12", None),
        ("", None),
        ("\x00", None),
    ],
)
def test_relaxed_words_are_completed_cut_short_or_left_out(speller: Speller, typed: str, looser: str | None) -> None:
    assert speller.relaxed(typed) == looser


def test_words_with_other_letters_are_left_out_and_none_that_is_near_enough() -> None:
    draw = random.Random(3)  # noqa: S311 - a test
    words = sorted({"".join(draw.choices("abcdeñжя", k=draw.randrange(3, 12))) for _ in range(3000)})
    many = Speller(dict.fromkeys(words, 1), Analyzer("english"))
    for word in draw.sample(words, 100):
        for errors in (1, 2):
            near = {other for other in words if OSA.distance(word, other) <= errors and abs(len(other) - len(word)) < 3}
            kept = many._with_like_letters(word, errors)
            assert near <= set(kept)
            assert kept == sorted(kept, key=lambda other: (len(other), words.index(other)))
    assert len(many._with_like_letters("abcde", 1)) < len(words) / 10


def test_items_are_found_by_the_words_that_are_written_about_them() -> None:
    told = ItemWords.of(["Red mug, red", "", "blue MUG", "tea"])
    assert dict(told.counts) == {"red": 2, "mug": 2, "blue": 1, "tea": 1}
    found = told.having({"mug", "red", "tea", "cup"})
    assert {word: items.tolist() for word, items in found.items()} == {"mug": [0, 2], "red": [0], "tea": [3], "cup": []}
    assert {word: items.tolist() for word, items in told.having(["cup"]).items()} == {"cup": []}
    assert ItemWords.of([]).having(["cup"])["cup"].tolist() == []
