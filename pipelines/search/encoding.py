"""Vectors of queries as the encoder of the item texts has them, without TensorFlow: by its network, or by word.

::

    tokenizer.json              the model's own, in both
    about.json                  max_tokens, precision

    model.onnx                  the network: token ids int64 [b, t], positions int64 [t] -> unit vectors float32 [b, d]

    codes.npy, scales.npy       or a vector a token of the vocabulary, in bytes, [v, d] and [v] (``rounded_vectors``)

A network may have further inputs, :data:`Additions`: low-rank changes of its weights. Vectors by word are what
:mod:`pipelines.distillation` made of a network.
"""

from __future__ import annotations

import functools
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pipelines.errors import ArtifactError
from pipelines.rounded_vectors import CODES, SCALES, RoundedVectors
from pipelines.storage import read_json

ENCODER = "encoder"
"""Name of the folder, beside the item texts' vectors and in a bundle whose members search."""

MODEL, TOKENIZER, ABOUT = "model.onnx", "tokenizer.json", "about.json"
DOWN, UP = "down", "up"
KEPT_WORDS = 20_000
"""Words whose tokens are kept, a few hundred bytes each."""

Additions = Mapping[str, np.ndarray]
"""``down`` float32 ``[p, d, heads · r]`` and ``up`` float32 ``[p, r, d / heads]``: what is added to product p of the
network; query and value of every layer's attention in turn, of rank r in each head."""


class QueryEncoder(ABC):
    """Thread-safe; files are opened at the first query, in whatever process asks. Keeps no vector: callers do."""

    FILES: ClassVar[tuple[str, ...]]
    """What the folder holds beside ``about.json``."""

    def __init__(self, folder: Path) -> None:
        """Name the files.

        Args:
            folder: of one encoder.

        Raises:
            ArtifactError: when it is missing or incomplete.
        """
        for name in self.FILES:
            if not (folder / name).is_file():
                raise ArtifactError(f"{folder} lacks {name}", do="run `dvc repro encode_queries`")
        self.folder = folder
        self._about: dict[str, Any] = read_json(folder / ABOUT)
        self._lock = threading.Lock()

    @staticmethod
    def load(folder: Path) -> QueryEncoder | None:
        """The encoder in a folder, of whichever kind; None where there is no such folder."""
        if not folder.is_dir():
            return None
        return WordEncoder(folder) if (folder / CODES).is_file() else NetworkEncoder(folder)

    @property
    def max_tokens(self) -> int:
        """Longer texts are cut."""
        return int(self._about["max_tokens"])

    @functools.cached_property
    def tokenizer(self) -> Any:
        """The model's own, without padding."""
        from tokenizers import Tokenizer  # with the first query: a bundle that does not search needs no library

        tokenizer = Tokenizer.from_file(str(self.folder / TOKENIZER))
        tokenizer.no_padding()
        tokenizer.enable_truncation(self.max_tokens)
        return tokenizer

    @abstractmethod
    def encode(self, text: str) -> np.ndarray:
        """Unit vector of a text, float32 ``[d]``; the same text gives the same bits."""


class NetworkEncoder(QueryEncoder):
    """The network itself, by ONNX Runtime; ``pipelines.adapters.onnx_export`` writes it."""

    FILES = (MODEL, TOKENIZER)

    def __init__(self, folder: Path, additions: Additions | None = None) -> None:
        """As :class:`QueryEncoder`; ``additions`` for a network that takes them."""
        super().__init__(folder)
        self._additions = dict(additions or {})

    @functools.cached_property
    def _session(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # a query is a millisecond; other requests want the other cores
        options.log_severity_level = 3
        path = str(self.folder / MODEL)
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def encode(self, text: str) -> np.ndarray:
        """As :class:`QueryEncoder`.

        One text a call: the shape of a batch would change the last bits, and so would its neighbours.
        """
        with self._lock:
            tokenizer, session = self.tokenizer, self._session
        ids = np.array([tokenizer.encode(text).ids], np.int64)
        vector: np.ndarray = session.run(None, {"ids": ids, "at": np.arange(ids.shape[1]), **self._additions})[0][0]
        return vector

    def encode_all(self, texts: Sequence[str]) -> np.ndarray:
        """Of each of at least one text what :meth:`encode` gives, on every core; float32 ``[len(texts), d]``."""
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            return np.stack(list(threads.map(self.encode, texts)))


class WordEncoder(QueryEncoder):
    """Sum of a vector a token, scaled to unit length: the order of words is gone, and nearly all of the work."""

    FILES = (CODES, SCALES, TOKENIZER)

    def __init__(self, folder: Path) -> None:
        """As :class:`QueryEncoder`."""
        super().__init__(folder)
        self._kept: dict[str, tuple[int, ...]] = {}

    @functools.cached_property
    def _words(self) -> RoundedVectors:
        return RoundedVectors.load(self.folder)

    @functools.cached_property
    def _cuts_at_spaces(self) -> bool:
        """Whether the tokens of a text are known to be those of its words; some mark in a word where it stands."""
        parts = self.tokenizer.normalizer, self.tokenizer.pre_tokenizer
        return [type(part).__name__ for part in parts] == ["BertNormalizer", "BertPreTokenizer"]

    def tokens(self, text: str) -> list[int]:
        """Places of a text's tokens in the vocabulary; those of words that came before are kept."""
        with self._lock:
            tokenizer, by_word = self.tokenizer, self._cuts_at_spaces
        if not by_word:
            ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
            return ids
        found: list[int] = []
        for word in text.split(" "):
            kept = self._kept.get(word)
            if kept is None:
                if len(self._kept) >= KEPT_WORDS:
                    self._kept.clear()
                kept = self._kept[word] = tuple(tokenizer.encode(word, add_special_tokens=False).ids)
            found += kept
        return found[: self.max_tokens]

    def encode(self, text: str) -> np.ndarray:
        """As :class:`QueryEncoder`; zeros for a text of whose tokens none has a vector."""
        with self._lock:
            words = self._words
        found = words.direction(np.array(self.tokens(text), np.int64))
        return np.zeros(words.codes.shape[1], np.float32) if found is None else found
