"""A BERT-type encoder as an ONNX graph, so that the service encodes queries without TensorFlow.

The graph is the network of Devlin et al. 2019 (arXiv:1810.04805) as ``BertModel`` of the folder's ``config.json``
has it: absolute positions, one segment, GELU by the error function; then the mean of the last layer over the tokens,
scaled to unit length, as item texts have it (``pipelines.adapters.encoder``). One text a call, or texts of one length:
there is no padding that a mask would have to hide. In ``int8`` the weights of the products
are rounded per output channel, and activations as they come (ONNX Runtime's dynamic quantisation).

A graph may take low-rank additions to the attention's query and value products as further inputs (LoRA, Hu et al. 2021,
arXiv:2106.09685): then one graph, rounded once, serves every tuned version of the encoder, and none of them is rounded.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pipelines.errors import ArtifactError
from pipelines.search.encoding import ABOUT, DOWN, MODEL, TOKENIZER, UP, Additions, NetworkEncoder
from pipelines.storage import read_json, replacing_folder, write_json

OPSET, IR = 20, 10
"""Of ONNX 1.15: GELU and layer normalisation are single operations from opset 20 and 17 on."""

WEIGHTS, CONFIG = "model.safetensors", "config.json"
LEAST_COSINE = 0.98
"""Below it, on the worst of the probes, rounded weights are not shipped."""


def exportable(source: Path) -> str | None:
    """Why an encoder's folder cannot be exported, or None when it can."""
    for name in (WEIGHTS, CONFIG, TOKENIZER):
        if not (source / name).is_file():
            return f"the encoder has no {name}"
    config = read_json(source / CONFIG)
    if config.get("model_type") != "bert" or config.get("position_embedding_type", "absolute") != "absolute":
        return f"an encoder of type {config.get('model_type')!r} cannot be exported"
    return None if config.get("hidden_act") == "gelu" else f"no export of the activation {config.get('hidden_act')!r}"


def word_embeddings(source: Path) -> np.ndarray:
    """What the network of an exportable folder reads a token as, before it has seen its neighbours; ``[v, d]``."""
    from safetensors.numpy import load_file

    found: np.ndarray = _weights(load_file(source / WEIGHTS))["embeddings.word_embeddings.weight"]
    return np.asarray(found, np.float32)


def _weights(stored: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights by the names of ``BertModel``, whatever model it is part of."""
    return {name.removeprefix("bert."): values for name, values in stored.items()}


def export(
    source: Path,
    into: Path,
    *,
    max_tokens: int,
    probes: list[str],
    vectors: np.ndarray,
    additions: Additions | None = None,
) -> dict[str, Any]:
    """Write the graph, rounded to int8 if that keeps the vectors, and the tokenizer into a folder.

    Args:
        source: folder of the encoder, see :func:`exportable`.
        into: replaced as a whole.
        max_tokens: longer texts are cut.
        probes: texts whose vectors are known.
        vectors: those, float ``[len(probes), d]`` of unit length; what the graph gives is compared with them.
        additions: what the vectors were made with; the graph then takes additions of this shape as inputs.

    Returns:
        What ``about.json`` says, ``max_tokens`` and ``precision``, and ``least_cosine`` of the probes.

    Raises:
        ArtifactError: when even the exact graph gives other vectors.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with replacing_folder(into) as folder, tempfile.TemporaryDirectory() as scratch:
        exact = write_exact(source, Path(scratch) / "exact", max_tokens=max_tokens, additions=additions)
        shutil.copyfile(source / TOKENIZER, folder / TOKENIZER)
        write_json(folder / ABOUT, {"max_tokens": max_tokens})
        nearest = least_cosine(exact, probes, vectors, additions)
        if nearest < 1 - 1e-3:
            raise ArtifactError(
                f"the exported encoder of {source} gives other vectors", found=f"cosine {nearest:.4f}", wanted="1"
            )
        quantize_dynamic(exact / MODEL, folder / MODEL, weight_type=QuantType.QInt8, per_channel=True)
        precision, rounded = "int8", least_cosine(folder, probes, vectors, additions)
        if rounded < LEAST_COSINE:
            shutil.copyfile(exact / MODEL, folder / MODEL)
            precision = "float32"
        found = nearest if precision == "float32" else rounded
        # the cosine depends on the probes, and what is written must not: further probes, the same files
        about = {"max_tokens": max_tokens, "precision": precision}
        write_json(folder / ABOUT, about)
    return {**about, "least_cosine": round(found, 3)}


def write_exact(source: Path, into: Path, *, max_tokens: int, additions: Additions | None = None) -> Path:
    """The graph as it is and the tokenizer, in a new folder, which is returned."""
    into.mkdir(parents=True)
    onnx.save(graph(source, additions), into / MODEL)
    shutil.copyfile(source / TOKENIZER, into / TOKENIZER)
    write_json(into / ABOUT, {"max_tokens": max_tokens})
    return into


def least_cosine(folder: Path, probes: list[str], vectors: np.ndarray, additions: Additions | None = None) -> float:
    """The least cosine between what an exported encoder gives for texts and their vectors; 1 without texts."""
    encoder = NetworkEncoder(folder, additions)
    known = np.asarray(vectors, np.float32)
    cosines = [float(encoder.encode(text) @ vector) for text, vector in zip(probes, known, strict=True)]
    return min(cosines, default=1.0)


class _Builder:
    """Nodes and constants of a graph in the making; every method gives the name of its result."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, values: np.ndarray) -> str:
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        out = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], **attributes))
        return out

    def dense(self, x: str, *names: str) -> str:
        """``x @ W.T + b``; of several products with the same ``x`` one, their results side by side."""
        joined = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
        weight = np.concatenate([self.weights[f"{name}.weight"] for name in names]).T
        bias = np.concatenate([self.weights[f"{name}.bias"] for name in names])
        product = self.op("MatMul", x, self.constant(f"{joined}.weight", weight))
        return self.op("Add", product, self.constant(f"{joined}.bias", bias))

    def split(self, x: str, parts: int) -> list[str]:
        """Equal parts of the last axis."""
        outs = [f"split_{len(self.nodes)}_{part}" for part in range(parts)]
        self.nodes.append(helper.make_node("Split", [x], outs, axis=-1, num_outputs=parts))
        return outs

    def norm(self, x: str, name: str, epsilon: float) -> str:
        parts = [self.constant(f"{name}.{part}", self.weights[f"{name}.{part}"]) for part in ("weight", "bias")]
        return self.op("LayerNormalization", x, *parts, axis=-1, epsilon=epsilon)

    def added(self, product: str, x: str, place: int, split: str) -> str:
        """A product by head with the addition of its place: ``x @ down``, then ``@ up`` of every head alike."""
        at = self.constant(f"place_{place}", np.array(place, np.int64))
        down, up = (self.op("Gather", name, at) for name in (DOWN, UP))
        narrow = self.op("Reshape", self.op("MatMul", x, down), split)
        return self.op("Add", product, self.op("MatMul", narrow, up))


def graph(source: Path, additions: Additions | None = None) -> onnx.ModelProto:
    """The network of a folder, exact; with ``additions`` their shape becomes that of two more inputs."""
    from safetensors.numpy import load_file

    config = read_json(source / CONFIG)
    weights = _weights(load_file(source / WEIGHTS))
    width, heads, epsilon = config["hidden_size"], config["num_attention_heads"], config["layer_norm_eps"]
    build = _Builder(weights)
    words = build.constant("words", weights["embeddings.word_embeddings.weight"])
    segment = weights["embeddings.token_type_embeddings.weight"][0]
    places = build.constant("places", weights["embeddings.position_embeddings.weight"] + segment)
    x = build.op("Add", build.op("Gather", words, "ids"), build.op("Gather", places, "at"))
    x = build.norm(x, "embeddings.LayerNorm", epsilon)
    split = build.constant("split", np.array([0, 0, heads, -1], np.int64))
    whole = build.constant("whole", np.array([0, 0, width], np.int64))
    scale = build.constant("scale", np.array((width // heads) ** -0.5, np.float32))
    for layer in range(config["num_hidden_layers"]):
        own = f"encoder.layer.{layer}"
        projections = [f"{own}.attention.self.{name}" for name in ("query", "key", "value")]
        query, key, value = (build.op("Reshape", one, split) for one in build.split(build.dense(x, *projections), 3))
        if additions is not None:
            query = build.added(query, x, 2 * layer, split)
            value = build.added(value, x, 2 * layer + 1, split)
        query, value = (build.op("Transpose", one, perm=[0, 2, 1, 3]) for one in (query, value))
        key = build.op("Transpose", key, perm=[0, 2, 3, 1])
        near = build.op("Mul", build.op("MatMul", query, key), scale)
        seen = build.op("MatMul", build.op("Softmax", near, axis=-1), value)
        seen = build.op("Reshape", build.op("Transpose", seen, perm=[0, 2, 1, 3]), whole)
        x = build.norm(
            build.op("Add", x, build.dense(seen, f"{own}.attention.output.dense")),
            f"{own}.attention.output.LayerNorm",
            epsilon,
        )
        inner = build.dense(build.op("Gelu", build.dense(x, f"{own}.intermediate.dense")), f"{own}.output.dense")
        x = build.norm(build.op("Add", x, inner), f"{own}.output.LayerNorm", epsilon)
    tokens = build.constant("tokens", np.array([1], np.int64))
    total = build.op("ReduceSum", x, tokens, keepdims=0)
    length = build.op("Sqrt", build.op("ReduceSum", build.op("Mul", total, total), tokens, keepdims=1))
    build.nodes.append(helper.make_node("Div", [total, length], ["vectors"]))
    inputs = [
        helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "length"]),
        helper.make_tensor_value_info("at", TensorProto.INT64, ["length"]),
    ]
    for name, values in (additions or {}).items():
        inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, values.shape))
    outputs = [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["batch", width])]
    made = helper.make_graph(build.nodes, "encoder", inputs, outputs, list(build.constants.values()))
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    onnx.checker.check_model(model)
    return model
