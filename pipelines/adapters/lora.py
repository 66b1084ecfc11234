"""The text encoder with additions of low rank that are learned: Keras 3, in the child of ``adapters.tuner``.

Where there is a GPU the layers compute in bfloat16; weights, vectors and loss are float32 everywhere.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.params import TuningParams
from pipelines.search.encoding import DOWN, TOKENIZER, UP

TOLD_EVERY = 20
"""Steps between two lines of progress."""

FLOAT32, MIXED = "float32", "mixed_bfloat16"
"""Of the layers, by Keras's names of policies."""

WEIGHT_DECAY, CLIP = 0.01, 1.0
ENCODED = 64
"""Texts encoded at a time."""


class Network:
    """A BERT-type folder; its own weights stay, the additions are variables."""

    def __init__(self, source: str, *, rank: int, seed: int, precision: str = FLOAT32) -> None:
        """Read the folder.

        Args:
            source: the folder.
            rank: of the additions, in each head; they are drawn so that the network computes what it did before.
            seed: of the draw.
            precision: of the layers.
        """
        import tensorflow as tf
        from keras_hub.models import BertBackbone

        tf.keras.utils.set_random_seed(seed)
        self.backbone = BertBackbone.from_preset(source, dtype=precision)
        self.backbone.trainable = False
        self._down, self._up = [], []
        for place in range(self.backbone.num_layers):
            block = self.backbone.get_layer(f"transformer_layer_{place}")
            attention = block._self_attention_layer  # noqa: SLF001 - Keras Hub has no public way to one product
            for product in (attention.query_dense, attention.value_dense):
                block.trainable = product.trainable = True
                product.enable_lora(rank)
                self._down.append(product.lora_kernel_a)
                self._up.append(product.lora_kernel_b)

    @property
    def variables(self) -> list[Any]:
        """What is learned."""
        return [*self._down, *self._up]

    def additions(self) -> dict[str, np.ndarray]:
        """What was learned, in the shape of ``encoding.Additions``.

        Keras has one matrix ``[d, heads, r]`` a product, and one ``[r, d / heads]`` that all heads share.
        """
        down = np.stack([np.array(one, np.float32) for one in self._down])
        return {DOWN: down.reshape(*down.shape[:2], -1), UP: np.stack([np.array(one, np.float32) for one in self._up])}

    def restore(self, additions: dict[str, np.ndarray]) -> None:
        """Take what :meth:`additions` gave."""
        for variable, values in zip(self.variables, [*additions[DOWN], *additions[UP]], strict=True):
            variable.assign(values.reshape(variable.shape))

    def __call__(self, ids: Any) -> Any:
        """Unit vectors float32 ``[b, d]`` of token ids int32 ``[b, t]``; 0 is padding."""
        import tensorflow as tf

        mask = tf.cast(ids != 0, tf.int32)
        inputs = {"token_ids": ids, "padding_mask": mask, "segment_ids": tf.zeros_like(ids)}
        states = tf.cast(self.backbone(inputs, training=False)["sequence_output"], tf.float32)
        weights = tf.cast(mask, tf.float32)[..., tf.newaxis]
        return tf.math.l2_normalize(tf.reduce_sum(states * weights, 1) / tf.reduce_sum(weights, 1), -1)


class Trainer:
    """Teaches one network several versions in turn, with one compiled step for all of them."""

    def __init__(self, order: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """``order`` and ``arrays``: of ``adapters.tuner.Work``."""
        import tensorflow as tf
        from tokenizers import Tokenizer

        self._order, self._arrays = order, arrays
        self._settings = TuningParams.model_validate(order["settings"])
        precision = MIXED if tf.config.list_physical_devices("GPU") else FLOAT32
        known = {"rank": self._settings.rank, "seed": order["seed"]}
        self.network = Network(order["source"], precision=precision, **known)
        self._exact = self.network if precision == FLOAT32 else Network(order["source"], **known)
        self._items = tf.constant(arrays["pool"].astype(np.float32))
        self._tokenizer = Tokenizer.from_file(str(Path(order["source"]) / TOKENIZER))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(order["max_tokens"])
        self._worded = self._tokens(order["wordings"])
        self._optimizer = tf.keras.optimizers.AdamW(1.0, weight_decay=WEIGHT_DECAY, clipnorm=CLIP)
        self._optimizer.build(self.network.variables)
        self._fresh = [np.array(variable) for variable in self._optimizer.variables]
        self._step = self._compiled()
        ids = tf.TensorSpec([None, None], tf.int32)
        self._encode = tf.function(self._exact.__call__, input_signature=[ids])

    def learn(self, name: str, queries: list[str]) -> None:
        """Go on from what the network knows, with queries of titles and these labelled ones."""
        settings, tokens = self._settings, self._tokens(queries)
        half = settings.batch_size // 2
        steps = math.ceil(settings.epochs * len(queries) / half) if queries else settings.steps
        steps = min(steps, settings.max_steps) if self._worded or queries else 0
        places = self._arrays.get(f"places_{name}", np.zeros((0, 1), np.int32))
        shares = self._arrays.get(f"shares_{name}", np.zeros((0, 1), np.float32))
        for variable, values in zip(self._optimizer.variables, self._fresh, strict=True):
            variable.assign(values)
        rng = np.random.default_rng(self._order["seed"])
        from_titles = batches(rng, len(self._worded), half if queries else settings.batch_size)
        from_labels = batches(rng, len(queries), half)
        began = time.monotonic()
        for number in range(steps):
            rows, asked = next(from_titles), next(from_labels)
            self._optimizer.learning_rate = settings.learning_rate * (1 + math.cos(math.pi * number / steps)) / 2
            worded = padded([self._worded[row] for row in rows])
            titles = self._arrays["worded"][rows].astype(np.int32)
            loss = self._step(worded, titles, padded([tokens[row] for row in asked]), places[asked], shares[asked])
            if (number + 1) % TOLD_EVERY == 0 or number + 1 == steps:
                seconds = time.monotonic() - began
                say(f"{name}: step {number + 1} of {steps}, loss {float(loss):.3f}, {seconds:.0f} s")

    def vectors(self) -> np.ndarray:
        """Of the texts that the order asks for, float32 ``[n, d]``, in full precision: as they will be served."""
        self._exact.restore(self.network.additions())
        tokens = self._tokens(self._order["asked"])
        parts = [tokens[start : start + ENCODED] for start in range(0, len(tokens), ENCODED)]
        found = [np.asarray(self._encode(padded(part))) for part in parts]
        return np.concatenate([np.zeros((0, self._items.shape[1]), np.float32), *found])

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        return [one.ids for one in self._tokenizer.encode_batch(texts)]

    def _compiled(self) -> Callable[..., Any]:
        """One step of learning on queries of titles and labelled queries, either of which may be none."""
        import tensorflow as tf

        network, optimizer, heat = self.network, self._optimizer, self._settings.temperature
        ids, matrix = tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, None], tf.float32)
        items = self._items

        def of_titles(worded: Any, titles: Any) -> Any:
            logits = tf.matmul(network(worded), items, transpose_b=True) / heat
            return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(titles, logits))

        def of_labels(asked: Any, places: Any, shares: Any) -> Any:
            near = tf.gather(items, tf.maximum(places, 0))
            logits = tf.einsum("qd,qcd->qc", network(asked), near) / heat
            logits = tf.where(places >= 0, logits, tf.float32.min / 2)
            return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(shares, logits))

        @tf.function(input_signature=[ids, tf.TensorSpec([None], tf.int32), ids, ids, matrix])  # type: ignore[untyped-decorator]
        def step(worded: Any, titles: Any, asked: Any, places: Any, shares: Any) -> Any:
            with tf.GradientTape() as tape:
                one = tf.cond(tf.shape(worded)[0] > 0, lambda: of_titles(worded, titles), lambda: 0.0)
                other = tf.cond(tf.shape(asked)[0] > 0, lambda: of_labels(asked, places, shares), lambda: 0.0)
                loss = one + other
            optimizer.apply(tape.gradient(loss, [variable.value for variable in network.variables]), network.variables)
            return loss

        return lambda *values: step(*(tf.constant(value) for value in values))


def batches(rng: np.random.Generator, n: int, size: int) -> Iterator[np.ndarray]:
    """Rows int64 ``[size]``, in an order drawn anew when all have had their turn; for ever, and empty without rows."""
    waiting = np.zeros(0, np.int64)
    while True:
        while n and len(waiting) < size:
            waiting = np.concatenate([waiting, rng.permutation(n)])
        yield waiting[:size]
        waiting = waiting[size:]


def padded(tokens: Sequence[Sequence[int]]) -> np.ndarray:
    """Token ids int32 ``[len(tokens), longest]``, 0 beyond each text."""
    ids = np.zeros((len(tokens), max(map(len, tokens), default=1)), np.int32)
    for row, one in enumerate(tokens):
        ids[row, : len(one)] = one
    return ids


def say(text: str) -> None:
    """One line of progress."""
    print(f"tune: {text}", file=sys.stderr, flush=True)
