"""While somebody types the catalogue goes on: whatever the case, the accents, the script, and with a slip in a word."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.search.analysis import Analyzer
from pipelines.search.spelling import Speller
from pipelines.search.suggestions import MOST, Beginnings, Kind, Suggester, Suggestion, entries, folded

WORDS = {"kitchen": 9, "towel": 5, "coffee": 7, "mug": 8, "café": 1, "table": 2, "mugs": 1, "red": 3}
BRANDS = {"Café Noir": 4, "Kiln & Co": 9, "小米": 2}
CATEGORIES = {"Kitchen": 30, "Kitchen > Mugs": 20, "Gifts > Mugs": 2}
PHRASES = {"kitchen towel": 6, "coffee mug": 12, "mug tree": 2, "kiln & co": 50, "красный чайник": 3, "red table": 1}
ITEMS = [("m1", "Coffee mug with a very small handle"), ("m2", "Mug, red"), ("p9", "手机壳 红色")]


@pytest.fixture(scope="module")
def suggester() -> Suggester:
    offered = entries(brands=BRANDS, categories=CATEGORIES, phrases=PHRASES, searched={}, items=ITEMS)
    return Suggester(Beginnings.of(offered), Speller(WORDS, Analyzer()))


def test_what_was_saved_offers_the_same(tmp_path: Path) -> None:
    offered = entries(brands=BRANDS, categories=CATEGORIES, phrases=PHRASES, searched={"blue mug": 7}, items=ITEMS)
    made = Beginnings.of(offered)
    made.save(tmp_path)
    again = Beginnings.load(tmp_path)
    assert again.offered == made.offered
    assert {type(one) for one in again.offered} == {Suggestion}
    speller = Speller(WORDS, Analyzer())
    for typed in ("", "m", "mug", "coffee m", "kichen t", "手", "кра", "caf", "zzz"):
        assert Suggester(again, speller).complete(typed, 9) == Suggester(made, speller).complete(typed, 9)


def texts(suggester: Suggester, typed: str, n: int = 10) -> list[str]:
    return [one.text for one in suggester.complete(typed, n)]


def test_what_begins_so_comes_before_what_goes_on_so_and_items_come_last(suggester: Suggester) -> None:
    assert texts(suggester, "mug") == [
        "Mugs",
        "mug tree",
        "coffee mug",
        "Mug, red",
        "Coffee mug with a very small handle",
    ]
    assert texts(suggester, "mug", 2) == ["Mugs", "mug tree"]


def test_a_suggestion_says_what_it_is_and_where_it_leads(suggester: Suggester) -> None:
    assert suggester.complete("mugs", 1) == [Suggestion("Mugs", Kind.CATEGORY, "Kitchen > Mugs")]
    assert suggester.complete("kiln", 5) == [Suggestion("Kiln & Co", Kind.BRAND, "Kiln & Co")]
    assert suggester.complete("mug t", 1) == [Suggestion("mug tree", Kind.QUERY)]
    assert suggester.complete("coffee mug w", 1) == [Suggestion(ITEMS[0][1], Kind.ITEM, "m1")]


@pytest.mark.parametrize("typed", ["cafe n", "CAFÉ N", "Cafe\u0301 noir", "  café   n", "noir"])
def test_case_accents_and_spaces_do_not_matter(suggester: Suggester, typed: str) -> None:
    assert texts(suggester, typed)[0] == "Café Noir"


@pytest.mark.parametrize(
    ("typed", "text"), [("крас", "красный чайник"), ("小", "小米"), ("红色", "手机壳 红色"), ("机", ITEMS[2][1])]
)
def test_any_script_goes_on_and_one_without_spaces_from_any_letter(suggester: Suggester, typed: str, text: str) -> None:
    assert texts(suggester, typed) == [text]


def test_a_space_asks_for_the_next_word(suggester: Suggester) -> None:
    assert "Mugs" not in texts(suggester, "mug ")
    assert texts(suggester, "mug ")[0] == "mug tree"


@pytest.mark.parametrize("typed", ["kichen t", "kitchne towl", "kitchen towelz", "kitchen towels"])
def test_a_slip_in_a_finished_word_is_forgiven(suggester: Suggester, typed: str) -> None:
    assert texts(suggester, typed) == ["kitchen towel"]


def test_the_end_is_completed_behind_words_that_nothing_begins_with(suggester: Suggester) -> None:
    assert suggester.complete("blue coffee m", 5) == [Suggestion("blue coffee mug", Kind.QUERY)]


def test_nothing_typed_gives_what_is_most_frequent_and_nothing_known_gives_nothing(suggester: Suggester) -> None:
    assert texts(suggester, "")[:2] == ["Kitchen", "Mugs"]
    assert texts(suggester, " \x00 ") == texts(suggester, "")
    assert texts(suggester, "xyzzy") == []
    assert Suggester(Beginnings.of([]), Speller({}, Analyzer(None))).complete("a", 5) == []


@pytest.mark.parametrize(
    "typed", ["'; DROP TABLE items;--", "<script>", "%00", "\n", "😀", "a" * 10_000, "\ud800", "[", "\u202e"]
)
def test_whatever_is_typed_there_is_an_answer(suggester: Suggester, typed: str) -> None:
    assert len(texts(suggester, typed)) <= MOST


def test_the_same_text_is_offered_once(suggester: Suggester) -> None:
    assert [one for one in texts(suggester, "", MOST) if folded(one) == folded("Kiln & Co")] == ["Kiln & Co"]


def test_what_people_searched_for_comes_before_what_the_catalogue_is_made_of_and_keeps_its_kind() -> None:
    searched = {"coffee to go": 5, "mug tree": 8, "mugs": 7}
    offered = entries(brands=BRANDS, categories=CATEGORIES, phrases=PHRASES, searched=searched, items=ITEMS)
    suggester = Suggester(Beginnings.of(offered), Speller(WORDS, Analyzer()))
    assert suggester.complete("mug", 3) == [
        Suggestion("mug tree", Kind.QUERY),
        Suggestion("Mugs", Kind.CATEGORY, "Kitchen > Mugs"),
        Suggestion("coffee mug", Kind.QUERY),
    ]
    assert texts(suggester, "coffee")[:2] == ["coffee to go", "coffee mug"]
