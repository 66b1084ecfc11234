"""Catalogue and queries meet in the same terms, however they are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.search.analysis import Analyzer, normalised

ENGLISH = Analyzer("english")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Coffee Mugs", "coffee mug"),
        ("Café", "cafe"),
        ("Men's shoes", "mens shoe"),
        ("12-ounce bottle", "12oz bottle"),
        ("12 oz bottle", "12oz bottle"),
        ('65" tv', "65 inch tv"),
        ("65\u2033 TV", "65-inch tv"),
        ("6' rope", "6 ft rope"),
        ("WH-1000XM4", "wh1000xm4"),
        ("T-Shirts", "tshirt"),
        ("\uff34\uff36", "tv"),
        ("100% cotton", "100 cotton"),
        ("wi-fi", "WiFi"),
    ],
)
def test_two_ways_to_write_one_thing_share_a_term_that_tells_it(one: str, other: str) -> None:
    shared = set(ENGLISH.terms(one)) & set(ENGLISH.terms(other))
    assert any(len(term) > 1 for term in shared), (ENGLISH.terms(one), ENGLISH.terms(other))


def test_terms_come_in_order_and_compounds_after_their_parts() -> None:
    assert ENGLISH.terms("iPhone 15 Pro, 1/2 in") == ["iphon", "15", "pro", "1/2", "1/2in", "in"]
    assert ENGLISH.terms("WH-1000XM4") == ["wh", "1000", "xm", "4", "wh1000xm4"]


def test_the_script_decides_the_language_of_a_word() -> None:
    assert ENGLISH.terms("красные кроссовки") == ENGLISH.terms("красный кроссовок"[:7] + " кроссовки")
    assert Analyzer("german").terms("Häuser") == Analyzer("german").terms("haus")


def test_scripts_without_spaces_are_cut_into_pairs() -> None:
    assert ENGLISH.terms("红色手机壳") == ["红色", "色手", "手机", "机壳"]
    assert set(ENGLISH.terms("手机")) <= set(ENGLISH.terms("红色手机壳"))


def test_without_a_language_words_stay_whole() -> None:
    assert Analyzer(None).terms("Running Shoes") == ["running", "shoes"]


def test_a_language_that_nobody_stems_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"klingon.*english"):
        Analyzer("klingon")


@pytest.mark.parametrize("text", ["", "   ", "\x00\x01\x02", "!?—…", "😀🎉", "\u200b\u200d"])
def test_what_is_no_word_has_no_terms(text: str) -> None:
    assert ENGLISH.terms(text) == []


def test_control_characters_and_markup_cannot_glue_or_break_words() -> None:
    assert normalised("red\x00\x1b[31m\u200b shoes\n") == "red [31m shoes"
    assert "shoe" in ENGLISH.terms("<b>red</b>'; DROP TABLE shoes;--")


@given(st.text(max_size=200))
def test_any_text_has_terms_without_spaces_and_the_same_after_normalising(text: str) -> None:
    terms = ENGLISH.terms(text)
    assert all(term and " " not in term for term in terms)
    assert ENGLISH.terms(normalised(text)) == terms
