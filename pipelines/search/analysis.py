"""From text to terms: one analysis of catalogue and queries, so that both meet.

Text is normalised (NFKC, case folded, control characters gone) and cut into words and numbers. Words are stemmed by
Snowball (https://snowballstem.org) and lose their accents; the script decides the language, for Latin script the
setting does. Scripts that are written without spaces are cut into pairs of characters, as Lucene's CJK analyser does.
What is typed in several ways becomes one compound term beside its parts: numbers with a unit (``12 oz``, ``12-ounce``,
``12oz``) and model numbers (``wh-1000xm4``, ``WH1000XM4``).
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

import Stemmer

SCRIPT_LANGUAGE = {
    "CYRILLIC": "russian",
    "GREEK": "greek",
    "ARABIC": "arabic",
    "DEVANAGARI": "hindi",
    "TAMIL": "tamil",
    "ARMENIAN": "armenian",
}
"""Snowball's language of a script that one language dominates."""

UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")
"""Beginnings of the Unicode names of letters that are written without spaces between words."""

UNITS: dict[str, tuple[str, ...]] = {
    "in": ("inch", "inches"),
    "ft": ("foot", "feet"),
    "yd": ("yard", "yards"),
    "mm": ("millimeter", "millimeters", "millimetre", "millimetres"),
    "cm": ("centimeter", "centimeters", "centimetre", "centimetres"),
    "m": ("meter", "meters", "metre", "metres"),
    "oz": ("ounce", "ounces"),
    "lb": ("lbs", "pound", "pounds"),
    "g": ("gram", "grams", "gr"),
    "kg": ("kilogram", "kilograms", "kilo", "kilos"),
    "mg": ("milligram", "milligrams"),
    "ml": ("milliliter", "milliliters", "millilitre", "millilitres"),
    "l": ("liter", "liters", "litre", "litres"),
    "gal": ("gallon", "gallons"),
    "qt": ("quart", "quarts"),
    "w": ("watt", "watts"),
    "v": ("volt", "volts"),
    "ah": ("amp", "amps"),
    "mah": (),
    "gb": ("gigabyte", "gigabytes"),
    "tb": ("terabyte", "terabytes"),
    "mb": ("megabyte", "megabytes"),
    "hz": ("hertz",),
    "ct": ("count", "pack", "pk", "pcs", "pieces", "piece"),
}
"""Units as shops write them, and the one spelling that their compounds have."""

_CANONICAL = {spelling: unit for unit, others in UNITS.items() for spelling in (unit, *others)}
"""Marks and quotes after a number, straight and curled."""
_PIECE = re.compile(r"\d+(?:[.,/]\d+)*|[^\W\d_]+(?:['\u2019][^\W\d_]+)?", re.UNICODE)
_WORD = re.compile(r"[^\W_]+(?:[-./,'\u2019][^\W_]+)*", re.UNICODE)
_INCHES = re.compile(r"(?<=\d)\s?(?:[\"\u201d]|['\u2019\u2032]{2})(?![^\W\d_])")
_FEET = re.compile(r"(?<=\d)\s?['\u2019\u2032](?![^\W\d_])")
"""Straight and curled quotes, and primes, which NFKC writes singly."""
_POSSESSIVE = re.compile(r"['\u2019][^\W\d_]{1,2}$")
_CONTROLS = dict.fromkeys((*range(32), 127), " ")
COMPOUND_LIMIT = 24
"""Longer compounds are no model numbers."""


def normalised(text: str) -> str:
    """NFKC, case folded, control and format characters as spaces, single spaces."""
    if text.isascii():
        visible = text.lower() if text.isprintable() else text.lower().translate(_CONTROLS)
    else:
        plain = unicodedata.normalize("NFKC", text).casefold()
        visible = "".join(" " if unicodedata.category(one)[0] in "CZ" else one for one in plain)
    return " ".join(visible.split())


@functools.lru_cache(maxsize=4096)
def script(letter: str) -> str:
    """First word of a letter's Unicode name: ``LATIN``, ``CYRILLIC``, ``CJK``; empty when it has none."""
    return unicodedata.name(letter, "").partition(" ")[0]


def unaccented(word: str) -> str:
    """Without combining marks, as ``café`` is typed where the keyboard has none."""
    if word.isascii():
        return word
    return "".join(one for one in unicodedata.normalize("NFKD", word) if not unicodedata.combining(one))


@dataclass(frozen=True)
class Analyzer:
    """Terms of a text; ``language``: Snowball's name for Latin script (``english``), None: words stay as they are."""

    language: str | None = "english"

    def __post_init__(self) -> None:
        """Refuse a language that Snowball does not know."""
        if self.language is not None and self.language not in Stemmer.algorithms():
            raise ValueError(f"no stemmer for {self.language!r}; there are: {', '.join(Stemmer.algorithms())}")

    def key(self, text: str) -> str:
        """What texts with the same distinct terms have in common; empty for one without any."""
        return " ".join(sorted(set(self.terms(text))))

    def terms(self, text: str) -> list[str]:
        """Terms in order, compounds after their parts; repeated as often as they occur."""
        plain = _FEET.sub(" ft ", _INCHES.sub(" in ", normalised(text)))
        found: list[str] = []
        number: str | None = None
        for word in _WORD.findall(plain):
            parts, whole = _analysed(self.language, word)
            for piece, terms in parts:
                if number is not None and piece in _CANONICAL:
                    found.append(f"{number}{_CANONICAL[piece]}")
                found += terms
                number = piece if piece[0].isdigit() else None
            if whole is not None:
                found.append(whole)
        return found

    def stem(self, word: str) -> str:
        """The stem of a normalised word, without accents."""
        return _stemmed(self.language, word)


def pieces(text: str) -> list[str]:
    """Words and numbers in order, without possessives; letters of scripts that are written without spaces singly."""
    found: list[str] = []
    for piece in _PIECE.findall(normalised(text)):
        if not piece[0].isdigit() and script(piece[0]).startswith(UNSPACED):
            found += piece
        else:
            found.append(_without_possessive(piece))
    return found


def compound(pieces: list[str]) -> str | None:
    """The pieces of one word run together: a model number, or a word that others write without the hyphen.

    None for a number with a unit, which has a compound of its own, and for what is too long.
    """
    whole = "".join(pieces)
    measure = len(pieces) == 2 and pieces[0][0].isdigit() and pieces[1] in _CANONICAL
    return None if measure or len(whole) > COMPOUND_LIMIT else whole


def pairs(run: str) -> list[str]:
    """Overlapping pairs of characters; a single character stays."""
    return [run[place : place + 2] for place in range(len(run) - 1)] or [run]


def _without_possessive(piece: str) -> str:
    """``mother`` of ``mother's``."""
    return piece if piece.isalnum() else _POSSESSIVE.sub("", piece)


@functools.lru_cache(maxsize=50_000)
def _analysed(latin: str | None, word: str) -> tuple[tuple[tuple[str, tuple[str, ...]], ...], str | None]:
    """The pieces of a word with the terms of each, and the compound of all; most words have come before."""
    pieces = _PIECE.findall(word)
    parts = tuple((piece, tuple(_terms_of(latin, piece))) for piece in pieces)
    whole = compound(pieces) if len(pieces) > 1 else None
    if whole is not None and not any(one.isdigit() for one in whole):
        whole = _stemmed(latin, whole)
    return parts, whole


def _terms_of(latin: str | None, piece: str) -> Iterator[str]:
    if piece[0].isdigit():
        yield piece
    elif script(piece[0]).startswith(UNSPACED):
        yield from pairs(piece)
    else:
        yield _stemmed(latin, _without_possessive(piece))


@functools.lru_cache(maxsize=64)
def _stemmer(language: str) -> Stemmer.Stemmer:
    return Stemmer.Stemmer(language)


@functools.lru_cache(maxsize=200_000)
def _stemmed(latin: str | None, word: str) -> str:
    """``latin``: language of words in Latin script."""
    language = SCRIPT_LANGUAGE.get(script(word[0]), latin if script(word[0]) == "LATIN" else None)
    return unaccented(word if language is None else _stemmer(language).stemWord(word))
