"""The tokens of a text are those of its words, however they were found."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from pipelines.rounded_vectors import RoundedVectors
from pipelines.search import encoding
from pipelines.search.encoding import WordEncoder
from pipelines.storage import write_json

VOCABULARY = ["[UNK]", "a", "b", "##a", "##b", "##ab", "ab", "-", "'", "é", "e", "1", "##1", "中"]
PIECES = [*"ab1-'Aé中", "ab", " ", " ", " ", "  ", "\t", "\u3000", "\u0301", "\u00ad", "\x1c", "[UNK]"]


def encoder(folder: Path, *, bert: bool) -> WordEncoder:
    places = {word: place for place, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordPiece(places, unk_token=VOCABULARY[0]))
    if bert:
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(["[UNK]"])
    RoundedVectors.of(np.eye(len(VOCABULARY))).save(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "about.json", {"max_tokens": 9, "precision": "int8"})
    return WordEncoder(folder)


@pytest.mark.parametrize("bert", [True, False])
def test_words_that_came_before_have_the_tokens_that_they_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, bert: bool
) -> None:
    monkeypatch.setattr(encoding, "KEPT_WORDS", 50)
    kept, draw = encoder(tmp_path, bert=bert), random.Random(5)  # noqa: S311 - texts
    texts = ["".join(draw.choices(PIECES, k=draw.randint(0, 14))) for _ in range(400)]
    for text in texts:
        assert kept.tokens(text) == kept.tokenizer.encode(text, add_special_tokens=False).ids, repr(text)
    assert len({len(kept.tokens(text)) for text in texts}) == 10, "none to the most"


def test_a_vector_is_the_same_whatever_came_before(tmp_path: Path) -> None:
    fresh, used = encoder(tmp_path, bert=True), WordEncoder(tmp_path)
    for text in ("ab a", "b ab-a", "a a a a a a a a b b"):
        used.encode(text)
    assert used.encode("ab a-b").tobytes() == fresh.encode("ab a-b").tobytes()
