"""From the network that encodes queries to vectors of words that do as well, or to the reason to keep the network.

Which of the two serves is decided without a label: both are asked for products by phrases out of their own texts that
no vector was learned from (:mod:`pipelines.distillation`), and the words are taken if they lose no more than a margin.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from pipelines import distillation, text_encoding
from pipelines.adapters.onnx_export import word_embeddings
from pipelines.evaluation.bootstrap import difference
from pipelines.params import DistillationParams
from pipelines.rounded_vectors import RoundedVectors
from pipelines.search.encoding import ABOUT, MODEL, TOKENIZER, NetworkEncoder, QueryEncoder, WordEncoder
from pipelines.storage import file_sha256, value_sha256, write_json
from pipelines.text_encoding import FillCache, TextVectors, VectorCache, text_key

TIMED = 200
"""Held-out phrases whose encoding is timed."""

METHOD = "phrases and words; 1"
"""Part of the fingerprint: a change of what a phrase is needs no new one, a change of how it is encoded does."""


@dataclass(frozen=True)
class Shop:
    """The items that are searched, by code.

    Attributes:
        titles: None for an item without.
        descriptions: likewise.
        vectors: of the item texts, unit, float ``[n_items, d]``; zeros for an item without text.
    """

    titles: Sequence[str | None]
    descriptions: Sequence[str | None]
    vectors: np.ndarray


def distil(
    source: Path, network: Path, into: Path, shop: Shop, settings: DistillationParams, *, caches: Path, seed: int
) -> dict[str, Any]:
    """Learn vectors of words, write them, and compare them with the network.

    Args:
        source: folder of the encoder.
        network: the exported one.
        into: a new folder for the vectors; not made where too few phrases teach them.
        shop: what is searched.
        settings: how many phrases, and what may be lost.
        caches: folder of the caches of text vectors; the network is asked only for what they lack.
        seed: of the bootstrap.

    Returns:
        ``reason`` not to take the words, or None; and unless nothing was learned what was compared: ``ndcg@10`` of
        finding a held-out phrase's product, ``ms`` a query and ``megabytes`` of ``network`` and ``words``, the paired
        ``gain`` of the words, their mean ``cosine`` with the network, and the counts of what was learned from.
    """
    learned, held = distillation.phrases(shop.titles, shop.descriptions).first(settings.phrases).parted()
    if len(learned.texts) < settings.min_phrases:
        found = f"{len(learned.texts)} phrases of the catalogue"
        return {"reason": f"{found} teach too little, at least {settings.min_phrases} would"}
    teacher = NetworkEncoder(network)
    vocabulary = sorted((places := teacher.tokenizer.get_vocab()), key=places.__getitem__)
    words = distillation.single_words(vocabulary, settings.words)
    known = {*learned.texts, *held.texts}
    texts = [*learned.texts, *(word for word in words if word not in known)]
    vectors = _vectors(teacher, [*texts, *held.texts], caches)
    leads_to = np.zeros((len(texts), vectors.dim), np.float32)
    leads_to[: len(learned.texts)] = shop.vectors[learned.items]
    goals = distillation.targets(vectors.lookup([text_key(text) for text in texts]), leads_to)
    _write(_taught(teacher, texts, goals, source), teacher, into)
    pupil = WordEncoder(into)
    asked = vectors.lookup([text_key(text) for text in held.texts]).astype(np.float32)
    answered = np.stack([pupil.encode(text) for text in held.texts])
    reached = {
        "network": distillation.found(asked, held.items, shop.vectors),
        "words": distillation.found(answered, held.items, shop.vectors),
    }
    gain = difference(reached["words"], reached["network"], seed=seed)
    assert gain is not None  # noqa: S101 - there are as many phrases as min_phrases leaves
    least = -settings.margin * float(reached["network"].mean())
    said = f"{gain.mean:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})"
    return {
        "reason": None if gain.low >= least else f"by words nDCG@10 is {said}, no less than {least:+.4f} is asked",
        "ndcg@10": {name: round(float(found.mean()), 4) for name, found in reached.items()},
        "gain": gain.as_difference(),
        "cosine": round(float((asked * answered).sum(axis=1).mean()), 4),
        "phrases": len(learned.texts),
        "held_out": len(held.texts),
        "words": len(words),
        "ms": {"network": _ms(teacher, held.texts), "words": _ms(pupil, held.texts)},
        "megabytes": {"network": _megabytes(network), "words": _megabytes(into)},
    }


def _vectors(network: NetworkEncoder, texts: Sequence[str], caches: Path) -> TextVectors:
    """What the network says of texts, of each only once whatever run asks."""
    files = [file_sha256(network.folder / name) for name in (MODEL, TOKENIZER)]
    cache = VectorCache(caches / value_sha256([METHOD, network.max_tokens, *files])[:16])
    return text_encoding.encode(texts, cache, _asking(network))


def _asking(network: NetworkEncoder) -> FillCache:
    def fill(texts: list[str], cache: VectorCache) -> None:
        with Progress(console=Console(file=sys.stderr)) as progress:
            task = progress.add_task(f"asking the network for {len(texts):,} phrases and words", total=len(texts))
            for done in text_encoding.filled(texts, cache, network.encode_all):
                progress.update(task, completed=done)

    return fill


def _taught(network: NetworkEncoder, texts: Sequence[str], goals: np.ndarray, source: Path) -> np.ndarray:
    """A vector a token of the vocabulary; ``goals``: where each text shall point."""
    tokens = [one.ids for one in network.tokenizer.encode_batch(list(texts), add_special_tokens=False)]
    rows = [row for row, ids in enumerate(tokens) if ids]
    return distillation.fitted([tokens[row] for row in rows], goals[rows], word_embeddings(source))


def _write(words: np.ndarray, network: NetworkEncoder, into: Path) -> None:
    into.mkdir(parents=True)
    RoundedVectors.of(words).save(into)
    shutil.copyfile(network.folder / TOKENIZER, into / TOKENIZER)
    write_json(into / ABOUT, {"max_tokens": network.max_tokens, "precision": "int8"})


def _ms(encoder: QueryEncoder, texts: Sequence[str]) -> float:
    """Median time of a query, in milliseconds."""
    times = []
    for text in texts[:TIMED]:
        began = time.perf_counter()
        encoder.encode(text)
        times.append(time.perf_counter() - began)
    return round(float(np.median(times)) * 1000, 3)


def _megabytes(folder: Path) -> float:
    return round(sum(path.stat().st_size for path in folder.iterdir()) / 1e6, 1)
