"""What a query says shall not be there, and what a text says it lacks: ``belt without buckle``, ``buckle-free``.

Words match whatever stands before them, and the vector of a text hardly changes with a negation (Weller et al. 2024,
"NevIR: Negation in Neural Information Retrieval"), so both would find what was ruled out. Here the words of negation
of a language are a table, what follows them is parted from the query, and titles are read in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.search.analysis import Analyzer

REACH = 2
"""Terms of a title that a word of negation denies after it: ``without any buckle`` a buckle, and nothing further on."""

SHORTEST = 3
"""Letters of a word that a suffix may deny: ``unless`` is no lack of ``un``."""


@dataclass(frozen=True)
class Words:
    """A language's words of negation, in lower case.

    Attributes:
        opens: begins what a query does not want.
        closes: ends it, and what follows is wanted again.
        fillers: stand within it and mean nothing.
        before: deny what follows them in a title.
        after: deny what they follow.
        suffixes: deny the word that they end.
    """

    opens: frozenset[str]
    closes: frozenset[str]
    fillers: frozenset[str]
    before: frozenset[str]
    after: frozenset[str]
    suffixes: tuple[str, ...]


def _words(opens: str, closes: str, fillers: str, *, before: str, after: str = "", suffixes: str = "") -> Words:
    return Words(
        opens=frozenset(opens.split()),
        closes=frozenset(closes.split()),
        fillers=frozenset(fillers.split()),
        before=frozenset(f"{opens} {before}".split()),
        after=frozenset(after.split()),
        suffixes=tuple(suffixes.split()),
    )


_SCANDINAVIAN = {"after": "fri", "suffixes": "fri løs lös"}

LANGUAGES: dict[str, Words] = {
    "danish": _words("uden", "til med i på af", "en et den det og eller", before="ingen ikke", **_SCANDINAVIAN),
    "dutch": _words(
        "zonder", "voor met in op van", "een de het en of", before="geen niet", after="vrij", suffixes="loos vrij"
    ),
    "english": _words(
        "without w/o",
        "for with in on to from by that which made",
        "a an any the and or of",
        before="no non not",
        after="free less not",
        suffixes="less",
    ),
    "french": _words("sans", "pour avec en dans", "un une le la les de du des d l et ou", before="non aucun aucune"),
    "german": _words(
        "ohne",
        "für mit in im aus von zum zur",
        "ein eine einen einem der die das und oder",
        before="kein keine nicht",
        after="frei",
        suffixes="frei los",
    ),
    "italian": _words("senza", "per con in da", "un uno una il lo la i gli le e o", before="non nessun"),
    "norwegian": _words("uten", "til med i på av", "en et den det og eller", before="ingen ikke", **_SCANDINAVIAN),
    "portuguese": _words("sem", "para com em", "um uma o a os as e ou de", before="não nenhum"),
    "spanish": _words("sin", "para con en", "un una el la los las y o de", before="no ningún"),
    "swedish": _words("utan", "för med i på av till", "en ett den det och eller", before="ingen ej", **_SCANDINAVIAN),
}
"""By Snowball's name of the language; of others negations are not read."""


def parted(text: str, language: str | None) -> tuple[str, str] | None:
    """What a normalised query wants and what it does not; None when it does not say that, or wants nothing else."""
    words = LANGUAGES.get(language or "")
    if words is None or words.opens.isdisjoint(given := text.split()):
        return None
    meant: list[str] = []
    unwanted: list[str] = []
    denying = False
    for word in given:
        denying = word in words.opens or (denying and word not in words.closes)
        if not denying:
            meant.append(word)
        elif word not in words.opens and word not in words.fillers:
            unwanted.append(word)
    return (" ".join(meant), " ".join(unwanted)) if meant and unwanted else None


@dataclass(frozen=True)
class Reader:
    """Reads what titles of a language say of each of their terms; ``analyzer`` is the one that queries are read by."""

    analyzer: Analyzer
    before: frozenset[str]
    after: frozenset[str]
    suffixes: tuple[str, ...]

    @classmethod
    def of(cls, analyzer: Analyzer) -> Reader:
        """That of the analyser's language, which is one of :data:`LANGUAGES`."""
        words = LANGUAGES[analyzer.language or ""]
        before, after = (frozenset(map(analyzer.stem, group)) for group in (words.before, words.after))
        return cls(analyzer, before, after, words.suffixes)

    def has(self, title: str) -> dict[str, bool]:
        """By term of a title, and by what its words say is lacking: whether the item has it.

        One denial is enough: ``not included`` says more than that the thing is named elsewhere in the title.
        """
        terms = self.analyzer.terms(title)
        found = dict.fromkeys(terms, True)
        found |= dict.fromkeys(self._lacked(terms), False)
        return found

    def _lacked(self, terms: list[str]) -> Iterator[str]:
        for place, term in enumerate(terms):
            around = self.before.intersection(terms[max(0, place - REACH) : place])
            if around or self.after.intersection(terms[place + 1 : place + 2]):
                yield term
            for suffix in self.suffixes:
                if term.endswith(suffix) and len(term) >= SHORTEST + len(suffix):
                    yield self.analyzer.stem(term.removesuffix(suffix))
