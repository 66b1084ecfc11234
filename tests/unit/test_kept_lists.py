"""Lists that are kept are those that would be made, and only what is missing is made."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from pipelines.evaluation import kept_lists
from pipelines.evaluation.kept_lists import KeptLists, Lists

SYSTEM = ["content", "fused", "recommend", "20"]


def list_of(name: str) -> tuple[list[int], list[float], str | None]:
    """A list that the name alone decides; every third has fewer places and a reason."""
    number = sum(name.encode())
    length = 1 if number % 3 == 0 else 2
    return [number, number + 1][:length], [number / 7, number / 9][:length], "few" if length == 1 else None


class Maker:
    """Makes lists and remembers whose."""

    def __init__(self, asked: list[str]) -> None:
        self.asked = asked
        self.made: list[str] = []

    def __call__(self, rows: list[int]) -> Lists:
        self.made += [self.asked[row] for row in rows]
        return Lists.of([list_of(self.asked[row]) for row in rows], 2)


def ask(kept: KeptLists, asked: list[str], system: list[str] | None = None) -> tuple[Lists, list[str]]:
    """The lists, and whose were made."""
    maker = Maker(asked)
    return kept.completed(system or SYSTEM, asked, maker), maker.made


def test_a_second_evaluation_gets_the_same_lists_and_makes_none(tmp_path: Path) -> None:
    first, made = ask(KeptLists(tmp_path, code="1"), ["ann", "bob", "cat"])
    assert made == ["ann", "bob", "cat"]
    again, made = ask(KeptLists(tmp_path, code="1"), ["ann", "bob", "cat"])
    assert made == []
    np.testing.assert_array_equal(again.codes, first.codes)
    np.testing.assert_array_equal(again.scores, first.scores)
    assert again.fallbacks == first.fallbacks
    assert again.codes.dtype == first.codes.dtype


def test_new_users_alone_are_asked_for_and_everybody_stands_in_the_order_asked(tmp_path: Path) -> None:
    ask(KeptLists(tmp_path, code="1"), ["ann", "bob"])
    asked = ["dan", "bob", "ann"]
    found, made = ask(KeptLists(tmp_path, code="1"), asked)
    assert made == ["dan"]
    np.testing.assert_array_equal(found.codes, Lists.of([list_of(name) for name in asked], 2).codes)


@pytest.mark.parametrize("place", range(4))
def test_another_content_system_surface_or_length_shares_nothing(tmp_path: Path, place: int) -> None:
    ask(KeptLists(tmp_path, code="1"), ["ann"])
    other = [f"{word}2" if row == place else word for row, word in enumerate(SYSTEM)]
    assert ask(KeptLists(tmp_path, code="1"), ["ann"], other)[1] == ["ann"]


def test_other_code_shares_nothing(tmp_path: Path) -> None:
    ask(KeptLists(tmp_path, code="1"), ["ann"])
    assert ask(KeptLists(tmp_path, code="2"), ["ann"])[1] == ["ann"]


def test_a_torn_file_is_made_again(tmp_path: Path) -> None:
    ask(KeptLists(tmp_path, code="1"), ["ann", "bob"])
    (file,) = (tmp_path / kept_lists.FOLDER).iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert ask(KeptLists(tmp_path, code="1"), ["ann", "bob"])[1] == ["ann", "bob"]
    assert ask(KeptLists(tmp_path, code="1"), ["ann", "bob"])[1] == []


def test_nobody_gets_no_list_and_an_audience_without_anybody_is_kept_too(tmp_path: Path) -> None:
    assert ask(KeptLists(tmp_path, code="1"), [])[0].codes.shape == (0, 2)
    assert ask(KeptLists(tmp_path, code="1"), ["ann"])[0].codes.shape == (1, 2)


def test_what_was_not_used_for_longest_is_forgotten_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_lists, "KEPT", 2)
    kept = KeptLists(tmp_path, code="1")
    for age, name in enumerate(["old", "middle", "new"]):
        ask(kept, ["ann"], [name])
        (file,) = (path for path in kept.folder.iterdir() if path.stat().st_mtime > 1000)
        os.utime(file, (age, age))
    ask(kept, ["ann"], ["old"])
    kept.forget()
    assert [ask(kept, ["ann"], [name])[1] for name in ("old", "new", "middle")] == [[], [], ["ann"]]
