"""Vectors of queries by the encoder of the item texts, without TensorFlow: its graph in ONNX.

::

    model.onnx       token ids int64 [b, t], positions int64 [t] -> unit vectors float32 [b, d]
    tokenizer.json   the model's own
    about.json       max_tokens, precision

A graph may have further inputs, :data:`Additions`: low-rank changes of its weights.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from pipelines.errors import ArtifactError
from pipelines.storage import read_json

ENCODER = "encoder"
"""Name of the folder, beside the item texts' vectors and in a bundle whose members search."""

MODEL, TOKENIZER, ABOUT = "model.onnx", "tokenizer.json", "about.json"
DOWN, UP = "down", "up"
Additions = Mapping[str, np.ndarray]
"""``down`` float32 ``[p, d, heads · r]`` and ``up`` float32 ``[p, r, d / heads]``: what is added to product p of the
network; query and value of every layer's attention in turn, of rank r in each head."""


class QueryEncoder:
    """Thread-safe; the session is opened at the first query, in whatever process asks. Keeps no vector: callers do."""

    def __init__(self, folder: Path, additions: Additions | None = None) -> None:
        """Name the files.

        Args:
            folder: what ``pipelines.adapters.onnx_export`` wrote.
            additions: for a graph that takes them.

        Raises:
            ArtifactError: when it is missing or incomplete.
        """
        for name in (MODEL, TOKENIZER):
            if not (folder / name).is_file():
                raise ArtifactError(f"{folder} lacks {name}", do="run `dvc repro encode`")
        self._folder = folder
        self._additions = dict(additions or {})
        self._about: dict[str, Any] = read_json(folder / ABOUT)
        self._lock = threading.Lock()

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """The encoder in a folder; None where there is no such folder."""
        return cls(folder) if folder.is_dir() else None

    @functools.cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer  # with the first query: a bundle that does not search needs neither library

        tokenizer = Tokenizer.from_file(str(self._folder / TOKENIZER))
        tokenizer.no_padding()
        tokenizer.enable_truncation(int(self._about["max_tokens"]))
        return tokenizer

    @functools.cached_property
    def _session(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # a query is a millisecond; other requests want the other cores
        options.log_severity_level = 3
        path = str(self._folder / MODEL)
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def encode(self, text: str) -> np.ndarray:
        """Unit vector of a text, float32 ``[d]``; the same text gives the same bits.

        One text a call: the shape of a batch would change the last bits, and so would its neighbours.
        """
        with self._lock:
            tokenizer, session = self._tokenizer, self._session
        ids = np.array([tokenizer.encode(text).ids], np.int64)
        vector: np.ndarray = session.run(None, {"ids": ids, "at": np.arange(ids.shape[1]), **self._additions})[0][0]
        return vector
