"""Item texts as unit vectors of a pretrained encoder, each distinct text encoded once and kept.

The text of an item is its title, brand and narrowest category; its key is the SHA-256 of that text. Vectors
are cached in chunks, so that a run encodes only what no earlier run has, and a run that was killed carries
on. The encoder itself is a child process (:mod:`pipelines.adapters.encoder`).
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from pipelines.arrays import read_array
from pipelines.contracts import CATEGORY_PATH, MULTI_CATEGORY
from pipelines.errors import ArtifactError
from pipelines.storage import read_json, replacing_file, write_json

CHUNK = 1024
"""Texts encoded between two writes to a cache."""

KEY = np.dtype("S64")
"""A key as arrays hold it: 64 hex digits in ASCII."""


def _normalised(text: str | None) -> str:
    return " ".join(unicodedata.normalize("NFKC", text or "").split())


def item_text(title: str | None, brand: str | None, category: str | None) -> str:
    """What of an item is encoded: title, brand and the last part of its first category path.

    A part whose words the text already has is not repeated; white space is collapsed, Unicode is NFKC, case
    stays (the encoder's tokenizer knows whether it matters). Empty when the item has none of the three.
    """
    path = (category or "").split(MULTI_CATEGORY)[0]
    text = _normalised(title)
    for part in (_normalised(brand), _normalised(path.split(CATEGORY_PATH.strip())[-1])):
        if part and f" {part.casefold()} " not in f" {text.casefold()} ":
            text = f"{text} {part}".strip()
    return text


def texts_of(tables: Path) -> list[str]:
    """Every text that an item of a run's tables has or had; several may be equal."""
    rows = pq.read_table(tables / "catalog.parquet", columns=["title", "brand", "category"])
    return [text for row in rows.to_pylist() if (text := item_text(*row.values()))]


def text_key(text: str) -> str:
    """SHA-256 of a text's UTF-8 bytes as hex; what names a text in caches and artifacts."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class TextVectors:
    """Vectors by key.

    ``keys`` bytes ``S64`` ``[n]`` sorted and distinct; ``vectors`` float16 ``[n, d]`` unit rows in the same order.
    """

    keys: np.ndarray
    vectors: np.ndarray

    @property
    def dim(self) -> int:
        """Width of a vector; 0 when there is none."""
        return int(self.vectors.shape[1])

    def has(self, keys: Sequence[str]) -> np.ndarray:
        """Which of these keys are there, bool ``[len(keys)]``."""
        found, _ = self._places(keys)
        return found

    def lookup(self, keys: Sequence[str]) -> np.ndarray:
        """Vectors of these keys, float16 ``[len(keys), d]``; a zero row for a key that is not there."""
        found, places = self._places(keys)
        out = np.zeros((len(keys), self.dim), np.float16)
        out[found] = self.vectors[places[found]]
        return out

    def of(self, keys: Iterable[str]) -> TextVectors:
        """The vectors of these distinct keys alone, all of which are there."""
        order = np.array(sorted(keys), KEY)
        found, places = self._places(order)
        assert found.all()  # noqa: S101 - the caller's promise
        return TextVectors(order, self.vectors[places])

    def _places(self, keys: Sequence[str] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if not len(self.keys) or not len(keys):
            return np.zeros(len(keys), np.bool_), np.zeros(len(keys), np.int64)
        wanted = np.array(keys, KEY)
        places = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.asarray(self.keys[places] == wanted), places

    @classmethod
    def none(cls) -> TextVectors:
        """No vectors."""
        return cls(np.zeros(0, KEY), np.zeros((0, 0), np.float16))


class VectorCache:
    """Vectors by text key in a folder, one file a chunk; chunks are added, never changed.

    Writers do not disturb each other: a chunk's name comes from its keys, and it appears whole or not at all.
    """

    def __init__(self, folder: Path) -> None:
        """``folder``: made when the first chunk is added."""
        self.folder = folder

    def add(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        """Keep the vectors of distinct texts; ``vectors`` is float ``[len(texts), d]`` with unit rows."""
        keys = np.array([text_key(text) for text in texts], KEY)
        order = np.argsort(keys)
        name = hashlib.sha256(keys[order].tobytes()).hexdigest()[:32]
        with replacing_file(self.folder / f"{name}.npz") as aside, aside.open("wb") as stream:
            np.savez(stream, keys=keys[order], vectors=vectors[order].astype(np.float16))

    def vectors(self) -> TextVectors:
        """Everything in the cache; costs ``2 * d + 64`` bytes a text."""
        chunks = [self._chunk(path) for path in sorted(self.folder.glob("*.npz"))]
        if not chunks:
            return TextVectors.none()
        keys, first = np.unique(np.concatenate([chunk.keys for chunk in chunks]), return_index=True)
        return TextVectors(keys, np.concatenate([chunk.vectors for chunk in chunks])[first])

    def _chunk(self, path: Path) -> TextVectors:
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return TextVectors(arrays["keys"], arrays["vectors"])
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise ArtifactError(f"{path} is damaged", found=error, do="delete it and run `dvc repro`") from error


FillCache = Callable[[list[str], VectorCache], None]
"""Adds vectors of all these texts to the cache, in chunks, so that a kill loses little."""


def filled(texts: Sequence[str], cache: VectorCache, vectors: Callable[[Sequence[str]], np.ndarray]) -> Iterator[int]:
    """Encode distinct texts into the cache, :data:`CHUNK` at a time; gives how many are done after each."""
    for start in range(0, len(texts), CHUNK):
        chunk = texts[start : start + CHUNK]
        cache.add(chunk, vectors(chunk))
        yield start + len(chunk)


def encode(texts: Iterable[str], cache: VectorCache, fill: FillCache) -> TextVectors:
    """Vectors of all distinct texts that are not empty, encoding only those that the cache lacks.

    Args:
        texts: in any order, with repetitions.
        cache: of one encoder with one set of settings.
        fill: encodes what is missing; not called when nothing is. Short texts come first.

    Raises:
        ArtifactError: when ``fill`` left a text out.
    """
    by_key = {text_key(text): text for text in texts if text}
    keys = sorted(by_key)
    missing = [by_key[key] for key, known in zip(keys, cache.vectors().has(keys), strict=True) if not known]
    if missing:
        fill(sorted(missing, key=lambda text: (len(text), text)), cache)
    known = cache.vectors()
    left_out = len(keys) - int(known.has(keys).sum())
    if left_out:
        raise ArtifactError(f"the encoder left out {left_out} of {len(missing)} texts", do="run `dvc repro` again")
    return TextVectors(np.array(keys, KEY), known.lookup(keys))


def save(folder: Path, vectors: TextVectors | None, about: dict[str, Any]) -> None:
    """Write vectors and what they are of into an existing folder; ``vectors`` is None when the encoder is switched off.

    ``about`` goes into the manifest; its ``encoder`` is None in the second case.
    """
    if vectors is not None:
        np.save(folder / "keys.npy", vectors.keys)
        np.save(folder / "vectors.npy", vectors.vectors)
        about = {**about, "dim": vectors.dim, "texts": len(vectors.keys)}
    write_json(folder / "manifest.json", about)


def language(folder: Path) -> str | None:
    """Of the item texts, for stemming, as the folder that :func:`save` wrote says."""
    found: str | None = read_json(folder / "manifest.json")["language"]
    return found


def load(folder: Path) -> TextVectors | None:
    """Read what :func:`save` wrote, memory-mapped; None when the encoder is switched off.

    Raises:
        ArtifactError: when the folder is missing, incomplete or damaged.
    """
    about = read_json(folder / "manifest.json")
    if about["encoder"] is None:
        return None
    vectors = TextVectors(read_array(folder / "keys.npy"), read_array(folder / "vectors.npy"))
    if not len(vectors.keys) == len(vectors.vectors) == about["texts"]:
        found, wanted = f"{len(vectors.vectors)} vectors", about["texts"]
        raise ArtifactError(f"{folder} is incomplete", found=found, wanted=wanted, do="delete it and run `dvc repro`")
    return vectors
