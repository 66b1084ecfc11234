"""A query that names a brand or a category of the catalogue is understood to."""

from __future__ import annotations

import pytest

from pipelines.search.analysis import Analyzer
from pipelines.search.naming import MOST, Named, Names

BRANDS = {"Coca-Cola": 5, "COCA COLA": 1, "Kiln": 9, "Home": 2, "Little, Brown": 3, "小米": 2, "Lancôme": 1, "X": 4}
CATEGORIES = {"Kitchen": 30, "Kitchen > Mugs": 20, "Gifts > Mugs": 2, "Kitchen > Tea & Coffee": 4, "手机": 1}
WORDS = {"home": 500, "kiln": 20}


@pytest.fixture(scope="module")
def names() -> Names:
    return Names(BRANDS, CATEGORIES, WORDS, Analyzer())


@pytest.mark.parametrize("query", ["coca cola zero", "CocaCola", "cold coca-cola", "Coca Cola's"])
def test_a_brand_is_known_by_its_letters_however_they_are_spaced(names: Names, query: str) -> None:
    assert names.named_in(query).brands == ("Coca-Cola", "COCA COLA")


def test_a_category_is_known_by_its_last_part_in_singular_and_plural_the_fullest_path_first(names: Names) -> None:
    both = ("Kitchen > Mugs", "Gifts > Mugs")
    assert names.named_in("red mug").categories == names.named_in("Mugs").categories == both
    assert names.named_in("tea coffee set").categories == ("Kitchen > Tea & Coffee",)


def test_both_are_found_in_one_query_and_accents_do_not_matter(names: Names) -> None:
    assert names.named_in("lancome kitchen kiln") == Named(("Lancôme", "Kiln"), ("Kitchen",))


def test_scripts_without_spaces_are_read_too(names: Names) -> None:
    assert names.named_in("小米手机壳") == Named(("小米",), ("手机",))


def test_a_common_word_names_its_brand_only_when_it_is_the_whole_query(names: Names) -> None:
    assert names.named_in("home decoration").brands == ()
    assert names.named_in("home").brands == ("Home",)
    assert names.named_in("kiln mug").brands == ("Kiln",)


@pytest.mark.parametrize("query", ["", "?!", "x", "little", "colander", "\x00", "a" * 500, "mug" * 100])
def test_what_names_nothing_is_nothing(names: Names, query: str) -> None:
    assert names.named_in(query) == Named()


def test_a_name_of_many_categories_stands_for_the_fullest_and_hides_no_other() -> None:
    names = Names({}, {**{f"shop{n} > Mugs": n for n in range(9)}, "Trays": 1}, {}, Analyzer())
    found = names.named_in("mug tray").categories
    assert (len(found), found[0], found[-1]) == (MOST + 1, "shop8 > Mugs", "Trays")
